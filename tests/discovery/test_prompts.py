import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.records import Score
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


def test_a_second_repair_shows_the_last_reply_only():
    once = builder().repair(conversation(), "reply one", "STATIC: a")
    twice = builder().repair(once, "reply two\x00", "CRASH: b")
    assert [m["role"] for m in twice.messages()] == ["system", "user", "assistant", "user"]
    assert twice.parts[: len(conversation().parts)] == conversation().parts
    assert twice.messages()[-2]["content"] == "reply two"
    assert "CRASH: b" in twice.messages()[-1]["content"]
    assert "STATIC: a" not in shown(twice)


def test_a_long_reply_is_cut_in_repairs():
    repaired = builder().repair(conversation(), "x" * 100_000, "y" * 100_000)
    assert len(shown(repaired)) < len(shown(conversation())) + 11_000


def ask(prompt):
    return prompt.parts[-1].text


def test_the_ask_names_the_best_loss_wherever_it_is_shown():
    plan = Plan(1, 1, (past("second", 0.5), past("third", 0.4)), (past("best", 0.7), past("broken", error="boom")))
    assert "best: score 0.7050 (2 seeds)" in ask(builder().build(plan))
    assert "best: score 0.7050" in ask(builder().build(Plan(1, 1, (), plan.in_brief)))


def test_the_ask_names_the_lowest_score_where_lower_is_better():
    low, high = (replace(past(n, 0.0), score=Score("kl", False, {0: v})) for n, v in (("low", 0.2), ("high", 0.9)))
    assert "low: score 0.2000 (1 seed)" in ask(builder().build(Plan(1, 1, (high, low))))


def test_nothing_is_said_to_be_best_before_there_is_a_score():
    text = ask(builder().build(Plan(1, 1, (), (past("broken", error="boom"), past("running")))))
    assert "No loss has a score yet" in text


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
