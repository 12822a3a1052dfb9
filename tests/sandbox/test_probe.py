"""The probe: properties of known losses, and refusals with the numbers that show the fault."""

from __future__ import annotations

import math
import re

import pytest

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.check import check_candidate, refusal
from sandbox.child_spec import ChildSpec
from sandbox.contract import Conditions
from sandbox.draws import generator_for
from sandbox.failure import CandidateError, FailureKind
from sandbox.fingerprint import fingerprint
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.probe import probe
from sandbox.reports import ProbeReport, Properties
from sandbox.server import Child, OracleServer
from tests.support.losses import HEAD, KNOWN, MARGIN, body, expression

POLICY = ("policy_chosen_logps", "policy_rejected_logps")
ORDINARY = Properties(
    batch_coupled=False,
    bounded_below=True,
    finite_at_extremes=True,
    monotone_decreasing=True,
    detached_parts=False,
    inputs_with_gradient=POLICY,
    uses_reference=True,
    convex_in_margin=True,
    bounded_above=False,
    limit_at_plus_infinity="0",
    limit_at_minus_infinity="inf",
)
RISING = {"monotone_decreasing": False, "limit_at_plus_infinity": "inf"}
CHANGES: dict[str, dict[str, bool | str]] = {
    "dpo": {},
    "hinge": {},
    "ipo": RISING,
    "kto_pair": {
        "batch_coupled": True,
        "detached_parts": True,
        "convex_in_margin": False,
        "bounded_above": True,
        "limit_at_minus_infinity": "1",
    },
    "lrml": {"monotone_decreasing": False, "convex_in_margin": False},
}


def probed(server: OracleServer, candidate: Candidate) -> ProbeReport:
    """Without the gate: the probe must see through what a gate might let pass."""
    return probe(server, candidate, PAIRS, PAIRS.required)


@pytest.mark.parametrize("name", KNOWN)
def test_properties_of_known_objectives(name: str, server: OracleServer) -> None:
    gate, report = check_candidate(server, KNOWN[name], PAIRS, conditions=Conditions(seed=1))
    assert gate.accepted
    assert report is not None
    assert refusal(gate, report) is None
    assert report.properties == Properties(**{**vars(ORDINARY), **CHANGES[name]})
    assert report.facts["calls"] <= 64
    assert report.facts["wall_ms"] > 0


def test_a_refused_source_is_not_probed(server: OracleServer) -> None:
    gate, report = check_candidate(server, body("import os\nreturn d"), PAIRS)
    assert report is None
    failure = refusal(gate, report)
    assert failure is not None
    assert failure.kind is FailureKind.STATIC
    assert failure.message.startswith("line 8: imports os")


@pytest.mark.parametrize(
    ("lines", "with_gradient"),
    [
        ("return -policy_chosen_logps * beta", POLICY[:1]),
        ("return -F.logsigmoid(beta * (policy_chosen_logps - policy_rejected_logps) - 0.5)", POLICY),
        ("return policy_rejected_logps", POLICY[1:]),
    ],
)
def test_reference_free_losses_are_accepted(lines: str, with_gradient: tuple[str, ...], server: OracleServer) -> None:
    report = probed(server, body(lines))
    assert report.accepted, report.failure
    assert report.properties is not None
    assert report.properties.inputs_with_gradient == with_gradient


@pytest.mark.parametrize(
    ("expression_of_d", "change"),
    [
        ("-beta * d", {"bounded_below": False, "limit_at_plus_infinity": "-inf"}),
        ("torch.exp(-beta * d)", {"finite_at_extremes": False}),
        ("beta * d * d", RISING),
        ("F.softplus(-beta * d) * torch.sigmoid(-d).detach()", {"detached_parts": True, "convex_in_margin": False}),
        (
            "F.softplus(-beta * (d - d.mean()))",  # one margin alone is its own mean: the curve is level
            {
                "batch_coupled": True,
                "monotone_decreasing": False,
                "bounded_above": True,
                "limit_at_plus_infinity": f"{math.log(2):.6g}",
                "limit_at_minus_infinity": f"{math.log(2):.6g}",
            },
        ),
        ("F.softplus(-beta * (policy_chosen_logps - policy_rejected_logps))", {"uses_reference": False}),
        ("torch.log1p(F.relu(-beta * d))", {"convex_in_margin": False}),
        (
            "F.softplus(-beta * d).clamp(max=3) - 0.25",
            {
                "convex_in_margin": False,
                "bounded_above": True,
                "limit_at_plus_infinity": "-0.25",
                "limit_at_minus_infinity": "2.75",
            },
        ),
    ],
)
def test_properties_are_recorded_not_judged(
    expression_of_d: str, change: dict[str, bool | str], server: OracleServer
) -> None:
    report = probed(server, expression(expression_of_d))
    assert report.accepted, report.failure
    expected = {**vars(ORDINARY), **change}
    assert {n: v for n, v in vars(report.properties).items() if n in change} == dict(change)
    assert report.properties == Properties(**expected)


