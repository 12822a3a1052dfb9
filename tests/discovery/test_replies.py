import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.lenient_json import find_objects
from discovery.replies import MAX_REPLY_CHARS, ReplyError, label, parse_reply
from discovery.reply_text import strip_thinking

CODE = '''import torch

def loss(policy_chosen_logps, beta):
    """The "plain" one."""
    table = {"a": 1}
    return -beta * policy_chosen_logps * table["a"]'''
WRONG = CODE.replace("-beta", "+beta")
IDEA = {"thought": "Because\nit may work.", "name": "plain_loss", "code": CODE}
JSON = json.dumps(IDEA)
BAD_JSON = json.dumps({**IDEA, "code": WRONG})
RAW = '{"thought": "Because\nit may work.", "name": "plain_loss", "code": "' + CODE.replace('"', '\\"') + '"}'
UNESCAPED = '{"thought": "Because\nit may work.", "name": "plain_loss", "code": "' + CODE + '"}'

FULL = {
    "plain JSON": JSON,
    "indented JSON": json.dumps(IDEA, indent=2),
    "text around": f"Sure, here it is:\n{JSON}\nI hope that {{helps}}.",
    "fenced JSON": f"Idea:\n```json\n{JSON}\n```\nDone.",
    "raw newlines in strings": RAW,
    "raw newlines, fenced": f"```json\n{RAW}\n```",
    "trailing comma": RAW[:-1] + ",\n}",
    "inner quotes not escaped": UNESCAPED,
    "inner quotes not escaped, fenced": f"```json\n{UNESCAPED}\n```\n",
    "Python dictionary": repr(IDEA),
    "triple-quoted code": '{"thought": "Because\\nit may work.", "name": "plain_loss", "code": \'\'\'' + CODE + "'''}",
    "bare keys": RAW.replace('"thought"', "thought").replace('"name"', "name").replace('"code"', "code"),
    "capital keys": json.dumps({k.capitalize(): v for k, v in IDEA.items()}),
    "other key names": json.dumps({"Reasoning": IDEA["thought"], "loss_name": IDEA["name"], "Source": CODE}),
    "list of one": f"[{JSON}]",
    "nested": json.dumps({"answer": {"proposal": IDEA}}),
    "fence within JSON": json.dumps({**IDEA, "code": f"```python\n{CODE}\n```"}),
    "escaped twice": json.dumps({**IDEA, "code": CODE.replace('"', '\\"').replace("\n", "\\n")}),
    "list of lines": json.dumps({**IDEA, "code": CODE.split("\n")}),
    "CRLF": json.dumps({**IDEA, "code": CODE.replace("\n", "\r\n")}),
    "no-break blanks": json.dumps({**IDEA, "code": CODE.replace("    ", "\u00a0" * 4)}, ensure_ascii=False),
    "thinking first": f"<think>\nMaybe {BAD_JSON}? No.\n</think>\n\n{JSON}",
    "thinking in capitals": f"<THINK>{BAD_JSON}</THINK>{JSON}",
    "thinking that never opens": f"Maybe {BAD_JSON}? No.\n</think>\n{JSON}",
    "thinking that never closes": f"<think>\nHm.\n{JSON}",
    "thinking twice": f"<think>{BAD_JSON}</think>ok<think>{BAD_JSON}</think>{JSON}",
    "last JSON wins": f"First:\n```json\n{BAD_JSON}\n```\nBetter:\n```json\n{JSON}\n```",
    "defining JSON wins": JSON + json.dumps({"name": "usage", "code": "loss(a, b)"}),
    "name and thought apart": json.dumps({k: IDEA[k] for k in ("thought", "name")}) + f"\n```python\n{CODE}\n```",
}


@pytest.mark.parametrize("text", FULL.values(), ids=FULL.keys())
def test_reads_all_three_parts(text: str) -> None:
    idea = parse_reply(text)
    assert idea.code.strip() == CODE
    assert idea.name == "plain_loss"
    assert idea.thought == "Because\nit may work."


CODE_ONLY = {
    "fenced": f"Here:\n```python\n{CODE}\n```\nThat is all.",
    "fence without label": f"```\n{CODE}\n```",
    "tilde fence": f"~~~py\n{CODE}\n~~~",
    "indented fence": "1. The loss:\n   ```python\n" + "\n".join("   " + x for x in CODE.split("\n")) + "\n   ```",
    "fence never closed": f"```python\n{CODE}\n",
    "last of several": f"```python\n{WRONG}\n```\nNo, wait:\n```python\n{CODE}\n```",
    "defining one of several": f"```python\n{CODE}\n```\nUse it:\n```python\nx = loss(a, 0.1)\n```",
    "other languages": f"```bash\npip install torch\n```\n```python\n{CODE}\n```\n```text\n{{}}\n```",
    "bare": CODE,
    "bare with text": f"Here is my loss.\n\n{CODE}\n\nIt is convex.",
    "after thinking": f"<think>```python\n{WRONG}\n```</think>\n```python\n{CODE}\n```",
}


@pytest.mark.parametrize("text", CODE_ONLY.values(), ids=CODE_ONLY.keys())
def test_reads_code_alone(text: str) -> None:
    assert parse_reply(text).code.strip() == CODE


def test_prose_before_a_fence_gives_name_and_thought() -> None:
    idea = parse_reply(f"**Name**: `soft one`\nIt is soft.\n```python\n{CODE}\n```")
    assert idea.name == "soft one"
    assert "It is soft." in idea.thought


