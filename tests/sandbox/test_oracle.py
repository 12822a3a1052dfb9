"""The loss oracle from the trainer's side: exact to the bit, typed errors, and nothing else gets out of a child."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.child import load
from sandbox.failure import CandidateError, FailureKind
from sandbox.gate import check_source
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.losses import HEAD, KNOWN, body, expression

POLICY = ("policy_chosen_logps", "policy_rejected_logps")
Opener = Callable[..., LossOracle]


@pytest.fixture
def opened(server: OracleServer) -> Iterator[Opener]:
    """Oracles without a gate (attacks skip it), closed after the test."""
    oracles: list[LossOracle] = []

    def start(
        candidate: Candidate, parameters: tuple[str, ...] = PAIRS.required, limits: Limits | None = None
    ) -> LossOracle:
        oracles.append(LossOracle(server, candidate, PAIRS, parameters, limits))
        return oracles[-1]

    yield start
    for oracle in oracles:
        oracle.close()


def draw(runs: int, batch: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = {n: -30 + 5 * torch.randn(runs, batch, generator=generator, dtype=dtype) for n in PAIRS.required[:4]}
    for name in POLICY:
        inputs[name].requires_grad_(True)
    return inputs


def inline(
    candidate: Candidate, inputs: dict[str, Tensor], run: int, beta: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One run's losses, mean and gradients as a trainer without an oracle computes them."""
    alone = {n: t[run].detach().clone().requires_grad_(n in POLICY) for n, t in inputs.items()}
    losses = load(candidate.source, PAIRS.function)(**alone, beta=beta)
    mean = losses.mean()
    return losses.detach(), mean.detach(), list(torch.autograd.grad(mean, [alone[n] for n in POLICY]))


def failure_of(oracle: LossOracle, batch: int = 4, beta: float = 0.1) -> tuple[FailureKind, str]:
    with pytest.raises(CandidateError) as caught:
        oracle(draw(1, batch), {"beta": [beta]})
    return caught.value.failure.kind, caught.value.failure.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KNOWN)
def test_bits_equal_inline_at_every_batch_size(name: str, dtype: torch.dtype, opened: Opener) -> None:
    oracle = opened(KNOWN[name])
    for batch in (1, 2, 3, 7, 8, 31, 64, 257, 1024, 4096):
        inputs = draw(1, batch, dtype, seed=batch)
        mean = oracle(inputs, {"beta": [0.1]})
        mean.sum().backward()
        losses, expected, gradients = inline(KNOWN[name], inputs, 0, 0.1)
        assert mean.dtype == dtype
        assert torch.equal(mean.detach()[0], expected)
        assert oracle.last_losses is not None
        assert torch.equal(oracle.last_losses[0], losses)
        for key, gradient in zip(POLICY, gradients, strict=True):
            assert torch.equal(inputs[key].grad[0], gradient)  # type: ignore[index]


@pytest.mark.parametrize("batch", [5, 32, 96])
@pytest.mark.parametrize("name", KNOWN)
def test_packed_runs_equal_single_runs_to_the_bit(name: str, batch: int, opened: Opener) -> None:
    betas = [0.05, 0.4, 0.05, 1.6, 0.4, 0.05]  # equal ones apart, so that grouping has to put them back
    candidate = KNOWN[name]
    oracle = opened(candidate, check_source(candidate, PAIRS).parameters)
    inputs = draw(len(betas), batch)
    means = oracle(inputs, {"beta": betas, "progress": [0.5] * 6})
    means.sum().backward()
    for run, beta in enumerate(betas):
        losses, expected, gradients = inline(candidate, inputs, run, beta)
        assert torch.equal(means[run].detach(), expected)
        assert torch.equal(oracle.last_losses[run], losses)  # type: ignore[index]
        for key, gradient in zip(POLICY, gradients, strict=True):
            assert torch.equal(inputs[key].grad[run], gradient)  # type: ignore[index]


