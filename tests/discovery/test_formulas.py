"""Formulas: read from source, equal to the candidate by numbers, and written so that a reader reads the same."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.exporters.testing import dossier
from discovery.exporting import grid_of, require_equal
from discovery.formulas.reader import read_formula
from discovery.formulas.tree import FUNCTIONS, MAX_SIZE, Expr, Formula, FormulaError, call, evaluate, number, symbol
from discovery.formulas.writer import latex, latex_symbol, notes, text
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.candidate import Candidate
from sandbox.check import check_candidate
from sandbox.contract import Contract
from sandbox.gate import check_source
from sandbox.server import OracleServer
from tests.support.honest import HONEST
from tests.support.latex_reader import evaluate_latex

KNOWN = known_objectives(PAIRS.name)
NAMES = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
MARGIN = "(policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)"


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


def source_of(body: str, before: str = "") -> str:
    head = f"import math\nimport torch\nimport torch.nn.functional as F\n\n\n{before}"
    source = f"{head}def loss({NAMES}):\n    d = {MARGIN}\n    z = beta * d\n{body}"
    gate = check_source(Candidate(PAIRS.name, source), PAIRS)
    assert gate.accepted, gate.violations
    return source


def check(source: str, server: OracleServer, contract: Contract = PAIRS) -> Formula:
    """Read, compared with the candidate, and its LaTeX compared with both."""
    formula = read_formula(source, contract)
    made = dossier(source=source, contract=contract)
    require_equal(server, made, formula)
    inputs, scalars = grid_of(contract, made.parameters)
    for run in range(len(scalars["beta"])):
        values = {n: t[run].double() for n, t in inputs.items()}
        values |= {n: torch.tensor(v[run]).double() for n, v in scalars.items()}
        written = evaluate_latex(latex(formula), values, {latex_symbol(n): v for n, v in values.items()})
        ours = evaluate(formula, {n: float(v) if n in scalars else v for n, v in values.items()})
        assert torch.allclose(written.expand_as(ours), ours, rtol=1e-6, atol=1e-9, equal_nan=True)
    return formula


LIBRARY = [(c, name) for c in (PAIRS, UNPAIRED) for name in known_objectives(c.name)]
NO_FORMULA = {"aot", "aot_unpaired"}  # they sort the batch


@pytest.mark.parametrize(("contract", "name"), LIBRARY, ids=[f"{c.name}-{n}" for c, n in LIBRARY])
def test_known_objectives_have_formulas(contract, name, server):
    source = known_objectives(contract.name)[name].candidate.source
    if name in NO_FORMULA:
        with pytest.raises(FormulaError):
            read_formula(source, contract)
    else:
        check(source, server, contract)


BODIES = {
    "aug": "    out = z.exp() * 2\n    out += 1\n    out *= 0.5\n    return out\n",
    "ssa": "    y = z * 2\n    y = y + 1\n    y = y.abs()\n    return y - z\n",
    "pair": "    a, b = torch.tanh(z), F.softplus(-z)\n    return a * b - z\n",
    "clamp": "    return torch.clamp(z, -0.5, 0.5) + z.clamp(min=0.1) - z.clamp_max(0.2) - torch.clip(z, max=1.0)\n",
    "where": "    return torch.where((z > 0.1) & (z < 0.9), z ** 2, -z) + torch.where(~(z >= 0), z, 2 * z)\n",
    "either": "    return torch.where((z > 1) | (z <= -1), -z, z ** 3)\n",
    "indicator": "    return (z < 0).float() * z + (z > 0) * torch.exp(-z)\n",
    "statistics": "    return (z - z.mean()) ** 2 / (z.var() + 1) + z.std(dim=0) * 0.1 - z + z.sum(0, keepdim=True) * 0\n",
    "count": "    return z.sum() / len(z) - z * (1 - 1 / max(z.numel() - 1, 1))\n",
    "population": "    return z.std(unbiased=False) * 0.1 + torch.var(z, dim=0, correction=0) - z\n",
    "no_grad": "    with torch.no_grad():\n        w = torch.sigmoid(-z)\n    return -w * z\n",
    "softplus": "    return F.softplus(-z, beta=2.0) + F.leaky_relu(z, 0.1) + F.silu(z) + F.elu(-z) + torch.square(z)\n",
    "functions": "    return torch.log1p(z ** 2) + torch.expm1(-z.abs()) + (z ** 2 + 1).rsqrt() + torch.lerp(z, -z, 0.25)\n",
    "logaddexp": "    return torch.logaddexp(z, -z) + torch.reciprocal(1 + z ** 2) + F.softsign(z) + math.pi * z\n",
    "signs": "    return -z ** 2 - -z * -2 + (-z) ** 2 - (z - (z - 1)) - 3 / (2 / (z ** 2 + 1)) + +z - 2 ** -(z ** 2)\n",
    "tiny": "    return -z + 1e-06 * z ** 2 + 2.5e-07 / (1 + z ** 2)\n",
    "constants": (
        "    lower = torch.maximum(z, torch.zeros_like(z))\n"
        "    return lower + torch.minimum(z, torch.full_like(z, 0.5)) * torch.tensor(2.0) - z\n"
    ),
    "names": "    lambda_ = 0.5\n    tau_1, GAMMA = 0.25, 0.125\n    return lambda_ * z * tau_1 - GAMMA * z\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_can_be_read_is_equal_in_the_candidate_the_tree_and_the_latex(name, server):
    check(source_of(BODIES[name]), server)


HELPERS = """SCALE = 0.5
SHIFTED = SCALE + 1