REFUSED = {
    "empty": ("", "empty"),
    "blank": (" \n\t", "empty"),
    "only thinking": (f"<think>{JSON}</think>\n", "ends after its reasoning"),
    "no code": ("I am sorry, I cannot do that.", "no code that defines `loss`"),
    "object without code": ('{"thought": "x", "name": "y"}', 'no "code"'),
    "code is a number": ('{"name": "y", "code": 3}', 'no "code"'),
    "cut off": (JSON[:-40], "cut off"),
    "cut off with raw newlines": (RAW[:-40], "cut off"),
    "cut off in a fence": (f"```json\n{RAW[:-40]}", "cut off"),
    "too long": ("x" * (MAX_REPLY_CHARS + 1), str(MAX_REPLY_CHARS)),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_to_send(text: str, says: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_reply(text)
    assert says in str(caught.value)
    assert '"code"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_name_and_thought_are_cleaned() -> None:
    idea = parse_reply(
        json.dumps({"name": "a\x1b[31m/../b\u202e" + "c" * 99, "thought": "t\x00\x1b" * 9999, "code": CODE})
    )
    assert idea.name.startswith("a 31m b")
    assert len(idea.name) <= 60
    assert len(idea.thought) <= 4000
    assert "\x1b" not in idea.thought
    assert label("\n\x00") == "unnamed"


def test_code_of_another_function_is_left_to_the_gate() -> None:
    assert parse_reply(json.dumps({"code": "def los(a): return a"})).code == "def los(a): return a"
    assert parse_reply(JSON, function="objective").code == CODE


def test_raw_tabs_stay() -> None:
    code = "def loss(a):\n\treturn -a"
    assert parse_reply('{"name": "t", "code": "' + code + '"}').code == code


def test_unicode_escapes_and_unknown_ones() -> None:
    (one,) = find_objects(r"""{'a': '\ud83d\ude00 \u00e9 \d \'', 'b': '\ud83d'}""")
    assert one.value["a"] == "\U0001f600 \u00e9 \\d '"
    assert one.value["b"] == "\ufffd"


def test_thinking_tags_inside_an_answer_do_not_cut_it() -> None:
    text = f"<think>a</think>{json.dumps({**IDEA, 'thought': 'not <think> again'})}"
    assert parse_reply(text).code == CODE
    assert strip_thinking("a<think>b</think>c") == "ac"


HOSTILE = {
    "open braces": "{" * 200_000,
    "nested objects": '{"a":' * 40_000,
    "nested lists": '{"a":' + "[" * 190_000,
    "quotes": '"' * 200_000,
    "unclosed strings": '{"a": "' * 28_000,
    "backslashes": '{"a": "' + "\\" * 190_000,
    "value ends": '{"code": "' + '" , ' * 49_000,
    "blank runs": '{ "a' + " " * 199_000,
    "fences": "```\n" * 49_000,
    "backticks": "`" * 200_000,
    "think tags": "<think>" * 28_000,
    "close tags": "</think>" * 24_000,
    "headers": "def loss(\n" * 19_000,
    "unfinished definition": "def loss" + " " * 190_000,
    "names": "name:" * 39_000,
    "newlines": "\n" * 200_000,
    "formulas": "{a:" * 66_000,
    "comments": "{/*" * 66_000,
    "fences behind values": '{"a":1```' * 22_000,
    "triple quotes": '{"a":"""' * 25_000,
    "code tags": "<code>" * 33_000,
    "tokens": "<|a" * 66_000,
    "answers in objects": '{"code": "def loss(a): return a"}\n' * 5_800,
    "answers in blocks": "```\ndef loss(a):\n return a\n```\n" * 6_000,
    "entities": "```\ndef loss(x): &lt;\n```\n" * 8_000,
    "texts of objects": "{" + ",".join(f'"k{i}":"```{{\\"a\\":1}}"' for i in range(8_000)) + "}",
    "brackets": "def loss" + "(" * 190_000,
    "long number": '{"a": ' + "9" * 190_000 + "}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_takes_linear_time(text: str) -> None:
    # quadratic time would be minutes at this length; the bound is far from both
    started = time.process_time()
    with contextlib.suppress(ReplyError):
        parse_reply(text[:MAX_REPLY_CHARS])
    assert time.process_time() - started < 5.0


_PIECES = st.sampled_from(
    ["{", "}", '"', "'", "\\", "\n", "```", "python", "json", ":", ",", "code", "name", "def loss(", "):", "return",
     "<think>", "</think>", '{"code": "', "<code>", "</code>", "<|eot_id|>", "~~~", "//", "/*", "*/", "#", "\r\n", "\ufeff",
     "&lt;", '{\\"', "> ```", "<|channel|>final<|message|>", "policy_chosen_logps", "return x```", "\\n",
     "[", "]", " ", '"""', "\x00", "\ud800", "é"]
)  # fmt: skip


@settings(max_examples=300, deadline=2000)
@given(st.one_of(st.text(max_size=300), st.lists(_PIECES, max_size=60).map("".join)))
def test_any_text_gives_an_idea_or_a_reply_error(text: str) -> None:
    try:
        idea = parse_reply(text, "loss", ("policy_chosen_logps", "beta"))
    except ReplyError:
        return
    assert idea.code.strip()
    assert 0 < len(idea.name) <= 60
    assert len(idea.thought) <= 4000


@settings(max_examples=150, deadline=2000)
@given(thought=st.text(max_size=80), code=st.text(max_size=120), after=st.text(alphabet="abc .!\n", max_size=30))
def test_json_comes_back_whatever_the_strings_hold(thought: str, code: str, after: str) -> None:
    code = "def loss():\n    " + code.replace("\r", "").replace("\u00a0", "") + "#"
    text = json.dumps({"thought": f"x{thought}", "name": "n", "code": code})
    if "<think" not in text.lower() and "</think" not in text.lower():
        assert parse_reply(text + after).code.split() == code.split()
