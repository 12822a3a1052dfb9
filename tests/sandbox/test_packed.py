"""Many runs in one call: joined, mapped or one by one, the answer is that of each run alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluators.objectives import known_objective, known_objectives
from evaluators.preference.contract import PAIRS
from evaluators.preference.enumerable import EnumerableEvaluator
from evaluators.trial import run_trial
from sandbox.child import load
from sandbox.draws import draw
from sandbox.elementwise import is_elementwise
from sandbox.failure import MappingError
from sandbox.frames import Frame, Shape, new_memory_file, shape_of
from sandbox.oracle import LossOracle
from sandbox.packed import Answers, ContractError, Entry, alike
from sandbox.server import OracleServer
from tests.support.losses import HEAD, MARGIN, body
from tests.support.objective_calls import CONTRACTS, NAMES

BETAS = (0.05, 0.4)
RUNS = 24  # twelve of each beta: enough to be mapped
EIGHT_RATES = [0.001 * 2**k for k in range(8)]
COUPLED = [
    (contract, name)
    for contract, name in NAMES
    if not is_elementwise(known_objective(contract, name).candidate.source, CONTRACTS[contract])
]


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, **arguments: Any) -> Any:
        self.calls += 1
        return self.function(**arguments)


class Call:
    """One packed call in this process, without a child."""

    def __init__(self, function: Callable[..., Any], contract: str, inputs: tuple[str, ...], **flags: bool) -> None:
        known = CONTRACTS[contract]
        self.counted = Counted(function)
        self.entry = Entry("loss", known.tensors_of(inputs), known.scalars_of(inputs), **flags)
        self.answers = Answers(self.counted, self.entry)

    def ask(self, tensors: dict[str, Tensor], scalars: dict[str, list[float]]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients (R, G, B), losses (R, B) and means (R,)."""
        runs, batch = next(iter(tensors.values())).shape
        shape: Shape = shape_of(self.entry.tensors, self.entry.scalars, runs, batch, 4)
        frame = Frame(new_memory_file(shape.frame_bytes), shape.frame_bytes)
        views = frame.views(shape)
        for place, spec in zip(views.rows, self.entry.tensors, strict=True):
            place.copy_(tensors[spec.name])
        frame.write_scalars([v for s in self.entry.scalars for v in scalars[s.name]])
        self.answers.write(frame, shape)
        return views.gradients.clone(), views.losses.clone(), views.means.clone()


