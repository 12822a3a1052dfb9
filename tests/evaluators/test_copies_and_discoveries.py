"""What is called a copy, and what a discovery: evasions, schedules, learning rates in disguise, float32 idioms.

A loss is what it does where training calls it. Here that is at 32 pairs; values are drawn anew in each run of the tests.
"""

from __future__ import annotations

import pytest

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.check import check_candidate, refusal
from sandbox.failure import Failure, FailureKind
from sandbox.known import KnownLosses
from sandbox.server import OracleServer
from tests.support.losses import body
from tests.support.objective_calls import CONDITIONS

DPO = "-F.logsigmoid(beta * d)"
OTHER = "torch.tanh(-2.5 * beta * d) + (beta * d - 0.3).abs()"


def verdict(server: OracleServer, libraries: dict[str, KnownLosses], candidate: Candidate) -> Failure | None:
    """Why a campaign would not train it; None if it would."""
    gate, report = check_candidate(server, candidate, PAIRS, conditions=CONDITIONS)
    failure = refusal(gate, report)
    if failure is not None:
        return failure
    assert report is not None
    assert report.fingerprint is not None
    match = libraries[PAIRS.name].match(report.fingerprint, report.properties, gate.parameters)
    return match.refusal(PAIRS.scale_scalar) if match is not None else None


def hiding(condition: str, *optional: str) -> Candidate:
    """DPO, unless it recognises where it is."""
    return body(f"if {condition}:\n    return {OTHER}\nreturn {DPO}", *optional)


def marked(condition: str, *optional: str) -> Candidate:
    """DPO, but for the examples that it recognises."""
    return body(f"return torch.where({condition}, {OTHER}, {DPO})", *optional)


EVASIONS = {
    "at the size of older fingerprints": hiding("d.shape[0] == 24"),
    "at every size but training's": hiding("d.shape[0] != 32"),
    "in large batches": hiding("d.shape[0] > 64"),
    "in small batches": hiding("d.shape[0] < 9"),
    "at odd sizes": hiding("d.shape[0] % 2 == 1"),
    "at the betas that fingerprints had": hiding("beta in (0.05, 0.2, 0.8)"),
    "at the default beta": hiding("beta == 0.1"),
    "in the middle of training": hiding("progress == 0.5", "progress"),
    "at the very ends of training": hiding("progress == 0.0 or progress == 1.0", "progress"),
    "at one running mean": hiding("running_log_ratio in (0.3, 0.0)", "running_log_ratio"),
    "where all lengths are alike": hiding("bool((chosen_length == 30).all())", "chosen_length"),
    "where values are sorted": hiding("bool((d[1:] >= d[:-1]).all())"),
    "where the halves of a batch are alike": hiding("bool((d[: len(d) // 2] == d[len(d) - len(d) // 2 :]).all())"),
    "where examples are repeated": hiding("bool((d[0] == d[1:]).any())"),
    "at chosen values": marked("(d - 1.25).abs() < 1e-4"),
    "at round values": marked("d == torch.round(d * 8) / 8"),
    "at one reference": marked("reference_chosen_logps == -20.0"),
    "at one soft label": marked("(preference_probability - 0.5).abs() < 1e-6", "preference_probability"),
    "in float64": hiding("d.dtype == torch.float64"),
    "by digits that float64 has": hiding("float((d - d + 1 + 1e-10).max()) > 1.0"),
    "in digits that float32 has": body("return -F.logsigmoid(beta * d) + (d.dtype == torch.float64) * 5e-4 * torch.tanh(d)"),
    "in rounding": body("return -F.logsigmoid(beta * ((d + 4096.0) - 4096.0))"),
}  # fmt: skip


@pytest.mark.parametrize("where", EVASIONS)
def test_a_copy_that_hides_is_no_discovery(where: str, server: OracleServer, libraries: dict[str, KnownLosses]) -> None:
    failure = verdict(server, libraries, EVASIONS[where])
    assert failure is not None
    assert failure.kind in (FailureKind.DUPLICATE, FailureKind.CONTRACT), (
        failure
    )  # an example's place is nobody's business
    if failure.kind is FailureKind.DUPLICATE:
        assert "dpo" in failure.message


