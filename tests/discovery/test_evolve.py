import asyncio
import inspect
import json
import random
from contextlib import suppress
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
import torch

from db.messages import Prompt
from db.records import Score
from discovery.expressions.behaviour import BETAS, WIDE, _grid, copies, defect, evaluate
from discovery.expressions.breeding import OPERATORS
from discovery.expressions.reader import read_tree
from discovery.expressions.trees import MARGIN, MAX_SIZE, Node, TreeError, canonical, const, leaf, make, subtrees
from discovery.expressions.writer import write_source
from discovery.proposers.evolve import EvolveProposer
from discovery.proposers.testing import ProposerConformance
from discovery.protocols import Past, Plan, ProposerError, Request
from discovery.replies import parse_reply
from evaluators.objectives import default_baselines, known_objective, known_objectives
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.check import check_candidate
from sandbox.failure import Failure, FailureKind
from sandbox.fingerprint import distance
from sandbox.gate import check_source
from sandbox.server import OracleServer

STOCK = default_baselines(PAIRS.name)  # what fresh offspring are bred from
SIGNATURE = (
    "def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):"
)
HEADER = f"import torch\nimport torch.nn.functional as F\n\n\n{SIGNATURE}\n"


def known_tree(name: str) -> Node:
    return read_tree(known_objective(PAIRS.name, name).candidate.source, PAIRS)


def readable() -> list[str]:
    """Names of the known losses that are trees."""
    found = []
    for name in known_objectives(PAIRS.name):
        with suppress(TreeError):
            known_tree(name)
            found.append(name)
    return found


KNOWN = readable()