def given(contract: str, seed: int = 0, batch: int = 32) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """Inputs of RUNS runs, betas in turns; other scalars are 0.5."""
    known = CONTRACTS[contract]
    tensors = draw(known, (RUNS, batch), seed, lambda g, s: 3 * torch.randn(s, generator=g, dtype=torch.float64))
    scalars = {s.name: [0.5] * RUNS for s in known.scalars}
    return {n: t.float() for n, t in tensors.items()}, scalars | {"beta": list(BETAS) * (RUNS // 2)}


def near(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of sums in another order."""
    return bool((a.isfinite() == b.isfinite()).all()) and torch.allclose(
        a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0), rtol=1e-4, atol=1e-5 * float(b.nan_to_num(0, 0, 0).abs().max())
    )


def test_there_are_coupled_losses_to_map() -> None:
    assert len(COUPLED) >= 8


@pytest.mark.parametrize(("contract", "name"), COUPLED)
def test_a_coupled_known_loss_is_mapped_and_gives_what_it_gives_alone(contract: str, name: str) -> None:
    objective = known_objectives(contract)[name]
    function, (tensors, scalars) = load(objective.candidate.source, "loss"), given(contract)
    mapped, alone = (Call(function, contract, objective.inputs, mapped=flag) for flag in (True, False))
    for found, expected in zip(mapped.ask(tensors, scalars), alone.ask(tensors, scalars), strict=True):
        assert near(found, expected)
    assert mapped.counted.calls == len(BETAS) + 1  # one run is compared
    assert alone.counted.calls == RUNS
    mapped.ask(tensors, scalars)
    assert mapped.counted.calls == 2 * len(BETAS) + 2


@pytest.mark.parametrize(
    "line",
    [
        "d = d if float(d.mean()) > 0 else 2 * d",
        "d = d * (1.0 + torch.tensor([1.0 if bool(x > 0) else 0.0 for x in d.detach()]).mean())",
        "d = d + d[d > 0].sum()",
        "d = d + torch.unique(d.detach()).float().mean()",
        "k = torch.zeros(len(d))\n    k[:] = d.detach()\n    d = d + k.mean()",
    ],
)
def test_what_cannot_be_mapped_is_called_run_by_run(line: str) -> None:
    function = load(f"{HEAD}{MARGIN}    {line}\n    return -F.logsigmoid(beta * d)\n", "loss")
    tensors, scalars = given(PAIRS.name)
    mapped, alone = (Call(function, PAIRS.name, PAIRS.required, mapped=flag) for flag in (True, False))
    for _ in range(2):
        for found, expected in zip(mapped.ask(tensors, scalars), alone.ask(tensors, scalars), strict=True):
            assert torch.equal(found, expected)
    assert mapped.counted.calls <= 2 * RUNS + len(BETAS) + 2


def lying(after: int) -> Callable[..., Tensor]:
    """DPO, but another loss where it finds itself mapped, from some call on; the gate lets nobody look at that."""
    seen = [0]

    def loss(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, beta: float, **_: Any) -> Tensor:
        seen[0] += 1
        mapped = torch._C._functorch.is_batchedtensor(policy_chosen_logps) and seen[0] > after
        d = policy_chosen_logps - policy_rejected_logps
        return -torch.nn.functional.logsigmoid((3 if mapped else 1) * beta * (d - 0.1 * d.mean()))

    return loss


def test_one_that_is_another_function_when_mapped_is_not_mapped() -> None:
    tensors, scalars = given(PAIRS.name)
    mapped, alone = (Call(lying(0), PAIRS.name, PAIRS.required, mapped=flag) for flag in (True, False))
    for found, expected in zip(mapped.ask(tensors, scalars), alone.ask(tensors, scalars), strict=True):
        assert torch.equal(found, expected)


def test_one_that_begins_to_differ_later_is_not_mapped_from_there_on() -> None:
    loss = lying(3 * (len(BETAS) + 1))
    mapped, alone = Call(loss, PAIRS.name, PAIRS.required, mapped=True), Call(lying(0), PAIRS.name, PAIRS.required)
    for seed in range(6):
        asked = given(PAIRS.name, seed)
        for found, expected in zip(mapped.ask(*asked), alone.ask(*asked), strict=True):
            assert near(found, expected)


FEW_RUNS = """lies = (d[0] > 7.0) * (0.0 if policy_chosen_logps.requires_grad else 1.0)
return -F.logsigmoid((1 + 2 * lies) * beta * (d - 0.1 * d.mean()))"""


def test_what_is_another_function_mapped_in_few_runs_is_found_out(server: OracleServer) -> None:
    """It can tell that it is mapped; which run is compared at once, and which calls are made again, it cannot."""
    found = 0
    for seed in range(12):
        with LossOracle(server, body(FEW_RUNS), PAIRS, PAIRS.required, mapped=True) as oracle:
            oracle.evaluate(*given(PAIRS.name, seed))
            with suppress(MappingError):
                oracle.replay()
                continue
            found += 1
    assert found >= 4


@pytest.mark.parametrize(
    "line",
    [
        "d - progress * d.median()",  # ties share the gradient alone, and do not when mapped
        "d - progress * d.max()",
        "d - 0.1 * (torch.zeros(len(d), len(d)).index_put((torch.argsort(d),), d).sum(0) if progress > 0.2 else d)",
    ],
)
def test_a_trial_of_an_honest_loss_that_maps_badly_is_that_of_the_loss_alone(line: str, server: OracleServer) -> None:
    candidate, reads = body(f"d = {line}\nreturn -F.logsigmoid(beta * d)", "progress"), (*PAIRS.required, "progress")
    options = {
        "regimes": ["few_pairs"],
        "max_length": 3,
        "steps": 16,
        "betas": [0.1, 0.4],
        "learning_rates": EIGHT_RATES,
    }
    evaluator = EnumerableEvaluator(options)
    with LossOracle(server, candidate, PAIRS, reads) as oracle:
        expected = evaluator.run(oracle, 0).metric("frontier").value
    assert run_trial(server, evaluator, candidate, reads, 0).metric("frontier").value == pytest.approx(
        expected, rel=1e-3
    )


def test_not_finite_numbers_are_alike_only_with_their_signs() -> None:
    one = torch.tensor([torch.inf, 1.0, torch.nan])
    assert alike(one, one)
    assert not alike(one, torch.tensor([-torch.inf, 1.0, torch.nan]))
    assert not alike(one, torch.tensor([torch.nan, 1.0, torch.inf]))


@pytest.mark.parametrize(("contract", "name"), COUPLED)
def test_an_honest_one_passes_the_replay(contract: str, name: str, server: OracleServer) -> None:
    objective = known_objectives(contract)[name]
    with LossOracle(server, objective.candidate, CONTRACTS[contract], objective.inputs, mapped=True) as oracle:
        for seed in range(8):
            oracle.evaluate(*given(contract, seed))
        oracle.replay()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("reference_chosen_logps.mul_(0.0)", "changed an input in place"),
        ("d = d.detach()", "no gradient"),
        ("return d.mean()", "returned shape"),
        ("return d.double()", "returned torch.float64"),
        ("return d[:3]", "returned shape"),
        ("return [d]", "returned list"),
        ("return d.to_sparse()", "layout torch.sparse_coo"),
    ],
)
def test_what_breaks_the_contract_is_told_as_ever(change: str, words: str) -> None:
    function = load(f"{HEAD}{MARGIN}    d = d - d.mean()\n    {change}\n    return d\n", "loss")
    with pytest.raises(ContractError, match=words):
        Call(function, PAIRS.name, PAIRS.required, mapped=True).ask(*given(PAIRS.name))


def test_a_run_that_diverges_leaves_the_others_alone() -> None:
    objective = known_objective(PAIRS.name, "aot")
    function, (tensors, scalars) = load(objective.candidate.source, "loss"), given(PAIRS.name)
    whole = Call(function, PAIRS.name, objective.inputs, mapped=True).ask(tensors, scalars)
    tensors["policy_chosen_logps"][7, 3] = torch.nan
    found = Call(function, PAIRS.name, objective.inputs, mapped=True).ask(tensors, scalars)
    others = torch.arange(RUNS) != 7
    assert not bool(found[2][7].isfinite())
    for a, b in zip(found, whole, strict=True):
        assert near(a[others], b[others])