@pytest.mark.parametrize(
    ("candidate", "kind", "words"),
    [
        (expression("d * (1 + int(f'{torch.add}'[-9:-1], 16) % 99991)"), FailureKind.CONTRACT, "in another process"),
        (expression("d * torch.rand(1)"), FailureKind.CONTRACT, "differ by"),
        (expression("d + 0 * torch.randn_like(d) + torch.rand(()) * 1e-3"), FailureKind.CONTRACT, "differ by"),
        (expression("d * torch.sys.modules['time'].monotonic()"), FailureKind.CONTRACT, "differ by"),
        (expression("d.mean()"), FailureKind.CONTRACT, "must be (32,)"),
        (expression("d.unsqueeze(1)"), FailureKind.CONTRACT, "(32, 1)"),
        (expression("d * torch.ones(32)"), FailureKind.CRASH, "must match the size of tensor b (32)"),
        (expression("d * d.shape[0]"), FailureKind.CONTRACT, "batch size or its place"),
        (expression("d * torch.arange(len(d))"), FailureKind.CONTRACT, "batch size or its place"),
        (expression("d[:1].expand(len(d)) * 0 + 1"), FailureKind.CONTRACT, "gradient is zero everywhere"),
        (expression("torch.ones_like(d)"), FailureKind.CONTRACT, "no gradient"),
        (expression("d.detach()"), FailureKind.CONTRACT, "no gradient"),
        (expression("d * 0.0"), FailureKind.CONTRACT, "gradient is zero everywhere for policy_chosen_logps and"),
        (expression("torch.log(d)"), FailureKind.NON_FINITE, "values are not finite at ordinary inputs"),
        (expression("d / d[1:].std()"), FailureKind.NON_FINITE,
         "in a batch of 2, the smallest that trainers use; the standard deviation of one example is NaN (write .std(unb"),
        (expression("torch.exp(-d * 1e3)"), FailureKind.NON_FINITE, "loss values are not finite"),
        (expression("undefined(d)"), FailureKind.CRASH, "line 8: NameError"),
    ],
)  # fmt: skip
def test_refusals_show_their_numbers(candidate: Candidate, kind: FailureKind, words: str, server: OracleServer) -> None:
    report = probed(server, candidate)
    assert report.failure is not None
    assert report.failure.kind is kind
    assert words in report.failure.message
    assert report.properties is None
    assert report.fingerprint is None


def test_the_straight_through_trick_is_seen(server: OracleServer) -> None:
    report = probed(server, body("value = -F.logsigmoid(beta * d)\nreturn value - value.detach()"))
    assert report.properties is not None
    assert report.properties.detached_parts


