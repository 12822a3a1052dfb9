"""One way to say which loss is meant, the same for every command: a name, an id, or the beginning of an id."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from db.archive import Archive, ArchiveError
from db.testing_values import TASK, proposal
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind
from tests.support.command import discovery
from tests.support.small_archive import CRASHED, REFUSED, WINNER, make_archive

DPO = known_objective(PAIRS.name, "dpo").candidate
COMMANDS = [
    ["show"], ["lineage"], ["lineage", "--children"], ["compare", "ipo"], ["export", "--format", "json"], ["nearest"],
    ["evaluate", "--set", "steps=8", "--set", "betas=[0.1]"],
]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "small.db")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_names_and_ids_alike(command: list[str], archive: Path) -> None:
    for candidate, words in ((WINNER, ("winner", WINNER.short_id, WINNER.id)), (DPO, ("dpo", DPO.short_id))):
        for word in words:
            ended = discovery(*command, word, "--archive", archive)
            assert ended.code == 0, ended.stderr
            assert candidate.short_id in ended.stdout + ended.stderr or candidate.id in ended.stdout


def test_the_dashboard_takes_names_too(archive: Path) -> None:
    from discovery.web import candidate, compare, family

    with Archive(archive) as stored:
        assert candidate.candidate(stored, "winner", None)["entry"].candidate == WINNER
        assert family.lineage(stored, "dpo", "small")["start"].name == "dpo"
        assert compare.compared(stored, ["dpo", "winner"], None)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] != "compare"], ids=" ".join)
def test_a_misspelt_name_gets_the_nearest(command: list[str], archive: Path) -> None:
    assert "did you mean 'winner'?" in discovery(*command, "winnner", "--archive", archive).error
    if command[0] in ("export", "nearest", "evaluate"):  # they take known losses that the archive does not have
        assert "did you mean 'hinge'?" in discovery(*command, "hingee", "--archive", archive).error


def test_a_known_loss_that_nobody_measured_is_said_to_be_one(archive: Path) -> None:
    said = discovery("show", "simpo", "--archive", archive).error
    assert "known loss that no campaign here has measured" in said
    assert "discovery objectives show simpo" in said


@pytest.fixture
def stored(tmp_path: Path):
    with Archive(tmp_path / "names.db", create=True) as made:
        yield made


def enter(archive: Archive, campaign: int, index: int, name: str, source: str, **changes: object) -> Candidate:
    candidate = Candidate(PAIRS.name, source)
    made = replace(proposal(index), name=name, candidate=candidate, **changes)  # type: ignore[arg-type]
    archive.record_known(campaign, made)
    return candidate


def test_an_ambiguous_name_lists_the_ids_and_a_campaign_narrows_it(stored: Archive) -> None:
    one, two = (
        stored.start_campaign(name, {}, task=TASK, metric="score", higher_is_better=True).id for name in ("one", "two")
    )
    first = enter(stored, one, 0, "soft", "x = 1\n")
    second = enter(stored, two, 0, "soft", "x = 2\n")
    with pytest.raises(ArchiveError, match="ambiguous") as caught:
        stored.entry("soft")
    for fact in (first.short_id, second.short_id, "in one", "in two"):
        assert fact in str(caught.value)
    assert stored.entry("soft", "one").candidate == first
    assert stored.entry("soft", "two").candidate == second
    assert stored.proposal_of("soft", "two").candidate == second


def test_what_was_accepted_goes_before_its_refused_attempt_and_a_known_loss_before_both(stored: Archive) -> None:
    campaign = stored.start_campaign("one", {}, task=TASK, metric="score", higher_is_better=True).id
    enter(stored, campaign, 0, "soft", "x = 1\n", failure=Failure(FailureKind.STATIC, "no"))
    repaired = enter(stored, campaign, 1, "soft", "x = 2\n")
    assert stored.entry("soft").candidate == repaired
    known = enter(stored, campaign, 2, "soft", "x = 3\n", origin="known")
    assert stored.entry("soft").candidate == known


def test_an_id_cannot_be_hidden_behind_a_name(stored: Archive) -> None:
    campaign = stored.start_campaign("one", {}, task=TASK, metric="score", higher_is_better=True).id
    honest = enter(stored, campaign, 0, "honest", "x = 1\n")
    enter(stored, campaign, 1, honest.short_id, "x = 2\n")
    assert stored.entry(honest.short_id).candidate == honest
    short = enter(stored, campaign, 2, honest.id[:3], "x = 3\n")
    with pytest.raises(ArchiveError, match="ambiguous") as caught:
        stored.entry(honest.id[:3])
    assert honest.short_id in str(caught.value)
    assert short.short_id in str(caught.value)


def test_names_in_json_are_those_that_are_taken(archive: Path) -> None:
    listed = json.loads(discovery("candidates", "--archive", archive, "--json").stdout)
    plain = [e for e in listed if e["id"] not in (CRASHED.id, REFUSED.id)]
    for entry in plain:
        assert json.loads(discovery("show", entry["name"], "--archive", archive, "--json").stdout)["id"] == entry["id"]