def test_gradients_scale_with_what_comes_from_above(opened: Opener) -> None:
    oracle, inputs = opened(KNOWN["kto_pair"]), draw(3, 6)
    weights = torch.tensor([2.0, -1.0, 0.0])
    (oracle(inputs, {"beta": [0.1, 0.2, 0.3]}) * weights).sum().backward()
    for run, beta in enumerate((0.1, 0.2, 0.3)):
        _, _, gradients = inline(KNOWN["kto_pair"], inputs, run, beta)
        for key, gradient in zip(POLICY, gradients, strict=True):
            assert torch.equal(inputs[key].grad[run], weights[run] * gradient)  # type: ignore[index]


def test_losses_are_detached_and_references_get_no_gradient(opened: Opener) -> None:
    oracle, inputs = opened(KNOWN["dpo"]), draw(2, 4)
    inputs["reference_chosen_logps"].requires_grad_(True)
    oracle(inputs, {"beta": [0.1, 0.1]}).sum().backward()
    assert oracle.last_losses is not None
    assert not oracle.last_losses.requires_grad
    assert inputs["reference_chosen_logps"].grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_cast_and_comes_back(dtype: torch.dtype, opened: Opener) -> None:
    oracle = opened(KNOWN["dpo"])
    inputs = {n: t.detach().to(dtype).requires_grad_(n in POLICY) for n, t in draw(1, 8).items()}
    mean = oracle(inputs, {"beta": [0.1]})
    mean.sum().backward()
    _, expected, gradients = inline(KNOWN["dpo"], {n: t.float() for n, t in inputs.items()}, 0, 0.1)
    assert mean.dtype == dtype
    assert torch.equal(mean.detach()[0], expected.to(dtype))
    assert torch.equal(inputs[POLICY[0]].grad[0], gradients[0].to(dtype))  # type: ignore[index]


def test_inputs_need_not_be_contiguous_and_stay_as_they_are(opened: Opener) -> None:
    oracle = opened(body("zeros = reference_chosen_logps.clone().mul_(0.0)\nreturn F.softplus(-beta * d) + zeros"))
    wide = {n: t.detach().repeat_interleave(2, 1)[:, ::2].requires_grad_(n in POLICY) for n, t in draw(2, 6).items()}
    before = {n: t.detach().clone() for n, t in wide.items()}
    means = oracle(wide, {"beta": [0.1, 0.2]}).detach()
    softplus = expression("F.softplus(-beta * d)")
    assert torch.equal(means, torch.stack([inline(softplus, before, r, b)[1] for r, b in ((0, 0.1), (1, 0.2))]))
    greedy = opened(body("reference_chosen_logps.mul_(0.0)\nreturn F.softplus(-beta * d) + reference_chosen_logps"))
    with pytest.raises(CandidateError, match="changed an input in place"):
        greedy(wide, {"beta": [0.1, 0.2]})
    for name, values in before.items():
        assert torch.equal(wide[name].detach(), values)


def test_a_bigger_batch_reopens_the_child(opened: Opener) -> None:
    oracle = opened(KNOWN["dpo"])
    small = oracle(draw(1, 4), {"beta": [0.1]})
    assert torch.isfinite(oracle(draw(64, 4096), {"beta": [0.1] * 64})).all()
    assert torch.equal(oracle(draw(1, 4), {"beta": [0.1]}), small)
    assert oracle.calls == 3
    assert oracle.wall_s > 0


def test_optional_inputs_reach_only_those_that_name_them(opened: Opener) -> None:
    source = (
        HEAD.replace("beta: float)", "beta: float, progress: float)") + "    return policy_chosen_logps * progress\n"
    )
    candidate = Candidate(PAIRS.name, source)
    inputs = draw(2, 3)
    named = opened(candidate, check_source(candidate, PAIRS).parameters)
    got = named(inputs, {"beta": [0.1, 0.1], "progress": [0.25, 0.75]})
    assert torch.equal(
        got.detach(), torch.stack([(inputs[POLICY[0]][r] * p).mean() for r, p in ((0, 0.25), (1, 0.75))])
    )
    plain = opened(KNOWN["dpo"])({**inputs, "unknown": torch.zeros(9)}, {"beta": [0.1, 0.1], "progress": [0.1, 0.2]})
    assert plain.shape == (2,)


