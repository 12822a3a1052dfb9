"""Kinds of answer that language models give, each with what the parser must make of it. All of our own making."""

from __future__ import annotations

import json
from dataclasses import dataclass

from evaluators.preference.contract import PAIRS

FUNCTION, PARAMETERS = PAIRS.function, PAIRS.required
SIGNATURE = PAIRS.signature()


def source(factor: str, quoted: str = "margin") -> str:
    return f'''import torch
import torch.nn.functional as F


{SIGNATURE}
    """Softplus of the "{quoted}"."""
    d = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    table = {{"scale": {factor}}}
    return F.softplus(-beta * d) * table["scale"]
'''


def with_fences() -> str:
    return source("0.5", "x").replace("Softplus", "Use ```loss``` or\n    ```python\n    softplus").strip()


GOOD, DRAFT = source("0.5").strip(), source("9.0").strip()
NAME, THOUGHT = "soft_table", "Because\nit may work."
IDEA = {"thought": THOUGHT, "name": NAME, "code": GOOD}
JSON, DRAFT_JSON = json.dumps(IDEA), json.dumps({**IDEA, "code": DRAFT})
ESCAPED = GOOD.replace("\\", "\\\\").replace('"', '\\"')
RAW = f'{{"thought": "Because\nit may work.", "name": "{NAME}", "code": "{ESCAPED}"}}'
UNESCAPED = f'{{"thought": "Because\nit may work.", "name": "{NAME}", "code": "{GOOD}"}}'
FENCED = f"```python\n{GOOD}\n```"
LATEX = "$" + r"\frac{a}{b} + \mathbb{E}_{x}[y] " * 40 + "$\n"
ENTITIES = GOOD.replace('"', "&quot;").replace("-beta", "-beta * (d &lt; 3)")


def indented(text: str, by: str) -> str:
    return "\n".join(by + line if line else line for line in text.split("\n"))


def without_last_brace(text: str) -> str:
    assert text.endswith("}")
    return text[:-1]


@dataclass(frozen=True)
class Text:
    """An answer. It must give `code`, and name and thought if `full`; or, with no code, a refusal that says `said`."""

    text: str
    code: str | None = GOOD
    full: bool = False
    said: str = ""


def full(text: str) -> Text:
    return Text(text, full=True)


def refused(text: str, said: str) -> Text:
    return Text(text, code=None, said=said)