def run_source(source: str, beta: float, width: float = 2.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, and derivatives by autograd when all chosen, or all rejected, log-probs rise together."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    named = inspect.signature(namespace["loss"]).parameters
    others = {s.name: 0.5 for s in PAIRS.scalars if s.optional and s.name in named}  # as in a tree's measurement
    inputs = {k: torch.tensor(v) for k, v in _grid(width).items()}
    shifts = [torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)]

    def of(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        moved = dict(inputs)
        moved["policy_chosen_logps"] = inputs["policy_chosen_logps"] + chosen
        moved["policy_rejected_logps"] = inputs["policy_rejected_logps"] + rejected
        return namespace["loss"](**moved, beta=beta, **others)

    chosen, rejected = torch.autograd.functional.jacobian(of, tuple(shifts))
    return of(*shifts).numpy(), chosen.numpy(), rejected.numpy()


def propose(plan: Plan, seed: int = 0, attempt: int = 0, **options: Any) -> dict[str, str]:
    proposer = EvolveProposer(options, PAIRS, seed)
    reply = asyncio.run(proposer.propose(Request(Prompt(()), plan, attempt)))
    assert reply.model == "evolve"
    assert reply.prompt_tokens is None
    return json.loads(reply.text)


def past(name: str, source: str, failure: Failure | None = None) -> Past:
    score = None if failure else Score("frontier", True, {0: 0.5})
    return Past(Candidate(PAIRS.name, source).id, name, "", source, "proposed", score, failure)


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


class TestConformance(ProposerConformance):
    def make_proposer(self, seed: int = 0, **options: Any) -> EvolveProposer:
        return EvolveProposer(options, PAIRS, seed)


def test_which_known_losses_are_trees() -> None:
    assert {*STOCK} <= {*KNOWN}
    assert {"cell", "exponential", "nca_pair", "rdpo", "savage", "dpop"} <= {*KNOWN}
    others = {*known_objectives(PAIRS.name)} - {*KNOWN}
    assert {"sft", "simpo", "odpo", "mappo", "aot", "pfl", "aqfl"} <= others  # optional tensors, sorting, branches


@pytest.mark.parametrize("name", KNOWN)
def test_known_losses_round_trip(name: str) -> None:
    source = known_objective(PAIRS.name, name).candidate.source
    tree = known_tree(name)
    written = write_source(tree, PAIRS, name)
    assert check_source(Candidate(PAIRS.name, written), PAIRS).accepted
    for beta in (0.05, 0.7):
        for ours, theirs in zip(run_source(written, beta), run_source(source, beta), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert write_source(read_tree(written, PAIRS), PAIRS, name) == written


@pytest.mark.parametrize("name", KNOWN)
def test_numpy_derivatives_equal_autograd(name: str) -> None:
    source = known_objective(PAIRS.name, name).candidate.source
    loss, chosen, rejected = evaluate(known_tree(name), 2.5, np.array(BETAS))
    for row, beta in enumerate(BETAS):
        for ours, theirs in zip((loss, chosen, rejected), run_source(source, beta), strict=True):
            np.testing.assert_allclose(ours[row], theirs, rtol=1e-9, atol=1e-12)


BODIES = {
    "methods and helpers": "x = policy_chosen_logps - reference_chosen_logps\nx *= beta\nreturn x.sigmoid().log().neg()",
    "functions by name": "return torch.sub(policy_rejected_logps, torch.mul(policy_chosen_logps, beta))",
    "clamps": "x = policy_chosen_logps\nreturn beta * -torch.clamp(x, -50, max=-6).clamp(min=-40) + x.clip(max=-7)",
    "batch statistics": "m = policy_chosen_logps\nreturn F.softplus(-beta * (m - m.mean().detach()))",
    "powers and roots": "return -beta * torch.sqrt(policy_chosen_logps ** 2 + 0.3) / 2 + torch.atan(policy_chosen_logps)",
    "annotated": "s: float = 2 * beta\nreturn torch.tanh(-s * policy_chosen_logps) + torch.expm1(policy_chosen_logps)",
    "nested signs": "return -(-(-beta)) * policy_chosen_logps - (1 - (policy_chosen_logps - 3)) - -2 ** 2",
    "divisions": "return 1 / (policy_chosen_logps / beta / 2) - policy_chosen_logps / (beta / 2) * (3 / beta)",
    "absolute": "return torch.abs(policy_chosen_logps + 20).log1p() - beta * torch.square(policy_chosen_logps)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_supported_grammar_round_trips(body: str) -> None:
    source = HEADER + "\n".join("    " + line for line in body.split("\n")) + "\n"
    tree = read_tree(source, PAIRS)
    written = write_source(tree, PAIRS, "x")
    for ours, theirs in zip(run_source(written, 0.3), run_source(source, 0.3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)
    measured = evaluate(tree, 2.5, np.array([0.3]))
    for ours, theirs in zip(measured, run_source(source, 0.3), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "body",
    [
        "return policy_chosen_logps if beta > 1 else -policy_chosen_logps",
        "if beta > 1:\n    return policy_chosen_logps\nreturn -policy_chosen_logps",
        "return torch.where(policy_chosen_logps > 0, policy_chosen_logps, beta)",
        "return torch.exp(beta) * policy_chosen_logps",
        "return policy_chosen_logps.mean()",
        "return policy_chosen_logps.mean(dim=0)",
        "return policy_chosen_logps ** beta",
        "return policy_chosen_logps[0]",
        "a, b = policy_chosen_logps, beta\nreturn a * b",
        "return undefined",
        "import os\nreturn policy_chosen_logps",
        "pass",
        "return " + "-" * 5000 + "beta",
        "x = policy_chosen_logps\n" + "x = x + x\n" * 60 + "return x",
        "return policy_chosen_logps * 1e300 * 1e300",
    ],
)
def test_other_sources_are_refused_not_misread(body: str) -> None:
    with pytest.raises(TreeError):
        read_tree(HEADER + "\n".join("    " + line for line in body.split("\n")) + "\n", PAIRS)


def test_module_constants_and_defaults_are_read() -> None:
    source = f"TAU = 0.5\n\n\n{SIGNATURE[:-2]}, k=3.0):\n    return -beta * k * policy_chosen_logps / TAU\n"
    np.testing.assert_allclose(
        evaluate(read_tree(source, PAIRS), 2.5, np.array([0.1]))[0][0], run_source(source, 0.1)[0], rtol=1e-12
    )


def test_optional_input_becomes_a_parameter_only_where_used() -> None:
    tree = make("mul", make("sub", 1.0, leaf("progress")), known_tree("dpo"))
    source = write_source(tree, PAIRS, "x")
    gate = check_source(Candidate(PAIRS.name, source), PAIRS)
    assert gate.parameters[-1] == "progress"
    assert read_tree(source, PAIRS) == tree
    assert "progress" not in write_source(known_tree("dpo"), PAIRS, "x")


def test_margins_are_recognised_however_they_are_bracketed() -> None:
    c, r, rc, rr = (leaf(f"{a}_{b}_logps") for a in ("policy", "reference") for b in ("chosen", "rejected"))
    assert canonical(make("sub", make("sub", c, r), make("sub", rc, rr))) == MARGIN
    assert canonical(make("add", make("sub", c, make("add", r, rc)), rr)) == MARGIN
    assert canonical(make("sub", make("sub", r, rr), make("sub", c, rc))) == make("neg", MARGIN)
    assert canonical(make("add", c, r)) != MARGIN


def test_trees_are_bounded_and_well_formed() -> None:
    tree = leaf("policy_chosen_logps")
    while 2 * tree.size < MAX_SIZE:
        tree = make("mul", tree, tree)
    with pytest.raises(TreeError, match=str(MAX_SIZE)):
        make("mul", tree, tree)
    for bad in (lambda: make("exp", leaf("beta")), lambda: make("div", 1.0, 0.0), lambda: Node("nope"),
                lambda: make("pow", tree, leaf("beta")), lambda: Node("add", (const(1.0),))):  # fmt: skip
        with pytest.raises(TreeError):
            bad()


def test_defects_are_found() -> None:
    dpo = known_tree("dpo")
    z = make("mul", leaf("beta"), MARGIN)
    assert all(defect(known_tree(n)) is None for n in ("dpo", "hinge", "ipo", "kto_pair"))
    assert "descent" in str(defect(make("neg", dpo)))
    assert "value per example" in str(defect(make("mean", dpo)))
    assert "beta" in str(defect(make("neg", MARGIN)))
    assert "start of training" in str(defect(make("mul", const(1e-7), dpo)))
    assert "beyond" in str(defect(make("exp", make("mul", -3.0, z))))
    assert "finite" in str(defect(make("sub", make("sqrt", make("add", z, 1.0)), make("mul", 3.0, z))))
    assert "descent" in str(defect(make("mul", leaf("beta"), leaf("reference_chosen_logps"))))
    assert evaluate(dpo, WIDE, np.array([0.1]))[0].max() > 1.0


def test_rescaled_copies_are_found_and_neighbours_are_not() -> None:
    z = make("mul", leaf("beta"), MARGIN)
    others = [known_tree(n) for n in KNOWN]

    def logistic(scale: float, shift: float) -> Node:
        return make("softplus", make("sub", shift, make("mul", scale, z)))

    for scale in (1.0, 0.0931, 1.37, 11.3):
        assert copies(logistic(scale, 0.0), others)
        assert copies(make("mul", 3.0, logistic(scale, 0.0)), others)
    for shift in (0.05, 1.0):
        assert not copies(logistic(1.37, shift), others)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_gives_usable_offspring(name: str) -> None:
    trees = [known_tree(n) for n in KNOWN]
    usable = 0
    for seed in range(60):
        rng = random.Random(seed)
        one, two = rng.sample(trees, 2)
        try:
            tree, account = OPERATORS[name][0](rng, one, two)
        except TreeError:
            continue
        assert account
        usable += defect(tree) is None and tree not in (one, two)
    assert usable >= 10


def test_most_proposals_are_accepted_and_distinct(server: OracleServer) -> None:
    proposals = [propose(Plan(i, i)) for i in range(24)]
    prints, accepted = [], 0
    for proposal in proposals:
        gate, probe = check_candidate(server, Candidate(PAIRS.name, proposal["code"]), PAIRS)
        assert gate.accepted, gate.violations
        assert probe is not None
        if probe.fingerprint is not None:
            accepted += 1
            if all(distance(probe.fingerprint, other) >= 1e-4 for other in prints):
                prints.append(probe.fingerprint)
    assert accepted >= 0.95 * len(proposals)
    assert len(prints) >= 0.75 * len(proposals)
    assert sum(p["name"].split("_")[-2] in OPERATORS for p in proposals) == len(proposals)


def test_twelve_generations_stay_usable(server: OracleServer) -> None:
    line: list[Past] = []
    for i in range(12):
        proposal = propose(Plan(i, i, in_full=tuple(line[-3:]), in_brief=tuple(line[:-3])), fresh_blood=0.0)
        line.append(past(proposal["name"], proposal["code"]))
        read_tree(proposal["code"], PAIRS)  # what it writes it can read
    _, probe = check_candidate(server, Candidate(PAIRS.name, line[-1].source), PAIRS)
    assert probe is not None
    assert probe.accepted
    assert len({p.candidate_id for p in line}) == 12
    assert any(p.name in line[-1].source for p in line[:-1])


def test_seed_plan_and_attempt_decide() -> None:
    base = propose(Plan(0, 5), seed=1)
    assert propose(Plan(9, 5), seed=1) == base
    others = [propose(Plan(0, 6), seed=1), propose(Plan(0, 5), seed=2), propose(Plan(0, 5), seed=1, attempt=1)]
    assert len({p["code"] for p in [base, *others]}) == 4


def test_parents_of_the_plan_are_used_and_unusable_ones_are_not() -> None:
    source = HEADER + "    return F.softplus(0.77 - beta * (policy_chosen_logps - policy_rejected_logps))\n"
    mine = past('ev"""il\nname', source)
    plan = Plan(0, 1, in_full=(mine,))
    named = [propose(changed(plan, seed=s), fresh_blood=0.0) for s in range(8)]
    assert all(("ev il name" in p["thought"] and "0.77" in p["code"]) or "ev il name" in p["thought"] for p in named)
    for proposal in named:
        assert check_source(Candidate(PAIRS.name, proposal["code"]), PAIRS).accepted
    broken = past("broken", source, Failure(FailureKind.CRASH, "x"))
    strange = past("strange", HEADER + "    return torch.where(beta > 0, policy_chosen_logps, 0)\n")
    for seed in range(6):
        thought = propose(Plan(0, seed, in_full=(broken, strange)), fresh_blood=0.0)["thought"]
        assert any(name in thought for name in KNOWN)


def test_code_is_readable() -> None:
    for i in range(30):
        proposal = propose(Plan(i, i))
        idea = parse_reply(json.dumps(proposal))
        assert idea.code == proposal["code"].strip("\n")
        assert idea.name == proposal["name"]
        assert "no language model was used" in idea.code
        assert max(len(line) for line in idea.code.split("\n")) <= 125
        tree = read_tree(idea.code, PAIRS)
        assert all(n.value == const(n.value).value for _, n in subtrees(tree))


def test_options_and_contract_are_checked() -> None:
    with pytest.raises(OptionsError, match="share"):
        EvolveProposer({"fresh_blood": 2}, PAIRS, 0)
    with pytest.raises(OptionsError, match=r"preference\.pairs only"):
        EvolveProposer({}, changed(PAIRS, name="classification.logits"), 0)


def test_hopeless_plan_is_a_proposer_error_that_is_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.expressions.breeding.TRIES", 0)
    with pytest.raises(ProposerError) as caught:
        propose(Plan(0, 0))
    assert not caught.value.fatal
