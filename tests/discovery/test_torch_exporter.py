"""The exported module: what is lifted, under which name, and that nothing else changes."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from discovery.exporters.base import ExportError
from discovery.exporters.constants import lift
from discovery.exporters.testing import CONTEXT, ExporterConformance, dossier
from discovery.exporters.torch_module import TorchExporter
from discovery.exporting import Typed, make_export
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.server import OracleServer

KNOWN = known_objectives(PAIRS.name)
NAMES = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
MARGIN = "policy_chosen_logps - reference_chosen_logps - policy_rejected_logps + reference_rejected_logps"
EVERYTHING = f"""
import math

import torch
import torch.nn.functional as F

TAU = 0.05
SIGNED = -0.25
LOG2 = math.log(2.0)
ROUNDS = 2
WEIGHTS = (0.5, 0.25)
UNUSED = 3.5


def gate(x, width):
    bent = torch.tanh(x / width) * 0.75  # a comment
    return bent + SIGNED


def loss({NAMES}, scale=1.5, rounds=2):
    d = {MARGIN}
    z = beta * d
    mix = 0.3
    total = torch.zeros_like(z)
    for i in range(ROUNDS):
        total = total + WEIGHTS[i] * F.softplus(-z / TAU, beta=1.25)
    hard = torch.relu(1.0 - z) ** 2 + (z.abs() + 1e-3) ** 1.5
    soft = torch.clamp(gate(z, 4.0), -0.9, max=0.95)
    below = torch.where(z < -0.1, 10 * hard, scale * soft)
    return total.sum(dim=0, keepdim=True) * 0 + mix * total + (1 - mix) * below + LOG2 - 0.125 * torch.exp(-z)