def test_at_most_two_children(server: OracleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    forks = []
    fork = OracleServer.fork

    def counted(self: OracleServer, spec: ChildSpec, frame_bytes: int) -> Child:
        forks.append(frame_bytes)
        return fork(self, spec, frame_bytes)

    monkeypatch.setattr(OracleServer, "fork", counted)
    assert probed(server, KNOWN["dpo"]).accepted
    assert len(forks) == 1  # plain arithmetic
    assert probed(server, KNOWN["kto_pair"]).accepted
    assert len(forks) == 1 + 2


def test_the_optional_input_is_probed_when_named(server: OracleServer) -> None:
    source = HEAD.replace("beta: float)", "beta: float, progress: float)") + MARGIN
    candidate = Candidate(PAIRS.name, source + "    return F.softplus(-beta * d) * progress\n")
    gate = check_source(candidate, PAIRS)
    assert probe(server, candidate, PAIRS, gate.parameters).accepted


@pytest.mark.parametrize(
    "lines",
    [
        "return F.softplus(-beta * d / d.std())",
        "spread = d.var()\nreturn F.softplus(-beta * d) + 0.01 * spread",
        "v, m = torch.var_mean(d)\nreturn F.softplus(-beta * (d - m) / (v + 1).sqrt())",
        "c = torch.corrcoef(torch.stack([d, policy_rejected_logps]))[0, 1]\nreturn F.softplus(-beta * d + c)",
        "return F.softplus(-beta * d) * (1 + (d - d.mean()).square().sum() / (len(d) - 1))",
    ],
)
def test_statistics_of_a_batch_are_accepted(lines: str, server: OracleServer) -> None:
    report = probed(server, body(lines))
    assert report.accepted, report.failure
    assert report.properties is not None
    assert report.properties.batch_coupled


@pytest.mark.parametrize(
    "lines",
    [
        "return -policy_chosen_logps - beta * torch.log1p(-torch.exp(policy_rejected_logps))",
        "return -torch.log(-policy_rejected_logps) - policy_chosen_logps",
        "return torch.sqrt(-policy_chosen_logps) + F.softplus(-beta * d)",
        "p = policy_chosen_logps.exp()\nreturn -torch.log(p / (1 - p)) / 100 + F.softplus(-beta * d)",
        "return F.softplus(-beta * d) + (1 - policy_chosen_logps.exp()) ** 0.25",
    ],
)
def test_log_probs_stay_below_zero(lines: str, server: OracleServer) -> None:
    assert probed(server, body(lines)).failure is None


def test_perplexities_stay_ordinary(server: OracleServer) -> None:
    """A length goes with its log-prob: no token of an ordinary response has a probability of exp(-80)."""
    lines = "return torch.exp(-policy_chosen_logps / chosen_length) + F.softplus(-beta * d)"
    candidate = body(lines, "chosen_length")
    report = probe(server, candidate, PAIRS, check_source(candidate, PAIRS).parameters)
    assert report.failure is None
    assert report.facts["largest_loss"] < 1e4


@pytest.mark.parametrize(
    ("lines", "detached"),
    [
        ("return F.softplus(-beta * d.float())", False),
        ("x = d.float()\nreturn F.softplus(-beta * x) * torch.sigmoid(-x).detach()", True),
        ("x = torch.zeros(d.shape)\nx[d > 0] = d[d > 0] * beta\nreturn F.softplus(-x) - beta * d", False),
    ],
)
def test_what_works_in_float32_alone_is_measured_there(lines: str, detached: bool, server: OracleServer) -> None:
    report = probed(server, body(lines))
    assert report.failure is None
    assert report.properties is not None
    assert report.properties.detached_parts is detached
    assert report.fingerprint is not None
    assert report.fingerprint.single
    if lines.startswith("return"):
        assert report.properties == ORDINARY


def test_a_loss_that_is_another_in_float64_is_judged_by_what_trains(server: OracleServer) -> None:
    report = probed(server, expression("F.softplus(-beta * d) if d.dtype == torch.float32 else -d"))
    assert report.properties == ORDINARY
    assert report.fingerprint is not None
    assert report.fingerprint.single


def test_a_batch_has_training_s_size(server: OracleServer) -> None:
    sized = body("if len(d) == 48:\n    return F.softplus(-beta * d)\nreturn F.softplus(-beta * d) + 0.01 * d.mean()")
    reports = [probe(server, sized, PAIRS, PAIRS.required, conditions=Conditions(batch=n)) for n in (48, 49)]
    assert [r.properties.batch_coupled if r.properties else None for r in reports] == [None, True]
    assert "batch size or its place" in str(reports[0].failure)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("raise ValueError(f'{progress} {d.tolist()}')", "line 9: ValueError at inputs that were drawn in secret"),
        ("raise RuntimeError(f'not enough memory for {d.tolist()}')", "line 9: RuntimeError at inputs"),
        ("assert False, f'{progress}'", "line 9: AssertionError at inputs"),
        ("return d[: int(1e3 * progress) % 31]", "a result that breaks the contract at inputs"),
    ],
)
def test_no_refusal_tells_where_a_loss_is_compared(lines: str, words: str, server: OracleServer) -> None:
    """The scalars of other calls are known: at others a candidate would say what it is given."""
    known = ", ".join(str(v) for v in next(s for s in PAIRS.scalars if s.name == "progress").probe_values)
    conditions = Conditions()
    candidate = body(
        f"if progress not in ({known},) and len(d) == {conditions.batch}:\n    {lines}\nreturn d", "progress"
    )
    with (
        LossOracle(server, candidate, PAIRS, (*PAIRS.required, "progress")) as oracle,
        pytest.raises(CandidateError) as caught,
    ):
        fingerprint(oracle, conditions)
    assert caught.value.failure.message.startswith(words)
    assert not re.search(r"\d\.\d", caught.value.failure.message)


def test_who_knows_some_drawn_values_does_not_know_others() -> None:
    """A generator of torch reads 32 bits of its seed: equal ones, or near ones, must not give the secret away."""
    seeds = {
        generator_for(seed, name).initial_seed() & 0xFFFFFFFF for seed in (7, 8, 7 + 2**32) for name in ("", "a", "b")
    }
    assert len(seeds) == 9
    assert not seeds & {7, 8}