NEW = {
    "beta rises": body("return -F.logsigmoid(beta * d * (1.0 + progress))", "progress"),
    "beta falls": body("return -F.logsigmoid(beta * d * (2.0 - 1.5 * progress))", "progress"),
    "beta rises early": body("return -F.logsigmoid(beta * d * min(1.0, 0.2 + 4.0 * progress))", "progress"),
    "another loss after half time": body(f"return {DPO} if progress < 0.5 else torch.relu(1 - beta * d)", "progress"),
    "another loss at the end": body(f"return {DPO} if progress < 0.9 else (1 - beta * d) ** 2", "progress"),
    "a growing share of another": body(
        f"return (1 - progress) * {DPO} + progress * torch.exp(-beta * d)", "progress"
    ),
    "a growing target": body("return -F.logsigmoid(beta * d - progress)", "progress"),
    "less smoothing": body(
        "e = 0.2 * (1 - progress)\nreturn -(1 - e) * F.logsigmoid(beta * d) - e * F.logsigmoid(-beta * d)", "progress"
    ),
    "a sharper focus": body(f"return torch.sigmoid(-beta * d) ** (2 * progress) * {DPO}", "progress"),
    "against the running mean": body("return -F.logsigmoid(beta * (d - running_log_ratio))", "running_log_ratio"),
    "beta by the running mean": body(
        "return -F.logsigmoid(beta * d / (1 + abs(running_log_ratio)))", "running_log_ratio"
    ),
    "margins in deviations": body("return -F.logsigmoid(beta * d / d.std().detach())"),
    "margins in deviations, with gradient": body("return -F.logsigmoid(beta * d / (d.std() + 0.1))"),
    "margins against their mean": body("return -F.logsigmoid(beta * (d - d.mean()))"),
    "a variance to keep small": body(f"return {DPO} + 0.05 * beta * d.var()"),
    "a mean to keep small": body(f"return {DPO} + 0.05 * d.mean() ** 2"),
    "weights within the batch": body(f"w = torch.softmax(-d.detach(), 0) * len(d)\nreturn w * {DPO}"),
    "weights by a score": body(f"return (1 + chosen_score.abs()) * {DPO}", "chosen_score"),
    "a quantile of the batch": body("q = d.std() * torch.sigmoid(-d).mean()\nreturn torch.relu(q + 1 - beta * d) ** 1.5"),
    "odds of responses": body(
        "return -policy_chosen_logps / 50 - beta * torch.log1p(-torch.exp(policy_rejected_logps))"
    ),
    "a surrogate of its own": body(f"v = {DPO}\ng = torch.tanh(-beta * d)\nreturn v.detach() + g - g.detach()"),
}  # fmt: skip