_OBJECTS = {
    "plain": full(JSON),
    "indented": full(json.dumps(IDEA, indent=4)),
    "code first": full(json.dumps(dict(reversed(IDEA.items())))),
    "text before and after": full(f"Here you are:\n{JSON}\nTell me whether {{it}} helps."),
    "raw line ends": full(RAW),
    "inner quotes not escaped": full(UNESCAPED),
    "JSON fence": full(f"```json\n{JSON}\n```"),
    "JSON fence in capitals": full(f"```JSON\n{JSON}\n```"),
    "JSON fence, quotes not escaped": full(f"```json\n{UNESCAPED}\n```"),
    "fence without label": full(f"```\n{JSON}\n```"),
    "tilde fence": full(f"~~~json\n{RAW}\n~~~"),
    "fence that closes behind the object": full(f"```json\n{JSON}```"),
    "fence and a token": full(f"```json\n{JSON}\n```<|eot_id|>"),
    "token behind": full(f"{JSON}<|im_end|>"),
    "end of sentence": full(f"{JSON}</s>"),
    "full-width token": full(f"{JSON}<｜end▁of▁sentence｜>"),
    "byte order mark": full(f"\ufeff{JSON}"),
    "CRLF between": full(json.dumps(IDEA, indent=2).replace("\n", "\r\n")),
    "CRLF within": full(json.dumps({**IDEA, "code": GOOD.replace("\n", "\r\n")})),
    "CRLF, list of one": full(f"[{json.dumps({**IDEA, 'code': GOOD.replace(chr(10), chr(13) + chr(10))})}]"),
    "old Macintosh": full(json.dumps({**IDEA, "code": GOOD.replace("\n", "\r")})),
    "byte order mark in the code": full(json.dumps({**IDEA, "code": f"\ufeff{GOOD}"})),
    "trailing comma": full(f"{without_last_brace(RAW)},}}"),
    "no comma between": full(RAW.replace('",', '"\n')),
    "line comments": full(RAW.replace('"name"', '// what it is called\n"name"')),
    "block comments": full(RAW.replace('"name"', '/* what it\nis called */ "name"')),
    "Python comments": full("{ # the answer\n" + RAW[1:]),
    "comment at the end": full(f"{without_last_brace(RAW)} // done\n}}"),
    "no last brace": full(without_last_brace(JSON)),
    "no last brace, raw": full(without_last_brace(RAW)),
    "no last brace, quotes not escaped": full(without_last_brace(UNESCAPED)),
    "no last brace, fenced": full(f"```json\n{without_last_brace(JSON)}\n```"),
    "no last brace, comma": full(f"{without_last_brace(RAW)},\n"),
    "two braces missing": full(f'{{"answer": {without_last_brace(JSON)}'),
    "one brace too many": full(JSON + "}"),
    "Python dictionary": full(repr(IDEA)),
    "bare keys": full(RAW.replace('"thought"', "thought").replace('"name"', "name").replace('"code"', "code")),
    "triple quotes": full(f'{{"thought": "Because\\nit may work.", "name": "{NAME}", "code": \'\'\'{GOOD}\'\'\'}}'),
    "backticks": full(f'{{"thought": "Because\\nit may work.", "name": "{NAME}", "code": `{GOOD}`}}'),
    "capital keys": full(json.dumps({k.upper(): v for k, v in IDEA.items()})),
    "keys with blanks": full(json.dumps({"The Thought": 1, "Loss Name": NAME, "Thoughts": THOUGHT, "Loss Code": GOOD})),
    "loss_function": full(json.dumps({"thought": THOUGHT, "name": NAME, "loss_function": GOOD})),
    "objective": full(json.dumps({"rationale": THOUGHT, "title": NAME, "objective": GOOD})),
    "any key": full(json.dumps({"thought": THOUGHT, "name": NAME, "zzz": GOOD})),
    "code is described, source elsewhere": full(json.dumps({**IDEA, "code": "see below", "final": GOOD})),
    "list of one": full(f"[{JSON}]"),
    "nested": full(json.dumps({"result": {"proposal": IDEA}})),
    "nested list": full(json.dumps({"losses": [IDEA]})),
    "code is an object": full(json.dumps({**IDEA, "code": {"language": "python", "source": GOOD}})),
    "JSON in a string": full(json.dumps({"answer": JSON})),
    "JSON in the code": full(json.dumps({"code": JSON})),
    "fenced JSON in a string": full(json.dumps({"output": f"```json\n{JSON}\n```"})),
    "the whole answer is a string": full(json.dumps(JSON)),
    "the whole answer is the inside of a string": full(json.dumps(JSON)[1:-1]),
    "fence within the code": full(json.dumps({**IDEA, "code": FENCED})),
    "fence within the code, text before": full(json.dumps({**IDEA, "code": f"\n{FENCED}\n"})),
    "escaped twice": full(json.dumps({**IDEA, "code": ESCAPED.replace("\n", "\\n")})),
    "list of lines": full(json.dumps({**IDEA, "code": GOOD.split("\n")})),
    "common indentation": full(json.dumps({**IDEA, "code": indented(GOOD, "    ")})),
    "no-break blanks": full(json.dumps({**IDEA, "code": GOOD.replace("    ", "\u00a0" * 4)}, ensure_ascii=False)),
    "thinking before": full(f"<think>\nPerhaps {DRAFT_JSON}\n</think>\n{JSON}"),
    "thinking that never opens": full(f"Perhaps {DRAFT_JSON}\n</think>\n{JSON}"),
    "thinking in brackets": full(f"[THINK]Perhaps {DRAFT_JSON}[/THINK]{JSON}"),
    "channels": full(
        f"<|channel|>analysis<|message|>{DRAFT_JSON}<|end|><|start|>assistant<|channel|>final<|message|>{JSON}<|return|>"
    ),
    "formulas before": full(f"{LATEX}{JSON}"),
    "formulas before, fenced": full(f"{LATEX}```json\n{RAW}\n```"),
    "sets and f-strings before": full(f"With {{x : x > 0}} and {{a: b}}, {{i}} {{margin:.2f}} {{ y }}: {JSON}"),
    "empty objects before": full(f"{{}} {{ }} {{}}\n{JSON}"),
    "objects before": full(f'{{"beta": 0.1}} {{"lr": 1e-3}} {JSON}'),
    "draft before": full(f"{DRAFT_JSON}\nNo, better:\n{JSON}"),
    "draft that is cut off before": full(f"{DRAFT_JSON[:-30]}\n\n{JSON}"),
    "usage behind": full(JSON + json.dumps({"name": "usage", "code": "loss(a, b)"})),
    "pseudocode behind": full(JSON + json.dumps({"name": "x", "code": f"def {FUNCTION}(...):\n    ..."})),
    "name and thought apart": full(json.dumps({"thought": THOUGHT, "name": NAME}) + f"\n{FENCED}"),
    "quotation": full(indented(f"```json\n{JSON}\n```", "> ")),
    "huge number beside": full(f'{{"score": {"9" * 5000}, {JSON[1:]}'),
    "odd numbers beside": full(f'{{"a": NaN, "b": -Infinity, "c": 1e999, {JSON[1:]}'),
    "deep value beside": full(f'{{"a": {"[" * 50}{"]" * 50}, {JSON[1:]}'),
}