def test_wrong_calls_are_the_callers_error(opened: Opener) -> None:
    oracle, inputs = opened(KNOWN["dpo"]), draw(2, 4)
    with pytest.raises(ValueError, match="1 scalars for 2 runs of beta"):
        oracle(inputs, {"beta": [0.1]})
    with pytest.raises(ValueError, match="reference_chosen_logps has shape"):
        oracle({**inputs, "reference_chosen_logps": torch.zeros(1, 4)}, {"beta": [0.1, 0.1]})
    assert torch.isfinite(oracle(inputs, {"beta": [0.1, 0.2]})).all()


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        ("x = 1\nraise ValueError('too bad')", FailureKind.CRASH, "line 9: ValueError: too bad"),
        ("return d[9999]", FailureKind.CRASH, "line 8: IndexError: "),
        ("return d.mean()", FailureKind.CONTRACT, "returned shape (), must be (4,): one loss per example"),
        ("return d[:2]", FailureKind.CONTRACT, "returned shape (2,), must be (4,)"),
        ("return d.double()", FailureKind.CONTRACT, "returned torch.float64 for torch.float32 inputs"),
        ("return None", FailureKind.CONTRACT, "returned NoneType, not a plain tensor of shape (4,)"),
        ("return [0.0] * 4", FailureKind.CONTRACT, "returned list"),
        ("return reference_chosen_logps", FailureKind.CONTRACT, "no gradient"),
        ("return d * float('nan')", FailureKind.NON_FINITE, "call 1: mean loss nan, largest gradient nan (run 0, beta=0.1)"),
        ("return torch.exp(d * 1e6 + 1e9)", FailureKind.NON_FINITE, "mean loss inf"),
        ("return d * 1e35", FailureKind.NON_FINITE, "largest gradient"),
        ("return loss(*[d] * 5)", FailureKind.CRASH, "RecursionError"),
        ("x = torch.ones(3_000_000_000)\nreturn d", FailureKind.OUT_OF_MEMORY, "line 8: RuntimeError"),
        ("x = []\nfor i in range(10 ** 6): x.append(torch.ones(10 ** 7))\nreturn d", FailureKind.OUT_OF_MEMORY, "line 9"),
        ("raise RuntimeError('std::bad_alloc')", FailureKind.OUT_OF_MEMORY, "line 8: RuntimeError"),
        ("x = bytes\nreturn d", FailureKind.CRASH, "NameError"),
        ("raise SystemExit(0)", FailureKind.CRASH, "NameError"),
        ("import os\nreturn d", FailureKind.CRASH, "line 8: ImportError: import of 'os' is not allowed"),
        ("torch.os._exit(0)", FailureKind.CRASH, "ended itself"),
        ("torch.os.abort()", FailureKind.CRASH, "forbidden system call (SIGSYS)"),
    ],
)  # fmt: skip
def test_faults_of_a_candidate_are_typed(lines: str, kind: FailureKind, words: str, opened: Opener) -> None:
    found, message = failure_of(opened(body(lines), limits=Limits(memory_mb=512)))
    assert found is kind, message
    assert words in message


def test_a_fault_names_the_run_and_its_scalars(opened: Opener) -> None:
    oracle = opened(expression("d * (float('inf') if beta > 0.5 else 1.0)"))
    with pytest.raises(CandidateError, match=r"run 2, beta=0\.8"):
        oracle(draw(3, 4), {"beta": [0.05, 0.2, 0.8]})


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1 / 0\n" + HEAD + "    return beta\n", "line 1: ZeroDivisionError"),
        (HEAD + "    return (\n", "SyntaxError"),
        ("x = 1\n", "no function 'loss'"),
    ],
)
def test_faults_while_loading(source: str, line: str, opened: Opener) -> None:
    kind, message = failure_of(opened(Candidate(PAIRS.name, source)))
    assert kind in (FailureKind.CRASH, FailureKind.CONTRACT)
    assert line in message