@pytest.mark.parametrize("what", NEW)
def test_what_training_sees_as_new_is_accepted(
    what: str, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    assert verdict(server, libraries, NEW[what]) is None


RATES = {
    "rising": ("dpo", "progress", body(f"return (1.0 + progress) * {DPO}", "progress")),
    "rising fast": ("dpo", "progress", body(f"return {DPO} * math.exp(4 * progress)", "progress")),
    "falling to nothing": ("dpo", "progress", body(f"return {DPO} * (1 - progress)", "progress")),
    "off for half the time": ("dpo", "progress", body(f"return {DPO} * max(progress - 0.5, 0.0)", "progress")),
    "a cosine": ("dpo", "progress", body(f"return (1.1 + math.cos(3.14159 * progress)) * {DPO}", "progress")),
    "with a constant": ("dpo", "progress", body(f"return ({DPO} - 3.0) * (1 + progress) + progress", "progress")),
    "of another loss": ("hinge", "progress", body("return torch.relu(1 - beta * d) / (0.1 + progress)", "progress")),
    "at another beta": (
        "dpo, beta x 2",
        "progress",
        body("return -F.logsigmoid(2 * beta * d) / (2 - progress)", "progress"),
    ),
    "by the running mean": (
        "ipo",
        "running_log_ratio",
        body("return (d - 0.5 / beta) ** 2 * math.exp(running_log_ratio / 4)", "running_log_ratio"),
    ),
    "by how much is wrong": (
        "dpo",
        "the batch",
        body(f"return {DPO} / torch.sigmoid(-beta * d).mean().detach()"),
    ),
    "by deviation": ("dpo", "the batch", body(f"return {DPO} / d.std().detach()")),
    "by its own mean": ("dpo", "the batch", body(f"v = {DPO}\nreturn v / v.mean().detach()")),
    "by its own largest": ("exponential", "the batch", body("v = torch.exp(-beta * d)\nreturn v / v.max().detach()")),
    "by how much is wrong, with gradient": (
        "dpo",
        "the batch",
        body(f"return {DPO} / torch.sigmoid(-beta * d).mean()"),
    ),
    "by deviation, with gradient, at another beta": (
        "dpo, beta x 3",
        "the batch",
        body("return -F.logsigmoid(3 * beta * d) / d.std()"),
    ),
    "by both": (
        "dpo",
        "progress or the batch",
        body(f"return {DPO} * (2 - progress) / d.abs().mean().detach()", "progress"),
    ),
}


@pytest.mark.parametrize("how", RATES)
def test_a_learning_rate_in_disguise_is_called_one(
    how: str, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    name, factor, candidate = RATES[how]
    failure = verdict(server, libraries, candidate)
    assert failure is not None
    assert failure.kind is FailureKind.DUPLICATE
    assert f"times a positive factor that depends on {factor}: ({name})" in failure.message
    assert "learning rate" in failure.message


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (body(f"return {DPO} + 0 * progress", "progress"), "(dpo)"),
        (body(f"return {DPO} if progress >= 0 else {OTHER}", "progress"), "(dpo)"),
        (body("return 3 * F.softplus(-2 * beta * d) + running_log_ratio", "running_log_ratio"), "(dpo, beta x 2)"),
        (body(f"return {DPO} / beta"), "(dpo)"),  # in one run, a constant factor
        (body(f"return {DPO} + 0 * chosen_length.float()", "chosen_length"), "(dpo)"),
    ],
)
def test_what_is_read_and_makes_no_difference_makes_no_discovery(
    candidate: Candidate, said: str, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    failure = verdict(server, libraries, candidate)
    assert failure == Failure(FailureKind.DUPLICATE, f"behaves like a known loss: {said}")


SINGLE = {  # what works in float32 and not, or not alike, in float64: a loss of its own, and the same idiom in DPO
    "a cast": "x = beta * d.float()",
    "a cast there and back": "x = (beta * d).half().float()",
    "a cast by name": "x = (beta * d).to(torch.float32)",
    "written into zeros": "x = torch.zeros(d.shape)\nx[d > -1e9] = beta * d[d > -1e9]",
    "a product of matrices": "x = torch.stack([d, d], 1) @ torch.tensor([0.5 * beta, 0.5 * beta])",
    "a sum over indices": "x = torch.einsum('bk,k->b', torch.stack([d, d], 1), torch.full((2,), 0.5 * beta))",
    "a blend": "x = beta * torch.lerp(d, torch.zeros(d.shape), 0.0)",
    "a quantile": "x = beta * d + 0 * torch.quantile(d, torch.tensor([0.5]))",
    "a stack of constants": "x = torch.mv(torch.stack([d, d], 1), torch.ones(2)) * (beta / 2)",
    "a dot product": "x = beta * d + 0 * torch.dot(d, torch.ones(len(d)))",
    "a batched product": "x = torch.bmm(d[:, None, None], torch.full((len(d), 1, 1), beta))[:, 0, 0]",
    "a linear layer": "x = F.linear(d[:, None], torch.tensor([[beta]]))[:, 0]",
}


@pytest.mark.parametrize("idiom", SINGLE)
def test_right_in_float32_is_right(idiom: str, server: OracleServer, libraries: dict[str, KnownLosses]) -> None:
    assert verdict(server, libraries, body(f"{SINGLE[idiom]}\nreturn torch.log(1.7 + torch.exp(-x)) ** 2")) is None


@pytest.mark.parametrize("idiom", [name for name in SINGLE if name != "a cast there and back"])  # half has few digits
def test_a_copy_in_float32_alone_is_a_copy(idiom: str, server: OracleServer, libraries: dict[str, KnownLosses]) -> None:
    for factor, said in ((1.0, "(dpo)"), (3.0, "(dpo, beta x 3)")):
        failure = verdict(server, libraries, body(f"{SINGLE[idiom]}\nreturn -F.logsigmoid({factor} * x)"))
        assert failure == Failure(FailureKind.DUPLICATE, f"behaves like a known loss: {said}")