_BLOCKS = {
    "python": Text(FENCED),
    "text around": Text(f"**Idea**: soft.\n\n{FENCED}\n\nIt is convex."),
    "py": Text(f"```py\n{GOOD}\n```"),
    "no label": Text(f"```\n{GOOD}\n```"),
    "attributes behind the label": Text(f'```python title="loss.py"\n{GOOD}\n```'),
    "braces around the label": Text(f"```{{.python}}\n{GOOD}\n```"),
    "four backticks": Text(f"````python\n{GOOD}\n````"),
    "tildes": Text(f"~~~python\n{GOOD}\n~~~"),
    "list item": Text(f"1. This:\n{indented(FENCED, '   ')}"),
    "quotation": Text(indented(FENCED, "> ")),
    "CRLF": Text(f"Here:\n{FENCED}\nDone.".replace("\n", "\r\n")),
    "byte order mark": Text(f"\ufeff{FENCED}"),
    "never closed": Text(f"```python\n{GOOD}\n"),
    "closed on the last line": Text(f"```python\n{GOOD}```"),
    "closed on the last line, text behind": Text(f"```python\n{GOOD}```\n\nIt is *soft*."),
    "closed on the last line, another block": Text(f"```python\n{GOOD}```\nand\n```\nbeta = 0.1\n```"),
    "token behind the fence": Text(f"{FENCED}<|eot_id|>"),
    "two tokens behind the fence": Text(f"{FENCED}<|im_end|></s>"),
    "gemma's token": Text(f"{FENCED}<end_of_turn>"),
    "token behind the last line": Text(f"```python\n{GOOD}<|endoftext|>"),
    "text behind the fence": Text(f"{FENCED} That is all."),
    "not closed before the next": Text(f"```python\n{DRAFT}\n\nBetter:\n```python\n{GOOD}\n```"),
    "code behind the opening fence": Text(f"```python {GOOD}\n```"),
    "code on the opening line, no label": Text(f"``` {GOOD}\n```"),
    "fences in a docstring": Text(f"```python\n{with_fences()}\n```", with_fences()),
    "draft first": Text(f"```python\n{DRAFT}\n```\nNo.\n{FENCED}"),
    "pseudocode behind": Text(f"{FENCED}\nPseudocode:\n```python\ndef {FUNCTION}(...):\n    return softplus(...)\n```"),
    "outline behind": Text(f"{FENCED}\n```python\ndef {FUNCTION}(x, y):\n    return x - y\n```"),
    "broken code behind": Text(f"{FENCED}\n```python\n{DRAFT[:-2]}\n```"),
    "usage behind": Text(f"{FENCED}\n```python\nvalue = {FUNCTION}(a, b, c, d, 0.1)\n```"),
    "test behind": Text(f"{FENCED}\n```python\ndef test_it():\n    assert {FUNCTION}(a, b, c, d, 0.1) > 0\n```"),
    "shell before": Text(f"```bash\npip install torch\n```\n{FENCED}"),
    "example of an object behind": Text(f'{FENCED}\n```json\n{{"beta": 0.1, "name": "none"}}\n```'),
    "formulas before": Text(f"{LATEX}{FENCED}"),
    "entities": Text(f"```python\n{ENTITIES}\n```", GOOD.replace("-beta", "-beta * (d < 3)")),
    "code tags": Text(f"<name>soft</name>\n<code>\n{GOOD}\n</code>"),
    "python tags": Text(f"[PYTHON]\n{GOOD}\n[/PYTHON]"),
    "fence in tags": Text(f"<answer>\n{FENCED}\n</answer>"),
    "bare": Text(GOOD),
    "bare, text around": Text(f"My loss:\n\n{GOOD}\n\nIt is convex."),
    "bare, token behind": Text(f"{GOOD}<|eot_id|>"),
    "bare, indented": Text(f"My loss:\n\n{indented(GOOD, '    ')}\n\nIt is convex."),
    "YAML": Text(f"name: soft\ncode: |\n{indented(GOOD, '  ')}\n"),
    "after thinking": Text(f"<think>\n```python\n{DRAFT}\n```\n</think>\n{FENCED}"),
    "after thinking that goes on": Text(f"<think>\nHm.\n{FENCED}"),
    "another function": Text("```python\ndef los(a):\n    return a\n```", "def los(a):\n    return a"),
    "another name, right parameters": Text(
        f"```python\ndef helper(x):\n    return x\n```\n```python\n{GOOD.replace(f'def {FUNCTION}(', 'def soft(')}\n```",
        GOOD.replace(f"def {FUNCTION}(", "def soft("),
    ),
    "broken code alone": Text(f"```python\n{GOOD}  )\n```", f"{GOOD}  )"),
}