def test_hostile_messages_are_cut_and_cleaned(opened: Opener) -> None:
    kind, message = failure_of(opened(body("raise ValueError('\\x1b[31m\\u202e' + 'A' * (20 << 20))")))
    assert kind is FailureKind.CRASH
    assert len(message) <= 1100
    assert message.startswith("line 8: ValueError: [31mAAAA")


def test_an_error_keeps_the_oracle_usable(opened: Opener) -> None:
    oracle = opened(body("assert beta < 1, 'beta too large'\nreturn F.softplus(-beta * d)"))
    assert failure_of(oracle, beta=2.0) == (FailureKind.CRASH, "line 8: AssertionError: beta too large")
    assert torch.isfinite(oracle(draw(1, 4), {"beta": [0.1]})).all()


def test_printing_cannot_touch_results(opened: Opener, capfd: pytest.CaptureFixture[str]) -> None:
    noisy = "torch.builtins.print('x' * 100000)\ntorch.serialization.warnings.warn('y' * 100000)\n"
    oracle, inputs = opened(body(noisy + "return -F.logsigmoid(beta * d)")), draw(1, 8)
    for _ in range(3):
        assert torch.equal(oracle(inputs, {"beta": [0.1]}), opened(KNOWN["dpo"])(inputs, {"beta": [0.1]}))
    assert capfd.readouterr() == ("", "")


def test_threads_share_a_server(server: OracleServer) -> None:
    barrier = threading.Barrier(4)

    def work(seed: int) -> bool:
        inputs = draw(2, 64, seed=seed)
        barrier.wait(timeout=30)
        with LossOracle(server, KNOWN["dpo"], PAIRS, PAIRS.required) as oracle:
            means = [oracle(inputs, {"beta": [0.1, 0.3]}).detach() for _ in range(10)]
        expected = [inline(KNOWN["dpo"], inputs, run, beta)[1] for run, beta in ((0, 0.1), (1, 0.3))]
        return all(torch.equal(m, torch.stack(expected)) for m in means)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4


def test_a_tensor_can_be_made_in_the_first_call(opened: Opener) -> None:
    """torch imports a module of its own for that, once: it must have done so before a candidate runs."""
    oracle = opened(
        Candidate(PAIRS.name, f"import torch\n{HEAD}\n    return policy_chosen_logps * torch.tensor(2.0)\n")
    )
    inputs = draw(1, 4)
    assert torch.equal(oracle(inputs, {"beta": [0.1]}), 2 * inputs["policy_chosen_logps"].mean(1))


CLASSES = f"""
import torch
from torch import nn


class Doubled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


{HEAD}
    return Doubled(2.0)(policy_chosen_logps)
"""


def test_a_module_of_ours_may_define_classes_and_a_candidate_may_not(server: OracleServer) -> None:
    inputs = draw(1, 4)
    candidate = Candidate(PAIRS.name, CLASSES)
    with LossOracle(server, candidate, PAIRS, PAIRS.required, module=True) as oracle:
        assert torch.equal(oracle(inputs, {"beta": [0.1]}), 2 * inputs["policy_chosen_logps"].mean(1))
    for module, source in ((False, CLASSES), (True, f"import os\n{CLASSES}"), (True, f"open\n{CLASSES}")):
        with LossOracle(server, Candidate(PAIRS.name, source), PAIRS, PAIRS.required, module=module) as oracle:
            assert failure_of(oracle)[0] is FailureKind.CRASH


def test_a_module_that_does_not_run_gives_no_numbers_at_the_second_call_either(opened: Opener) -> None:
    source = f"import os\n\n\ndef loss({', '.join(PAIRS.required)}):\n    return -policy_chosen_logps\n"
    oracle = opened(Candidate(PAIRS.name, source))
    said = [failure_of(oracle) for _ in range(3)]
    assert {kind for kind, _ in said} == {FailureKind.CRASH}
    assert all("ImportError" in message for _, message in said)
