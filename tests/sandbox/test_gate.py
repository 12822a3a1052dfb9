"""The gate: humane to honest losses, closed to everything else, and never a crash or a hang."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.check import check_candidate
from sandbox.gate import MAX_VIOLATIONS, check_source
from sandbox.reports import GateReport
from sandbox.server import OracleServer
from tests.support.honest import HONEST
from tests.support.losses import HEAD, KNOWN, MARGIN, body, expression

HERE = Path(__file__).parent
HOSTILE = [json.loads(line) for line in (HERE / "hostile_candidates.jsonl").read_text(encoding="utf-8").splitlines()]

# Tensor arithmetic that no reading can tell from an honest loss. Stopping these is the work of the child's limits (time,
# memory, text), of the probe (shape, finiteness, gradient, place in the batch) and of the score (a loss value is not one).
LEFT_TO_THE_CAGE = {
    "h059", "h063", "h073", "h099", "h101", "h103", "h105", "h111", "h113", "h115", "h117", "h119",
}  # fmt: skip


def read(source: str) -> GateReport:
    return check_source(Candidate(PAIRS.name, source), PAIRS)


def test_the_corpus_is_large_and_varied() -> None:
    assert len(HONEST) >= 150
    assert len({c.id for c in HONEST.values()}) == len(HONEST)


@pytest.mark.parametrize("name", HONEST)
def test_honest_losses_pass_gate_and_probe(name: str, server: OracleServer) -> None:
    gate, report = check_candidate(server, HONEST[name], PAIRS)
    assert [str(v) for v in gate.violations] == []
    assert report is not None
    assert report.failure is None


@pytest.mark.parametrize("name", KNOWN)
def test_known_objectives_are_accepted(name: str) -> None:
    report = check_source(KNOWN[name], PAIRS)
    assert report.violations == ()
    assert report.parameters == PAIRS.required


def test_the_optional_input_is_passed_only_if_named() -> None:
    assert check_source(HONEST["progress_input"], PAIRS).parameters == (*PAIRS.required, "progress")


def test_exactly_these_attacks_are_left_to_the_cage() -> None:
    assert len(HOSTILE) == 60
    accepted = {item["id"] for item in HOSTILE if read(item["source"]).accepted}
    assert accepted == LEFT_TO_THE_CAGE


@pytest.mark.parametrize("item", HOSTILE, ids=lambda item: item["id"])
def test_refusals_say_where_what_and_what_to_do(item: dict[str, str]) -> None:
    report = read(item["source"])
    assert len(report.violations) <= MAX_VIOLATIONS
    for violation in report.violations:
        assert 1 <= violation.line <= item["source"].count("\n") + 1
        assert violation.problem
        assert violation.instead[0].isupper()
        assert str(violation) == f"line {violation.line}: {violation.problem}. {violation.instead}"
        assert len(str(violation)) < 500


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ("return torch.sigmiod(-d)", 8, ["torch.sigmiod", "Did you mean `torch.sigmoid`"]),
        ("return torhc.exp(-d)", 8, ["torhc", "torch"]),
        ("return -d.os", 8, [".os"]),
        ("x = torch\nreturn x.os.getpid()", 9, [".os"]),
        ("f = torch.nn.functional.os\nreturn d", 8, ["torch.nn.functional.os"]),
        ("return torch.randn_like(d) * d", 8, ["random"]),
        ("while True: pass", 8, ["`while`", "range(N)"]),
        ("try:\n    return d\nexcept ValueError:\n    return -d", 8, ["`try`", "torch.where"]),
        ("d.grad_fn.next_functions\nreturn d", 8, ["grad_fn"]),
        ("d.requires_grad = False\nreturn d", 8, ["assigns to an attribute"]),
        ("torch = d\nreturn d", 8, ["assigns to `torch`"]),
        ("return d.to(device='cuda')", 8, ["device=", "x.device"]),
        ("return torch.mul(d, d, out=d)", 8, ["out="]),
        ("return d.sum(**{'dim': 0})", 8, ["`**`"]),
        ("return '{0.__class__}'.format(d)", 8, [".format"]),
        ("return (x for x in [d]).gi_frame", 8, ["gi_frame"]),
        ("print(d)\nreturn d", 8, ["print", "nobody sees"]),
        ("return getattr(d, 'sum')()", 8, ["getattr"]),
        ("global cache\nreturn d", 8, ["`global`"]),
        ("yield d", 8, ["`yield`"]),
        ("import os\nreturn d", 8, ["imports os", "torch.nn.functional as F"]),
        ("from torch import os\nreturn d", 8, ["torch.os"]),
        ("from torch import *\nreturn d", 8, ["torch.*"]),
        ("return __import__('os').getpid() * d", 8, ["__import__"]),
        ("return d.__class__", 8, ["__class__"]),
        ("with open('x') as f: pass", 8, ["with"]),
        ("return sum([x async for x in d] for y in (1, 2))", 8, ["`async for`", "plain `for`"]),
        ("async def g(): pass\nreturn d", 8, ["`async def`", "plain `def`"]),
        ("del d", 8, ["`del`"]),
        ("raise ValueError('a') from None", 8, ["raise ... from"]),
        ("return\x07 d", 8, ["control"]),
        ("dé = d\nreturn dé", 8, ["non-ASCII"]),
        ("return torch.logsigmoid(d)", 8, ["torch.logsigmoid", "Did you mean `torch.nn.functional.logsigmoid`"]),
        ("return torch.clone(d).sigmiod()", 8, [".sigmiod", "Did you mean `.sigmoid`"]),
        ("return d.softplus()", 8, [".softplus", "Use `torch.nn.functional.softplus(...)`"]),
        ("return torch.empty_like(d)", 8, ["torch.empty_like", "Use torch.zeros_like"]),
        ("return d.data", 8, [".data", ".detach()"]),
        ("return np.exp(d)", 8, ["np", "Use torch or math"]),
        ("x: Tensor = d\nreturn x", 8, ["annotation that is not a type"]),
        ("def h(z, sharp=1.0):\n    return z * sharp\nreturn h(d, shrp=2.0)", 10, ["`h` has no parameter `shrp`"]),
        ("break\nreturn d", 8, ["'break' outside loop"]),
        ("def h(a, a):\n    return a\nreturn d", 8, ["duplicate argument 'a'"]),
        ('x = "\\xi"\nreturn d', 8, ["unicode error", "Put an r before the string"]),
        ("return d.sum(", 8, ["not valid Python"]),
        ("reference_chosen_logps *= 0.5\nreturn d", 8, ["reference_chosen_logps = reference_chosen_logps * ..."]),
    ],
)
def test_refusals_name_the_problem(lines: str, line: int, words: list[str]) -> None:
    report = check_source(body(lines), PAIRS)
    assert not report.accepted
    text = "\n".join(str(v) for v in report.violations)
    assert report.violations[0].line == line
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "no function `loss`"),
        ("def los(a):\n    return a\n", "there is `los`"),
        (
            "def loss(policy_chosen_logps, beta):\n    return policy_chosen_logps\n",
            "lacks the parameters `policy_rejected_logps`, `reference_chosen",
        ),
        (HEAD.replace("beta: float", "beta: float, gamma") + "    return beta\n", "nobody passes"),
        (HEAD.replace("beta: float", "beta: float, /") + "    return beta\n", "positional-only"),
        (HEAD.replace("beta: float", "beta: float, *rest") + "    return beta\n", "*args"),
        (HEAD.replace("beta: float", "beta: float, g=torch.ones(3)") + "    return beta\n", "not a constant"),
        (HEAD + "    return (beta\n", "not valid Python"),
        ("# -*- coding: utf-7 -*-\n" + HEAD + "    return beta\n", "encoding"),
        ("x = torch.ones(3)\n" + HEAD + "    return beta\n", "module level"),
        ("@staticmethod\n" + HEAD + "    return beta\n", "not valid Python"),
        (
            "import torch\n@torch.no_grad()\n" + HEAD.replace("import", "#") + "    return beta\n",
            "must have a gradient",
        ),
        ("a = 1\n" * 700, "longer than"),
        ("# " + "x" * 20_000, "longer than"),
        ("x = '\ud800'\n", "surrogate"),
        ("x = 1\0\n", "control"),
        ("x = '\u202e'\n", "direction"),
        ("\ufeffimport torch\n", "non-ASCII"),
        ("x = '\n", "does not end"),
        ("loss = lambda a: a\n", "no function `loss`"),
        (HEAD + "    return beta\n" + HEAD + "    return beta\n", "more than once"),
        (HEAD + "    return beta\nloss = 3\n", "more than once"),
        (
            "import torch\nW = torch.tensor([1.0])\n" + HEAD.replace("import torch\n", "") + "    return beta\n",
            "at module level",
        ),
        (HEAD + "    return beta\nif __name__ == '__main__':\n    pass\n", "`If` at module level"),
    ],
)
def test_module_level_refusals(source: str, words: str) -> None:
    report = read(source)
    assert not report.accepted
    assert words in "\n".join(str(v) for v in report.violations)


def _in_function(statement: str) -> str:
    return HEAD + "    " + statement + "\n"


BOMBS = {
    "unary minus": _in_function("return " + "-" * 3000 + "beta"),
    "not": _in_function("return " + "not " * 3000 + "beta"),
    "brackets": _in_function("return " + "(" * 3000 + "beta" + ")" * 3000),
    "open brackets": _in_function("return " + "[" * 9000),
    "attribute chain": _in_function("return beta" + ".abs()" * 2500),
    "subscript chain": _in_function("return beta" + "[0]" * 5000),
    "sum": _in_function("return beta" + "+beta" * 3000),
    "power": _in_function("return beta" + "**beta" * 2500),
    "continued sum": _in_function("return beta" + ("\\\n" + "+beta" * 6) * 580),
    "continued power": _in_function("return beta" + ("\\\n" + "**b" * 8) * 580),
    "continued lambda": _in_function("return " + "lambda\\\n:" * 580 + "1"),
    "elif": _in_function("if beta: pass\n" + "    elif beta: pass\n" * 580),
    "else if": _in_function("return " + "1 if 1 else " * 1500 + "1"),
    "indentation": "".join(" " * i + "if 1:\n" for i in range(150)) + " " * 150 + "pass\n",
    "f-string brackets": _in_function("return f'{" + "(" * 3000 + "beta" + ")" * 3000 + "}'"),
    "f-string unary": _in_function("return f'{" + "-" * 15_000 + "beta}'"),
    "f-string not": _in_function("return f'{" + "not " * 4000 + "beta}'"),
    "f-string nesting": _in_function("return f'{beta:" + "{beta:" * 2500 + "}" * 2500 + "}'"),
    "assignments": _in_function("a=" * 9000 + "1"),
    "comparisons": _in_function("return a" + "<a" * 6000),
    "commas": _in_function("return " + "a," * 9000),
    "statements": ";".join(["a"] * 9000),
    "quotes": "\"'" * 9000,
    "triple quotes": "'''" * 3333 + "'",
    "strings": _in_function("return " + "''" * 9000),
    "backslashes": "\\" * 19_999,
    "backslash lines": "\\\n" * 590,
    "long integer": "X = " + "9" * 19_000,
    "power tower": "X = 9 ** 9 ** 9 ** 9\n" + _in_function("return beta"),
    "decorators": "@a\n" * 500 + HEAD,
    "stars": _in_function("f(" + "*" * 9000 + "x)"),
    "await": _in_function("return " + "await " * 3000 + "x"),
    "walrus": _in_function("return " + "(a:=" * 2000 + "1" + ")" * 2000),
    "carriage returns": "a\rb" * 6000,
    "escaped quotes": '"' + '\\"' * 9900,
    "functions": "".join(f"def f{i}(a):return a\n" for i in range(590)),
    "names that stand for names": _in_function(";".join(f"x{i}=x{i - 1};x{i}+=1" for i in range(1, 60)) + ";return x1"),
    "a name that stands for itself": HEAD + "    x=beta\n" + "".join(f"    x=a{i}=x;x+=1\n" for i in range(500)),
    "unknown names": "".join(f"zzzzzzzzzzzzzzzzzzzz{i}\n" for i in range(590)),
    "f-strings": _in_function(("f'{beta}{beta}';" * 70 + "\n    ") * 15),
    "imports": "".join(f"import torch as t{i}\n" for i in range(590)),
}


def test_parser_bombs_neither_crash_nor_hang() -> None:
    """In another process, since a stack overflow would take this one with it."""
    code = (
        "import json, sys, time\n"
        "from evaluators.preference.contract import PAIRS\n"
        "from sandbox.candidate import Candidate\n"
        "from sandbox.gate import check_source\n"
        "for name, source in json.load(sys.stdin).items():\n"
        "    times = []\n"
        "    for _ in range(3):\n"
        "        started = time.process_time()\n"
        "        report = check_source(Candidate(PAIRS.name, source), PAIRS)\n"
        "        times.append(time.process_time() - started)\n"
        "    print(json.dumps([name, report.accepted, min(times)]), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(BOMBS), capture_output=True, text=True, timeout=60, check=False
    )
    rows = {name: (accepted, cpu_s) for name, accepted, cpu_s in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stderr[-2000:]
    assert rows.keys() == BOMBS.keys()
    accepted = {name for name, (accepted, _) in rows.items() if accepted}
    assert accepted <= {"power tower", "strings", "a name that stands for itself"}
    assert max(cpu_s for _, cpu_s in rows.values()) < 0.05


def test_a_loss_in_an_expression_is_accepted() -> None:
    assert check_source(expression("F.softplus(-beta * d)"), PAIRS).accepted
    assert MARGIN in expression("d").source
