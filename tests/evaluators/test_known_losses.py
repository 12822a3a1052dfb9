"""The whole library as what is known: recognising copies, finding neighbours, and the tables on disk."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluators import objectives
from evaluators.base import Calls, TellsCalls
from evaluators.objectives import (
    default_baselines,
    known_losses,
    known_objective,
    known_objectives,
    machine_conditions,
)
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS, UNPAIRED
from evaluators.preference.enumerable import EnumerableEvaluator
from evaluators.preference.enumerable.unpaired_evaluator import EnumerableUnpairedEvaluator
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.properties import measured_properties
from sandbox.candidate import Candidate
from sandbox.check import check_candidate
from sandbox.contract import Conditions, Contract
from sandbox.fingerprint import Rows, fingerprint
from sandbox.gate import check_source
from sandbox.known import KnownLosses, Match, Tables
from sandbox.oracle import LossOracle
from sandbox.reports import Fingerprint, Nearest
from sandbox.server import OracleServer
from tests.support.losses import expression, rescaled
from tests.support.objective_calls import CONDITIONS, CONTRACTS, NAMES

TWINS = {"rso": ("hinge", 1.0), "squared": ("ipo", 0.5)}  # a known loss that another, or another rescaled, is found as
WITHOUT_BETA = {"sft", "asft"}
ALL_BUT_ONE_SCALE = {"alphapo"}  # where powers of probabilities outgrow the rest, beta has no say in it


def of(server: OracleServer, candidate: Candidate, contract: Contract) -> Fingerprint:
    parameters = check_source(candidate, contract).parameters
    assert parameters
    with LossOracle(server, candidate, contract, parameters) as oracle:
        return fingerprint(oracle, CONDITIONS)


@pytest.mark.parametrize(("contract", "name"), NAMES)
def test_each_is_found_as_itself(
    contract: str, name: str, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    match = libraries[contract].match(of(server, known_objective(contract, name).candidate, CONTRACTS[contract]))
    assert match is not None
    assert (match.name, match.scale) == (TWINS[name][0] if name == "rso" else name, 1.0)


@pytest.mark.parametrize("factor", [0.31, 5.7])
@pytest.mark.parametrize(("contract", "name"), NAMES)
def test_each_is_found_at_another_beta(
    contract: str, name: str, factor: float, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    candidate = rescaled(known_objective(contract, name).candidate, factor)
    match = libraries[contract].match(of(server, candidate, CONTRACTS[contract]))
    assert match is not None
    twin, share = TWINS.get(name, (name, 1.0))
    assert match.name == twin
    if name in WITHOUT_BETA:
        assert match.scale == 1.0  # and not said to be rescaled
    elif name not in ALL_BUT_ONE_SCALE:
        assert match.scale == pytest.approx(factor * share, rel=1e-3)


@pytest.mark.parametrize("seed", [16, 29])  # at which aql at 5.7 was missed
@pytest.mark.parametrize("name", ["aql", "savage", "hinge"])
def test_kinks_and_bends_between_scales_hide_no_copy(name: str, seed: int, server: OracleServer) -> None:
    objective, conditions = known_objective(PAIRS.name, name), Conditions(seed=seed)
    known = KnownLosses(server, PAIRS, {name: (objective.candidate, objective.inputs)}, conditions)
    for factor in (0.31, 1.7, 5.7):
        copy = rescaled(objective.candidate, factor)
        with LossOracle(server, copy, PAIRS, objective.inputs) as oracle:
            match = known.match(fingerprint(oracle, conditions))
        assert match is not None
        assert match.scale == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize(
    "near_miss",
    [
        "-F.logsigmoid(beta * d) + 0.05 * torch.exp(-beta * d)",
        "-F.logsigmoid(beta * d - 0.1)",
        "-F.logsigmoid(beta * beta * d)",
        "-beta * d",
        "torch.relu(1 - beta * d / 64)",  # a known one, but beyond the range of scales
        "torch.relu(1 - beta * d) ** 3",
        "0.45 * torch.exp(-beta * d) - 0.55 * F.logsigmoid(beta * d)",
        "-0.85 * F.logsigmoid(beta * d) - 0.15 * F.logsigmoid(-beta * d)",
        "torch.sigmoid(-beta * d)",
        "torch.sigmoid(-beta * d) ** 1.5",
        "(1 - beta * d).abs() ** 1.5",
    ],
)
def test_near_misses_of_a_large_library_are_new(
    near_miss: str, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    assert libraries[PAIRS.name].match(of(server, expression(near_miss), PAIRS)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torch.exp(-2.5 * beta * d) * 3 + 1", "exponential, beta x 2.5"),
        ("(1 + torch.exp(beta * d)) ** -2.0", "savage"),
        ("(2 - beta * d) ** 2", "squared, beta x 0.5"),
        ("(d - 1 / beta) ** 2", "ipo, beta x 0.5"),
        ("-policy_chosen_logps", None),  # one loss per response; sft's weighs them by the batch's mean length: the same
    ],
)
def test_copies_are_named(text: str, said: str | None, server: OracleServer, libraries: dict[str, KnownLosses]) -> None:
    match = libraries[PAIRS.name].match(of(server, expression(text), PAIRS))
    assert match is not None
    equal = {"squared, beta x 0.5": "ipo, beta x 0.25", "ipo, beta x 0.5": "squared"}  # either name is right
    assert match.describe("beta") in {said or "sft", equal.get(said or "", "")}


def test_an_unpaired_copy_is_found(server: OracleServer, libraries: dict[str, KnownLosses]) -> None:
    source = (
        f"import torch\n\n\n{UNPAIRED.signature().replace(') ->', ', kl_estimate: float) ->')}\n"
        "    gain = 2 * beta * (policy_logps - reference_logps - kl_estimate)\n"
        "    return torch.where(desirable, 1 - torch.sigmoid(gain), torch.sigmoid(gain))\n"
    )
    match = libraries[UNPAIRED.name].match(of(server, Candidate(UNPAIRED.name, source), UNPAIRED))
    assert match is not None
    assert match.describe("beta") == "kto, beta x 2"


def test_prints_of_one_contract_have_one_size(server: OracleServer) -> None:
    sizes = set()
    for objective in known_objectives(UNPAIRED.name).values():  # pmpo alone reads a second policy input
        sizes.add(len(of(server, objective.candidate, UNPAIRED).values[0]))
    assert len(sizes) == 1


# --- neighbours


def nearest(server: OracleServer, libraries: dict[str, KnownLosses], candidate: Candidate, limit: int) -> Nearest:
    _, report = check_candidate(server, candidate, PAIRS, conditions=CONDITIONS)
    assert report is not None
    assert report.fingerprint is not None, report.failure
    return libraries[PAIRS.name].nearest(report.fingerprint, report.curve, limit)


@pytest.mark.parametrize(
    ("text", "by_fingerprint", "by_curve"),
    [
        ("-F.logsigmoid(beta * d - 0.05)", "dpo", "dpo"),
        ("torch.relu(1.02 - 3 * beta * d) + 0.001 * beta * d", "hinge", "hinge"),
        ("(d - 0.5 / beta) ** 2 + 0.01 * d.abs()", "ipo", "ipo"),
        ("torch.exp(-beta * d) + 0.02 * (beta * d) ** 2", "exponential", "exponential"),
        ("torch.sigmoid(-2 * beta * d) ** 2.2", "savage", "savage"),
    ],
)
def test_the_nearest_of_a_slightly_changed_loss_is_what_was_changed(
    text: str, by_fingerprint: str, by_curve: str, server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    found = nearest(server, libraries, expression(text), 4)
    assert found.by_fingerprint[0].name == by_fingerprint
    assert by_curve in {m.name for m in found.by_curve[:2]}  # rso is the hinge
    for matches in (found.by_fingerprint, found.by_curve):
        assert len(matches) == 4
        assert [m.distance for m in matches] == sorted(m.distance for m in matches)
        assert 0 < matches[0].distance < 0.2
        assert all(m.distance <= 2.0 for m in matches)


def test_a_known_loss_is_its_own_nearest_at_distance_zero(
    server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    for name in ("dpo", "mappo", "aqfl", "vpo"):
        found = nearest(server, libraries, known_objective(PAIRS.name, name).candidate, 1)
        for (match,) in (found.by_fingerprint, found.by_curve):
            assert (match.name, match.scale) == (name, 1.0)
            assert match.distance < 1e-5


def test_the_nearest_of_a_rescaled_loss_is_at_its_scale(
    server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    found = nearest(server, libraries, expression("-F.logsigmoid(4 * beta * d) * 7 - 2"), 2)
    for matches in (found.by_fingerprint, found.by_curve):
        assert matches[0].name == "dpo"
        assert matches[0].scale == pytest.approx(4.0, rel=0.05)
        assert matches[0].distance < 0.02


def test_without_a_curve_fingerprints_are_compared(server: OracleServer, libraries: dict[str, KnownLosses]) -> None:
    found = libraries[PAIRS.name].nearest(of(server, known_objective(PAIRS.name, "dpo").candidate, PAIRS), limit=2)
    assert found.by_fingerprint[0].name == "dpo"
    assert found.by_curve == ()


# --- tables on disk


def test_later_processes_read_the_tables_and_fork_nothing(
    server: OracleServer, libraries: dict[str, KnownLosses], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of(server, known_objective(PAIRS.name, "dpo").candidate, PAIRS)
    monkeypatch.setattr(OracleServer, "fork", None)
    cpu = time.process_time()
    again = known_losses(server, PAIRS, CONDITIONS, cache)
    assert time.process_time() - cpu < 1.0  # seconds of this process; making them takes several in children
    assert again.match(found) == libraries[PAIRS.name].match(found) == Match("dpo", 1.0, pytest.approx(0, abs=1e-6))


def test_damaged_tables_are_made_again(server: OracleServer, tmp_path: Path) -> None:
    known_losses(server, UNPAIRED, CONDITIONS, tmp_path)
    (file,) = tmp_path.rglob("tensors.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    assert known_losses(server, UNPAIRED, CONDITIONS, tmp_path).match(
        of(server, known_objective(UNPAIRED.name, "bco").candidate, UNPAIRED)
    ) == Match("bco", 1.0, pytest.approx(0, abs=1e-6))
    assert file.read_bytes() == whole


def test_without_a_folder_to_write_to_the_tables_are_made_and_used(server: OracleServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = known_losses(server, UNPAIRED, CONDITIONS, tmp_path / "file")
    assert made.match(of(server, known_objective(UNPAIRED.name, "kto").candidate, UNPAIRED)) is not None


def test_other_known_losses_have_other_tables(server: OracleServer) -> None:
    known = {"dpo": (known_objective(PAIRS.name, "dpo").candidate, PAIRS.required)}
    rows = Rows(torch.zeros(2, 129, 6, 96), torch.zeros(2, 129, 6), torch.zeros(2, 129, 6))
    tables = Tables(rows, torch.zeros(2, 17, 41))
    with pytest.raises(ValueError, match="tables of other losses"):
        KnownLosses(server, PAIRS, known, CONDITIONS, tables)


def test_a_contract_without_known_losses_knows_nothing(server: OracleServer) -> None:
    other = replace(PAIRS, name="nobody.knows")
    found = of(server, known_objective(PAIRS.name, "dpo").candidate, PAIRS)
    nothing = KnownLosses(server, other, {}, CONDITIONS)
    assert nothing.match(found) is None
    assert nothing.nearest(found).by_fingerprint == ()
    assert default_baselines(other.name) == ()


def test_a_machine_has_one_secret(tmp_path: Path) -> None:
    made = machine_conditions(Calls(48, (0.1, 0.5)), tmp_path / "a")
    assert (made.batch, made.scales) == (48, (0.1, 0.5))
    objectives._machine_seed.cache_clear()  # as another process
    assert machine_conditions(Calls(48, (0.1, 0.5)), tmp_path / "a") == made
    assert machine_conditions(None, tmp_path / "a").seed == made.seed
    assert machine_conditions(None, tmp_path / "b").seed != made.seed


def test_without_a_folder_each_process_has_its_own_secret(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert machine_conditions(None, tmp_path / "file") == machine_conditions(None, tmp_path / "file")


def test_fingerprints_under_other_conditions_are_not_compared(
    server: OracleServer, libraries: dict[str, KnownLosses]
) -> None:
    found = of(server, known_objective(PAIRS.name, "dpo").candidate, PAIRS)
    other = replace(found, conditions=replace(CONDITIONS, batch=33))
    for ask in (libraries[PAIRS.name].match, libraries[PAIRS.name].nearest):
        with pytest.raises(ValueError, match="other conditions"):
            ask(other)


@pytest.mark.parametrize("evaluator", [EnumerableEvaluator, EnumerableUnpairedEvaluator, SentimentEvaluator])
def test_evaluators_tell_their_calls_and_keep_to_the_smallest_batch(evaluator: type[EnumerableEvaluator]) -> None:
    made = evaluator({"batch": 2, "betas": [0.3]})
    assert isinstance(made, TellsCalls)
    assert made.calls == Calls(2, (0.3,))
    with pytest.raises(OptionsError, match="batch must be at least 2"):
        evaluator({"batch": 1})


# --- properties


EXPECTED = {  # name: coupled, bounded below, bounded above, falls with the margin, convex, uses the reference, limits
    "dpo": (False, True, False, True, True, True, "0", "inf"),
    "rdpo": (False, False, False, True, True, True, "-inf", "inf"),
    "cdpo": (False, True, False, False, True, True, "inf", "inf"),
    "apo_zero": (False, True, True, True, False, True, "0", "2"),
    "apo_down": (False, True, True, False, False, True, "1", "1"),
    "savage": (False, True, True, True, False, True, "0", "1"),
    "exo_pair": (False, True, True, False, False, True, "0.0010005", "6.90776"),
    "simpo": (False, True, False, True, True, False, "0", "inf"),
    "sft": (True, True, False, True, True, False, "-inf", "inf"),
    "aqfl": (True, True, False, False, False, True, "0", "inf"),
    "kto": (False, True, True, True, False, True, "0", "1"),
    "pmpo": (True, False, False, True, True, True, "-inf", "inf"),
    "qrpo": (False, True, False, False, True, True, "inf", "inf"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_properties_of_known_objectives(name: str) -> None:
    p = measured_properties(next(c for c, n in NAMES if n == name))[name]
    found = (p.batch_coupled, p.bounded_below, p.bounded_above, p.monotone_decreasing, p.convex_in_margin,
             p.uses_reference, p.limit_at_plus_infinity, p.limit_at_minus_infinity)  # fmt: skip
    assert found == EXPECTED[name]