_NO_CODE = {
    "nothing": refused("", "empty"),
    "blanks": refused(" \r\n\t", "empty"),
    "byte order mark alone": refused("\ufeff", "empty"),
    "token alone": refused("<|eot_id|>", "ends after its reasoning"),
    "thinking alone": refused(f"<think>{JSON}</think>", "ends after its reasoning"),
    "prose": refused("I cannot help with that.", "no code that defines"),
    "formulas": refused(LATEX, "no code that defines"),
    "object without code": refused(json.dumps({"thought": "x", "name": "y"}), 'no "code"'),
    "code is a number": refused('{"name": "y", "code": 3}', 'no "code"'),
    "code is null": refused('{"name": "y", "code": null}', 'no "code"'),
    "code is empty": refused('{"name": "y", "code": " "}', 'no "code"'),
    "cut off": refused(JSON[:-60], "cut off"),
    "cut off, raw": refused(RAW[:-60], "cut off"),
    "cut off, fenced": refused(f"```json\n{RAW[:-60]}", "cut off"),
    "cut off, text before": refused(f"Here it is:\n{RAW[:-60]}", "cut off"),
    "another language": refused("```rust\nfn loss() {}\n```", "no code that defines"),
    "only usage": refused(f"Call {FUNCTION}(a, b).", "no code that defines"),
    "too long": refused("x" * 200_001, "at most 200000"),
    "nested lists": refused("[" * 200_000, "no code"),
    "nested objects": refused('{"a":' * 40_000, "cannot be read"),
}
TEXTS = {f"{kind}: {name}": case for kind, cases in
         (("object", _OBJECTS), ("block", _BLOCKS), ("no code", _NO_CODE)) for name, case in cases.items()}  # fmt: skip
