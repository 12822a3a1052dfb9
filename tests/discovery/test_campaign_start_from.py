"""Campaigns that begin with losses from files and from the archive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from db.archive import Archive, ArchiveError
from discovery.campaign import Campaign
from discovery.config import make_config
from discovery.progress import Event
from evaluators.objectives import known_objective
from evaluators.options import OptionsError
from tests.support.campaigns import kept, settings
from tests.support.command import discovery
from tests.support.losses import HEAD, MARGIN


def loss(lines: str) -> str:
    return f"{HEAD}{MARGIN}    return {lines}\n"


MINE = loss("F.softplus(-beta * d) + 0.3 * torch.exp(-beta * d / 7)")
CELL = """def cell(self, policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps):
    z = self.beta * (policy_chosen_logps - policy_rejected_logps - reference_chosen_logps + reference_rejected_logps)
    return 0.2 * torch.exp(-z) - 0.7 * F.logsigmoid(z)"""


def folder_of(path: Path) -> Path:
    """New losses, a copy of one, a known one at another beta, one that the probe refuses, and a baseline's own source."""
    path.mkdir()
    (path / "a_mine.py").write_text(MINE)
    (path / "b_twin.py").write_text(MINE.replace("/ 7", "/ 7.0"))
    (path / "c_dpo.py").write_text(loss("F.softplus(-2 * beta * d)"))
    (path / "d_flat.py").write_text(loss("d * 0"))
    (path / "e_dpo_itself.py").write_text(known_objective("preference.pairs", "dpo").candidate.source)
    (path / "tests.json").write_text(json.dumps([{"name": "cell", "code": CELL}]))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def ran(folder) -> tuple[Path, list[Event]]:
    """A finished campaign that started from a folder and from an imported collection, run twice."""
    losses = folder_of(folder / "losses")
    other = folder / "other.py"
    other.write_text(loss("torch.relu(1 - beta * d) ** 2 + 0.1 * torch.exp(-beta * d)"))
    assert discovery("import", other, "--as", "theirs", "--archive", folder / "archive.db").code == 0
    given = settings(folder, start_from=[str(losses), "theirs"], budget={"candidates": 2}, proposer={"kind": "evolve"})
    events: list[Event] = []
    for _ in range(2):
        result = Campaign(make_config(given), events.append).run()
        assert result.status == "finished"
    return folder / "archive.db", events


def test_what_was_given_is_trained_on_the_same_seeds_before_anything_is_proposed(ran):
    found = kept(ran[0])
    imported = [p for p in found.proposals if p.origin == "imported"]
    assert [p.name for p in imported if p.failure is None] == ["a_mine", "cell", "other"]
    assert {p.index for p in imported} == set(range(2, 8))  # after the two baselines
    for proposal in imported:
        seeds = sorted(t.seed for t in found.of(proposal))
        assert seeds == ([0, 1] if proposal.failure is None else [])
    proposed = [p for p in found.proposals if p.origin == "proposed"]
    assert min(p.index for p in proposed) == 8


def test_copies_and_refused_ones_are_recorded_with_the_reason(ran):
    found = kept(ran[0])
    assert str(found.named("b_twin").failure) == "DUPLICATE: behaves like (a_mine)"
    assert found.named("b_twin").duplicate_of == found.named("a_mine").candidate.id
    assert str(found.named("c_dpo").failure) == "DUPLICATE: behaves like a known loss: (dpo, beta x 2)"
    assert found.named("d_flat").failure.kind == "CONTRACT"
    assert any(e.kind == "refused" and "d_flat, to start from" in e.text for e in ran[1])


def test_they_count_towards_no_budget(ran):
    found = kept(ran[0])
    assert len([p for p in found.proposals if p.origin == "proposed" and p.failure is None]) == 2


def test_a_second_run_repeats_nothing(ran):
    found = kept(ran[0])
    names = [p.name for p in found.proposals if p.origin in ("known", "imported")]
    assert len(names) == len(set(names)) == 8
    assert found.attempts == len(found.trials)


def test_they_are_parents_like_any_other(ran):
    """Ranked, listed, and no baselines: a discovery is compared with known losses."""
    with Archive(ran[0]) as archive:
        ranked = {e.name: e for e in archive.top("small", 20)}
    assert {"a_mine", "cell", "other", "dpo", "hinge"} <= set(ranked)
    assert ranked["cell"].origin == "imported"


def test_a_baseline_s_own_source_is_no_second_loss(ran):
    assert "e_dpo_itself" not in {p.name for p in kept(ran[0]).proposals}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.py", f"import os\n{MINE}", "bad.py:1: imports os"),
        ("x.json", '[{"name": "a"}]', "not an object with the texts name and code"),
        ("y.json", "{", "is not JSON"),
    ],
)
def test_a_wrong_file_ends_it_before_anything_starts(name, content, said, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(OptionsError, match=said):
        Campaign(make_config(settings(tmp_path, start_from=[str(tmp_path / name)])))
    assert not (tmp_path / "archive.db").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "is no file or folder, and no other campaign"),
        ("zzzz", "is no file or folder, and no other campaign"),
        ("ab", "has no candidate 'ab'"),
    ],
)
def test_a_name_that_is_nothing_ends_it_before_the_campaign_is_written(name, said, tmp_path):
    given = settings(tmp_path, start_from=[name], proposer={"kind": "evolve"})
    with pytest.raises((OptionsError, ArchiveError), match=said):
        Campaign(make_config(given)).run()
    with Archive(tmp_path / "archive.db") as archive:
        assert archive.campaigns() == []