"""


class TestConformance(ExporterConformance):
    extra_sources = (EVERYTHING,)

    def make_exporter(self):
        return TorchExporter()


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


def load(source: str, server: OracleServer, folder: Path) -> ModuleType:
    path = folder / "exported.py"
    path.write_text(make_export(TorchExporter(), dossier(source=source), Typed(), server).export.text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lifted(source: str) -> dict[str, tuple[str, bool]]:
    assert check_source(Candidate(PAIRS.name, source), PAIRS).accepted, check_source(
        Candidate(PAIRS.name, source), PAIRS
    )
    return {c.name: (c.value, c.learnable) for c in lift(ast.parse(source), PAIRS, ["half"])[1]}


def inputs(size: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [-20 + 3 * torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_what_is_lifted_and_what_is_not():
    assert lifted(EVERYTHING) == {
        "TAU": ("0.05", True),
        "SIGNED": ("-0.25", True),
        "LOG2": ("math.log(2.0)", True),
        "scale": ("1.5", True),
        "mix": ("0.3", True),
        "bent_factor": ("0.75", True),
        "total_beta": ("1.25", False),
        "hard_offset": ("0.001", True),
        "hard_power": ("1.5", False),
        "soft_width": ("4.0", True),
        "soft_min": ("-0.9", False),
        "soft_max": ("0.95", False),
        "below_threshold": ("-0.1", False),
        "below_factor": ("10", True),
        "c0": ("0.125", True),
    }


def rest(body: str) -> str:
    return f"import torch\nimport math\n\n\ndef loss({NAMES}):\n    z = beta * ({MARGIN})\n{body}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("    return z.mean(0) - z * 0.5\n", {"c0": ("0.5", True)}),
        ("    return torch.quantile(z, 0.9, dim=0) - z\n", {"c0": ("0.9", False)}),
        ("    k = 3\n    return z.view(-1)[0:3].sum() - z * torch.arange(3).sum() - k * 0 * z\n", {"k": ("3", True)}),
        ("    half = 0.5\n    return -half * z\n", {"half_2": ("0.5", True)}),
        ("    beta_2 = 0.5\n    return -beta_2 * z\n", {"beta_2": ("0.5", True)}),
        ("    a = 0.5\n    b = 2 * a\n    return -b * z\n", {"a": ("0.5", True)}),
        ("    a = 0.5\n    b = math.exp(a)\n    return -b * z\n", {}),
        ("    a = 0.5\n    a = a + 0.25\n    return -a * z\n", {"a_offset": ("0.25", False)}),
        ("    if beta > 0.3:\n        z = 1.5 * z\n    return -z\n", {"c0": ("0.3", False), "z_factor": ("1.5", True)}),
        ("    f = lambda x: 0.75 * x\n    return -f(z)\n", {"f_factor": ("0.75", False)}),
        ("    return -z\n", {}),
        ("    q = 0.75 * z.mean().detach()\n    return q - z\n", {"q_factor": ("0.75", True)}),
        ("    q = 0.75 * z\n    return q.detach() * z - z\n", {"q_factor": ("0.75", False)}),
        ("    q = (0.75 * z).detach()\n    return q * z - z\n", {"q_factor": ("0.75", False)}),
        ("    q = torch.detach(0.75 * z)\n    return q * z - z\n", {"q_factor": ("0.75", False)}),
        ("    with torch.no_grad():\n        q = 0.75 * z\n    return q * z - z\n", {"q_factor": ("0.75", False)}),
        ("    return torch.where(0.75 * z > 0.1, z, -z)\n", {"c0": ("0.75", False), "c1": ("0.1", False)}),
        ("    w = (0.75 * z > 1).float()\n    return -w * z\n", {"w_factor": ("0.75", False)}),
    ],
)  # fmt: skip
def test_names_and_exceptions(body, expected):
    assert lifted(rest(body)) == expected


def test_a_function_that_is_passed_around_keeps_its_numbers():
    helper = "def bend(x):\n    return 0.5 * x\n\n\n"
    source = f"{helper}def loss({NAMES}):\n    return sum(map(bend, [-beta * ({MARGIN})]))\n"
    assert lifted(source) == {}


def test_with_the_defaults_nothing_changes_in_the_last_bit(server, tmp_path):
    module = load(EVERYTHING, server, tmp_path)
    original: dict[str, object] = {}
    exec(EVERYTHING, original)
    values = inputs()
    assert torch.equal(module.Loss(beta=0.3)(*values), original["loss"](*values, 0.3))
    assert not list(module.Loss().parameters())


def test_a_constant_can_be_changed_and_learned(server, tmp_path):
    module = load(KNOWN["lrml"].candidate.source, server, tmp_path)
    values = inputs()
    wider = module.Loss(logistic_divisor=0.5)
    assert not torch.equal(wider(*values), module.Loss()(*values))
    assert "logistic_divisor=0.5" in repr(wider)
    learned = module.Loss(learnable=("logistic_divisor",))
    (parameter,) = learned.parameters()
    assert repr(learned) == "Loss(beta=0.1, logistic_divisor=0.05, exponential_divisor=0.05)"
    assert [n for n, _ in learned.named_parameters()] == ["logistic_divisor"]
    optimiser = torch.optim.SGD(learned.parameters(), lr=0.01)
    before = learned(*values).mean()
    before.backward()
    optimiser.step()
    assert parameter.item() != 0.05
    assert learned(*values).mean() < before
    with pytest.raises(ValueError, match="cannot learn gamma; can learn: beta, logistic_divisor, exponential_divisor"):
        module.Loss(learnable=("gamma",))


def test_everything_that_claims_to_be_learnable_gets_a_gradient(server, tmp_path):
    module = load(EVERYTHING, server, tmp_path)
    learned = module.Loss(learnable=module.Loss.LEARNABLE)
    learned(*inputs()).mean().backward()
    assert {n for n, p in learned.named_parameters() if p.grad is not None} == set(module.Loss.LEARNABLE)


def test_optional_inputs_stay_inputs(server, tmp_path):
    source = f"def loss({NAMES}, progress=1.0):\n    return -(0.5 + progress) * beta * ({MARGIN})\n"
    module = load(source, server, tmp_path)
    values = inputs()
    assert torch.equal(module.Loss()(*values), module.Loss()(*values, progress=1.0))
    assert not torch.equal(module.Loss()(*values), module.Loss()(*values, progress=0.0))


def test_helpers_pass_constants_on_and_the_section_is_a_candidate_again():
    text = TorchExporter().export(dossier(source=EVERYTHING), CONTEXT).text
    section = text.split("takes it from here\n")[1].split("# ---- to here")[0]
    assert check_source(Candidate(PAIRS.name, section), PAIRS).accepted
    assert "gate(z, soft_width, SIGNED=SIGNED, bent_factor=bent_factor)" in section
    assert "UNUSED" not in section
    assert "range(ROUNDS)" in section


def test_a_name_of_the_file_itself_is_refused():
    source = f"def Loss(x):\n    return x\n\n\ndef loss({NAMES}):\n    return -Loss(beta) * ({MARGIN})\n"
    with pytest.raises(ExportError, match="defines Loss"):
        TorchExporter().export(dossier(source=source), CONTEXT)


def test_a_setting_that_is_changed_in_place_is_no_parameter(server, tmp_path):
    """`beta *= 2` of a parameter would write into it."""
    source = f"import torch\n\n\ndef loss({NAMES}):\n    beta *= 2\n    return torch.relu(1.5 - beta * ({MARGIN}))\n"
    module = load(source, server, tmp_path)
    assert "beta" not in module.Loss.LEARNABLE
    given = inputs()
    assert torch.equal(module.Loss(0.1)(*given), module.Loss(0.1)(*given))


def test_a_default_that_the_source_passes_to_itself_is_not_lifted(server, tmp_path):
    source = (
        f"import torch\n\n\ndef loss({NAMES}, depth=2.5):\n    if depth > 3.0:\n"
        f"        return torch.relu(depth - beta * ({MARGIN}))\n"
        f"    return loss({NAMES}, depth=depth + 1.25)\n"
    )
    assert "depth" not in lifted(source)
    module = load(source, server, tmp_path)
    a, b, c, d = inputs()
    assert torch.equal(module.Loss(0.1)(a, b, c, d), torch.relu(3.75 - 0.1 * (a - c - b + d)))


@pytest.mark.parametrize(
    "calls",
    [
        "return h(d) + h(2.0)",
        "return h(d) + sum(map(h, [1.0, 2.0]))",
        "f = h\n    return h(d) + f(1.0)",
        "return h(d) + h(*[1.0])",
        "return h(d) + (lambda d: h(d))(1.0)",
    ],
)
def test_an_argument_is_a_tensor_only_if_every_call_passes_one(calls, server, tmp_path):
    """`math.exp` takes a number: the constant beside it must stay one."""
    source = (
        "import math\nimport torch\n\n\ndef h(x):\n"
        "    if isinstance(x, float):\n        return math.exp(x * 0.75)\n    return torch.exp(x * 0.75)\n\n\n"
        f"def loss({NAMES}):\n    d = beta * ({MARGIN})\n    {calls}\n"
    )
    found = lifted(source)
    assert not any(learns for value, learns in found.values() if value == "0.75")
    load(source, server, tmp_path)