def bend(x, width=2.0):
    inner = torch.tanh(x / width)
    return inner * SCALE


def twice(x):
    return bend(bend(x), width=SHIFTED)


"""


def test_helpers_are_written_out_with_module_constants_and_defaults(server):
    formula = check(source_of("    return twice(z) - bend(x=-z) - z\n", HELPERS), server)
    assert [name for name, _ in formula.definitions] == ["SCALE", "SHIFTED", "d", "z"]
    assert formula.constants == ("SCALE", "SHIFTED")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("    if beta > 0.1:\n        z = 2 * z\n    return -z\n", "line 9 branches"),
        ("    for _ in range(3):\n        z = torch.tanh(z)\n    return -z\n", "line 9 loops"),
        ("    return -torch.sort(z)[0]\n", "Subscript"),
        ("    return -z.cumsum(0)\n", "calls cumsum"),
        ("    return -torch.quantile(z, 0.5) * z\n", "calls quantile"),
        ("    z[0] = 1\n    return -z\n", "a part of a value"),
        ("    return z.mean(dim=0, keepdim=True) - z if beta else z\n", "IfExp"),
        ("    return -sum([z, z])\n", "List"),
        ("    return -z.where(z > 0, z)\n", "not a comparison"),
        ("    a = b = z\n    return -a - b\n", "several names"),
        ("    return -(z @ z) * z\n", "MatMult"),
        ("    return -z * (z == 0)\n", "comparison other"),
    ],
)
def test_what_is_not_arithmetic_has_no_formula(body, why):
    with pytest.raises(FormulaError, match=re.escape(why)):
        read_formula(source_of(body), PAIRS)


def test_helpers_cannot_make_a_formula_explode():
    lines = "".join(f"    x = x + x * {i}\n" for i in range(40))
    with pytest.raises(FormulaError, match=f"more than {MAX_SIZE} operations"):
        read_formula(source_of("    return -grow(z)\n", f"def grow(x):\n{lines}    return x\n\n\n"), PAIRS)
    with pytest.raises(FormulaError, match="calls itself"):
        read_formula(source_of("    return again(z)\n", "def again(x):\n    return again(x)\n\n\n"), PAIRS)
    with pytest.raises(FormulaError):
        read_formula(source_of(f"    return z{' + z' * 380}\n"), PAIRS)


def test_a_formula_that_gives_other_values_is_none(server):
    source = source_of("    return -z\n")
    wrong = Formula((), call("neg", symbol("policy_chosen_logps")), PAIRS.required)
    with pytest.raises(FormulaError, match="other values"):
        require_equal(server, dossier(source=source), wrong)


def test_a_third_of_a_deliberately_odd_corpus_has_formulas(server):
    """What is read at all is right: the rest is refused with a reason, never guessed."""
    read = 0
    for candidate in HONEST.values():
        try:
            read_formula(candidate.source, PAIRS)
        except FormulaError:
            continue
        probe = check_candidate(server, candidate, PAIRS)[1]
        if probe is not None and probe.accepted:
            check(candidate.source, server)
            read += 1
    assert read >= len(HONEST) // 3


# the writers


LEAVES = st.one_of(
    st.sampled_from(["a", "tau", "long_name", "policy_chosen_logps", "reference_chosen_logps", "beta"]).map(symbol),
    st.sampled_from([0.5, 2, 3.0, 0.05, 1e-06, 10, -1.5, -2]).map(number),
)
PLAIN = ("abs", "tanh", "sigmoid", "relu", "softplus", "exp", "atan", "logsigmoid", "neg", "detach", "sin", "mean")


def grown(children: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    two = st.tuples(st.sampled_from(["add", "sub", "mul", "div", "max", "min"]), children, children)
    comparison = st.tuples(st.sampled_from(["gt", "ge", "lt", "le"]), children, children).map(lambda t: call(*t))
    joined = st.tuples(st.sampled_from(["and", "or"]), comparison, comparison).map(lambda t: call(*t))
    condition = st.one_of(comparison, joined, comparison.map(lambda c: call("not", c)))
    return st.one_of(
        two.map(lambda t: call(*t)),
        st.tuples(st.sampled_from(PLAIN), children).map(lambda t: call(*t)),
        st.tuples(children, st.sampled_from([2, 3])).map(lambda t: call("pow", t[0], number(t[1]))),
        st.tuples(condition, children, children).map(lambda t: call("where", *t)),
        condition.map(lambda c: call("indicator", c)),
    )


VALUES = {
    "a": torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64),
    "tau": torch.tensor([1.5, 0.4, -0.7], dtype=torch.float64),
    "long_name": torch.tensor([-0.1, 0.9, 0.2], dtype=torch.float64),
    "policy_chosen_logps": torch.tensor([-3.0, -2.5, -4.0], dtype=torch.float64),
    "reference_chosen_logps": torch.tensor([-3.5, -2.0, -4.5], dtype=torch.float64),
    "policy_rejected_logps": torch.zeros(3, dtype=torch.float64),
    "reference_rejected_logps": torch.zeros(3, dtype=torch.float64),
    "beta": torch.tensor(0.25, dtype=torch.float64),
}


@settings(max_examples=400, deadline=None)
@given(st.recursive(LEAVES, grown, max_leaves=14))
def test_any_expression_is_read_from_its_latex_as_it_was_meant(expression):
    known = {latex_symbol(n): VALUES[n] for n in ("a", "tau", "long_name")}
    theirs = torch.as_tensor(evaluate_latex(latex(Formula((), expression, ())), VALUES, known))
    ours = torch.as_tensor(evaluate(Formula((), expression, ()), VALUES), dtype=torch.float64)
    assert torch.allclose(*torch.broadcast_tensors(theirs, ours), rtol=1e-9, atol=1e-12, equal_nan=True)


PYTHON = {
    "max": torch.maximum, "min": torch.minimum, "sg": lambda x: x, "mean": lambda x: x.mean(-1, keepdim=True),
    "logsigmoid": torch.nn.functional.logsigmoid, "softplus": torch.nn.functional.softplus,
    **{n: getattr(torch, n) for n in ("abs", "tanh", "sigmoid", "relu", "exp", "atan", "sin")},
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.recursive(LEAVES, grown, max_leaves=14))
def test_any_expression_without_conditions_is_python_in_the_docstring(expression):
    (line,) = text(Formula((), expression, ()))
    if " if " in line or "1[" in line:
        return
    line = re.sub(r"(?<![\w.])(\d+\.?\d*(?:e-?\d+)?)", r"tensor(\1)", line.removeprefix("L = "))
    values = {"lw": VALUES["policy_chosen_logps"], "rw": VALUES["reference_chosen_logps"], **VALUES}
    theirs = eval(line, {**PYTHON, **values, "tensor": lambda v: torch.tensor(float(v), dtype=torch.float64)})
    ours = torch.as_tensor(evaluate(Formula((), expression, ()), VALUES), dtype=torch.float64)
    assert torch.allclose(*torch.broadcast_tensors(theirs, ours), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_log_ratios_and_symbols_are_written_as_papers_do():
    formula = read_formula(KNOWN["lrml"].candidate.source, PAIRS)
    block = latex(formula)
    assert r"\mathrm{margin} &= \log\frac{\pi_\theta(y_w \mid x)}{\pi_{\mathrm{ref}}(y_w \mid x)} - \log\frac" in block
    assert r"\mathrm{logistic} &= \sigma\left(\frac{-z}{0.05}\right)\,\left(-\log\sigma\left(z\right)\right)" in block
    assert latex_symbol("tau_2") == r"\tau_{2}"
    assert latex_symbol("LAMBDA") == r"\lambda"
    assert latex_symbol("a_b") == r"\mathrm{a\_b}"
    assert "sg(x) is x without a gradient" in notes(read_formula(KNOWN["kto_pair"].candidate.source, PAIRS))


def test_every_function_has_both_ways_of_writing():
    for name in FUNCTIONS:
        formula = Formula((), call(name, symbol("a")), ())
        assert latex(formula)
        assert text(formula)
        assert math.isfinite(float(torch.as_tensor(evaluate(formula, {"a": VALUES["a"].abs()})).double().sum()))
