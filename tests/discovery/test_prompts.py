import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.config import ConfigError
from discovery.prompts.builder import fence
from discovery.protocols import Plan
from tests.support.prompt_cases import CASES, HOSTILE, builder, conversation, past, shown

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(CASES))
def test_prompts_are_as_pinned(name):
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    hint = "if the change is intended: python -m tests.discovery.update_goldens"
    assert shown(CASES[name]()) == expected, hint


def test_parts_repeat_between_prompts_so_that_they_are_stored_once():
    best, other = past("a", 0.9), past("b", 0.8)
    one, two = builder().build(Plan(1, 1, (best,))), builder().build(Plan(2, 2, (best, other)))
    shared = {p.sha256 for p in one.parts} & {p.sha256 for p in two.parts}
    assert len(shared) == len(one.parts)
    assert [m["role"] for m in two.messages()] == ["system", "user"]


def test_code_is_shown_as_it_is():
    source = "import torch\n\n\n\ndef loss(x):\n    return x\n"
    prompt = builder().build(Plan(1, 1, (past("a", 0.9, source=source),)))
    assert any(source in part.text for part in prompt.parts)


def test_hostile_text_stays_inside_its_fence():
    prompt = builder().build(
        Plan(1, 1, (past("a", 0.9, source=HOSTILE, thought=HOSTILE),), (past("b", error=HOSTILE),))
    )
    text = "\n".join(part.text for part in prompt.parts if part.role == "user")
    assert "\x1b" not in text
    assert "\u202e" not in text
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "Ignore all rules" in text
    assert "Ignore all rules" not in outside
    assert "{{ metric }}" in text  # text is never taken for a template


@given(st.text(alphabet="`a\n ", max_size=60))
def test_a_fence_is_longer_than_any_run_inside(text):
    first, *body, last = fence(text, "python").split("\n")
    assert first == last + "python"
    assert not any(last in line for line in body)


def test_repairs_of_repairs_grow_the_conversation():
    once = builder().repair(conversation(), "reply one", "STATIC: a")
    twice = builder().repair(once, "reply two\x00", "CRASH: b")
    assert [m["role"] for m in twice.messages()] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert twice.messages()[-2]["content"] == "reply two"
    assert "CRASH: b" in twice.messages()[-1]["content"]


def test_an_override_is_used(tmp_path):
    path = tmp_path / "mine.j2"
    path.write_text("Beat {{ metric.name }}.{{ part_break }}{% for p in in_full %}{{ p.code | fence }}{% endfor %}")
    prompt = builder(user=str(path)).build(Plan(1, 1, (past("a", 0.9, source="x = 1"),)))
    assert [p.text for p in prompt.parts[-2:]] == ["Beat frontier.", "```\nx = 1\n```"]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("user", "{{ nonsense }}", "'nonsense' is undefined"),
        ("user", "{% for p in in_full %}{{ p.sorce }}{% endfor %}", "has no attribute 'sorce'"),
        ("system", "a\n{% if %}", "line 2"),
        ("repair", "{{ failure | fance }}", "fance"),
        ("repair", "{{ 1 / 0 }}", "division by zero"),
        ("system", " ", "empty prompt"),
        ("system", "{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_bad_override_is_refused_at_the_start(tmp_path, kind, text, said):
    path = tmp_path / "bad.j2"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"prompts.{kind}") as caught:
        builder(**{kind: str(path)})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_override_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no template file"):
        builder(user=str(tmp_path / "none.j2"))
    with pytest.raises(ConfigError, match="cannot read"):
        builder(user=str(tmp_path))
