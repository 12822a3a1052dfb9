"""Losses that are told more than labels: marked wherever they stand, compared with their like, leading no others."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from db.archive import Archive
from db.records import EntryFilter, Proposal, Score
from discovery import contest
from discovery.browse.campaign_stats import campaign_stats
from discovery.browse.following import Follower
from discovery.browse.pareto import tradeoff
from discovery.browse.standing import board
from discovery.cli.bench import as_markdown, ranked
from discovery.config import PromotionConfig
from discovery.gathering import of_archived
from discovery.leaderboard import TOP, StageBoard
from discovery.progress import Progress
from discovery.prompts.builder import PromptBuilder, PromptContext
from discovery.protocols import Outcome, Plan
from discovery.ranking import Comparison, leaderboard
from discovery.search import Search
from discovery.stages import promoted
from discovery.strategies.conversation import ConversationStrategy
from evaluators.base import MetricSpec
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from tests.support.command import discovery
from tests.support.mixed_archive import LOSSES, PLAIN, SEEDS, TOLD, TOLD_TOO, make_mixed, reading

TOLD_NAMES, PLAIN_NAMES = {"told_scores", "told_softly", "odpo", "mappo"}, {"plain_one", "plain_two", "dpo", "ipo"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mixed(tmp_path_factory.mktemp("mixed") / "mixed.db")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No baseline is privileged, some losses are."""
    return make_mixed(tmp_path_factory.mktemp("labels") / "labels.db", ("dpo", "ipo"))


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All baselines are privileged, some losses are not."""
    return make_mixed(tmp_path_factory.mktemp("about") / "about.db", ("odpo", "mappo"))


# --- what is privileged


def test_it_follows_from_the_parameters_and_not_from_the_text() -> None:
    assert check_source(TOLD, PAIRS).privileged == ("chosen_score", "rejected_score")
    assert check_source(TOLD_TOO, PAIRS).privileged == ("preference_probability",)
    talks = PLAIN.source.replace("import torch\n", '"""Beats chosen_score."""\n\nimport torch\n')
    talks = talks.replace("margin", "rejected_score")
    for source in (talks, reading(("chosen_length", "progress", "running_log_ratio"), 1.0).source):
        found = check_source(Candidate(PAIRS.name, source), PAIRS)
        assert (found.accepted, found.privileged) == (True, ())


def test_the_known_ones_that_are() -> None:
    library = {n: o for c in (PAIRS, UNPAIRED) for n, o in known_objectives(c.name).items()}
    assert {n: o.privileged for n, o in library.items() if o.privileged} == {
        "odpo": ("chosen_score", "rejected_score"),
        "mappo": ("chosen_score", "rejected_score"),
        "qrpo": ("score_quantile",),
    }
    assert UNPAIRED.privileged_of(("score", "length", "beta")) == ("score",)


# --- where they stand


@pytest.mark.parametrize("columns", ["80", "140"])
@pytest.mark.parametrize(
    "command",
    [
        ("leaderboard", "mixed"),
        ("leaderboard", "mixed", "--regimes"),
        ("candidates", "--campaign", "mixed"),
        ("candidates", "--campaign", "mixed", "--sort", "final_kl"),
        ("lineage", "told_scores"),
        ("tail", "mixed", "--lines", "200"),
        ("stats", "mixed"),
    ],
    ids=" ".join,
)
def test_no_score_of_one_stands_unmarked(
    mixed: Path, command: tuple[str, ...], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ended = discovery(*command, "--archive", mixed)
    assert ended.code == 0, ended.stderr
    said = 0
    for line in ended.stdout.splitlines():
        first = next(iter(re.findall(r"\b(?:told|plain)_[a-z]+\b|\b(?:i|d|od|map)po\b", line)), None)
        if first is not None and re.search(r"\d\.\d{3}", line):
            said += 1
            assert ("privileged" in line) == (first in TOLD_NAMES), line
    assert said


def test_one_and_two_beside_each_other(mixed: Path) -> None:
    shown = discovery("show", "told_softly", "--archive", mixed).stdout
    assert "it reads preference_probability, which tells more than labels do" in shown
    assert "privileged" not in discovery("show", "plain_one", "--archive", mixed).stdout
    unlike = discovery("compare", "dpo", "told_scores", "--archive", mixed).stdout
    assert "is privileged: it reads chosen_score, rejected_score" in unlike
    assert "not compared like with like" in unlike
    assert unlike.count(", unlike") == 4
    for pair in (("odpo", "told_scores"), ("dpo", "plain_one")):
        assert "like" not in discovery("compare", *pair, "--archive", mixed).stdout


def test_values_for_programs(mixed: Path) -> None:
    listed = json.loads(discovery("candidates", "--campaign", "mixed", "--json", "--archive", mixed).stdout)
    reads = {e["name"]: e["privileged"] for e in listed}
    assert {n for n, names in reads.items() if names} == TOLD_NAMES
    assert reads["told_scores"] == ["chosen_score", "rejected_score"]
    rows = csv.DictReader(io.StringIO(discovery("candidates", "--csv", "--archive", mixed).stdout))
    assert {r["name"]: r["privileged"] for r in rows}["told_scores"] == "chosen_score rejected_score"
    found = json.loads(discovery("leaderboard", "mixed", "--json", "--archive", mixed).stdout)
    assert found["about_privileged"] is False
    versus = {r["name"]: (r["versus"], r["alike"], bool(r["privileged"])) for r in found["stages"][0]["rows"]}
    assert versus["told_scores"] == versus["mappo"] == ("odpo", True, True)
    assert versus["plain_two"] == versus["ipo"] == ("dpo", True, False)
    compared = json.loads(discovery("compare", "dpo", "told_scores", "--json", "--archive", mixed).stdout)
    assert compared["others"][0]["alike"] is False


def test_it_is_a_fact_to_filter_and_sort_by(mixed: Path) -> None:
    with Archive(mixed) as archive:
        told = archive.entries("mixed", EntryFilter(where='privileged == "yes" and not origin == "known"'))
        assert [e.name for e in told] == ["told_scores", "told_softly"]
        plain = archive.entries("mixed", EntryFilter(where='privileged != "yes"'))
        assert {e.name for e in plain} == PLAIN_NAMES
        assert {e.name for e in archive.entries("mixed", EntryFilter(privileged=True))} == TOLD_NAMES
    ended = discovery("candidates", "--where", 'privileged == "maybe"', "--archive", mixed)
    assert ended.code == 2
    assert "privileged is never 'maybe'" in ended.error


def test_exports_say_so(mixed: Path) -> None:
    pytest.importorskip("matplotlib")
    told = discovery("export", "told_scores", "--archive", mixed).stdout
    assert "privileged: it reads chosen_score, rejected_score, which tell more than labels do" in told
    assert "Better than the leading privileged baseline" in told
    assert re.search(r"minus dpo .*, better, unlike\n", told)
    assert re.search(r"minus odpo .*, better\n", told)
    assert "privileged" not in discovery("export", "plain_one", "--archive", mixed).stdout.replace("told_", "")
    record = json.loads(discovery("export", "told_scores", "--format", "json", "--archive", mixed).stdout)
    assert record["privileged"] == ["chosen_score", "rejected_score"]


def test_a_card_says_so(mixed: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ended = discovery("export", "told_scores", "--format", "card", "-o", tmp_path / "card.md", "--archive", mixed)
    assert ended.code == 0, ended.stderr
    card = (tmp_path / "card.md").read_text()
    assert "**It is privileged**: it reads `chosen_score`, `rejected_score`" in card
    assert re.search(r"\| `dpo` \|.*, unlike \|", card)
    assert not re.search(r"\| `odpo` \|.*, unlike \|", card)
    assert "| of these tell more than labels do | `chosen_score`, `rejected_score` |" in card


def test_the_library_marks_them() -> None:
    listed = discovery("objectives").stdout
    assert "odpo (privileged)" in listed
    assert "privileged: reads scores or soft labels" in " ".join(listed.split())
    values = {o["name"]: o["privileged"] for o in json.loads(discovery("objectives", "--json").stdout)}
    assert values["dpo"] == []
    assert "it reads chosen_score, rejected_score" in discovery("objectives", "show", "mappo").stdout
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
    assert "| `odpo` | F2 | 2024 | `chosen_score`, `rejected_score` (privileged) |" in page


def test_one_measured_or_checked_by_itself_says_so(tmp_path: Path) -> None:
    task = ("--evaluator", "benchmarks.sleep_evaluator:SleepEvaluator", "--set", "seconds=0.01", "--seeds", "1")
    told = discovery("evaluate", "odpo", *task)
    assert told.code == 0, told.stderr
    assert "privileged: odpo reads chosen_score, rejected_score" in told.stdout
    assert "privileged" not in discovery("evaluate", "dpo", *task).stdout
    assert json.loads(discovery("evaluate", "mappo", *task, "--json").stdout)["privileged"] != []
    (tmp_path / "told.py").write_text(TOLD_TOO.source)
    assert "it reads preference_probability" in " ".join(discovery("check", tmp_path / "told.py").stdout.split())


# --- compared with their like


def rows_of(path: Path) -> dict[str, Any]:
    with Archive(path) as archive:
        return {row.entry.name: row for row in board(archive, "mixed").stages[0].rows}


def test_each_is_compared_with_the_leading_baseline_of_its_kind(mixed: Path) -> None:
    rows = rows_of(mixed)
    assert {n for n, r in rows.items() if r.leads} == {"dpo", "odpo"}
    for name, row in rows.items():
        assert row.alike
        assert row.versus == (None if row.leads else "odpo" if name in TOLD_NAMES else "dpo")
    with Archive(mixed) as archive:
        dossier = of_archived(archive, archive.entry("told_scores"), PAIRS)
    assert [(c.name, c.alike) for c in dossier.measurements[0].versus] == [
        ("odpo", True), ("mappo", True), ("dpo", False), ("ipo", False),
    ]  # fmt: skip


def test_without_a_baseline_of_its_kind_it_is_said_not_to_be_like_with_like(labels: Path, about: Path) -> None:
    rows = rows_of(labels)
    assert {n: (r.versus, r.alike) for n, r in rows.items() if n.startswith(("told", "plain"))} == {
        "told_scores": ("dpo", False), "told_softly": ("dpo", False), "plain_one": ("dpo", True), "plain_two": ("dpo", True),
    }  # fmt: skip
    rows = rows_of(about)
    assert (rows["plain_one"].versus, rows["plain_one"].alike) == ("odpo", False)
    shown = discovery("leaderboard", "mixed", "--archive", labels).stdout
    assert "better, unlike, privileged" in shown
    assert "not like with like" in " ".join(shown.split())
    exported = discovery("export", "told_scores", "--archive", labels).stdout
    assert "not like with like" in " ".join(exported.split())
    with Archive(labels) as archive:
        assert "unlike" in of_archived(archive, archive.entry("told_scores"), PAIRS).standing
        assert "unlike" not in of_archived(archive, archive.entry("plain_one"), PAIRS).standing


def test_many_of_one_kind_do_not_push_the_other_off_the_board(mixed: Path) -> None:
    with Archive(mixed) as archive:
        entries = {e.name: e for e in archive.entries("mixed")}

    def another(index: int) -> Any:
        candidate = reading(("chosen_score",), 3 + index / 8)
        assert entries["told_scores"].score is not None
        return replace(entries["told_scores"], candidate=candidate, name=f"told_{index}")

    crowd = [another(i) for i in range(TOP + 5)]
    rows = leaderboard([*crowd, entries["plain_two"]], [entries["dpo"]], Comparison(0.005), TOP)
    assert [r.entry.name for r in rows][-1] == "plain_two"
    assert len(rows) == TOP + 2


def test_bench_has_a_reference_of_each_kind(mixed: Path) -> None:
    with Archive(mixed) as archive:
        stage = board(archive, "mixed").stages[0]
    known = StageBoard(**{**vars(stage), "rows": tuple(r for r in stage.rows if r.is_baseline)})
    result: Any = SimpleNamespace(board=SimpleNamespace(stages=(known,)))
    lines = {line.name: line for line in ranked(result, ("dpo", "ipo", "odpo", "mappo"), "preference.enumerable")}
    assert {n: (line.versus, line.alike) for n, line in lines.items()} == {
        "dpo": (None, True), "ipo": ("dpo", True), "odpo": (None, True), "mappo": ("odpo", True),
    }  # fmt: skip
    text = as_markdown(result, list(lines.values()), {"broken": "it failed"})
    table = text.split("\n\n")[0].splitlines()
    assert len({row.count("|") for row in table}) == 1
    assert "| mappo (privileged) |" in text
    assert "privileged: reads scores or soft labels" in text
    few = {line.name: line for line in ranked(result, ("dpo", "mappo"), "preference.enumerable")}
    assert (few["mappo"].versus, few["mappo"].verdict[-8:]) == ("dpo", ", unlike")


# --- what leads


def test_the_rule() -> None:
    dpo, odpo = (known_objectives(PAIRS.name)[n] for n in ("dpo", "odpo"))
    assert not contest.is_about_privileged([])
    assert not contest.is_about_privileged([dpo, odpo])
    assert contest.is_about_privileged([odpo])
    assert contest.competes(dpo, about_privileged=False)
    assert not contest.competes(odpo, about_privileged=False)
    assert contest.competes(odpo, about_privileged=True)


@pytest.mark.parametrize(
    ("archive_of", "leader", "baseline", "chosen"),
    [
        ("mixed", "plain_one", "dpo", ["plain_one", "plain_two"]),
        ("labels", "plain_one", "dpo", ["plain_one", "plain_two"]),
        ("about", "told_scores", "odpo", ["told_scores", "told_softly"]),
    ],
)
def test_what_leads_is_of_the_kind_that_the_campaign_is_about(
    archive_of: str, leader: str, baseline: str, chosen: list[str], request: pytest.FixtureRequest
) -> None:
    with Archive(request.getfixturevalue(archive_of)) as archive:
        led = board(archive, "mixed").leader
        assert led is not None
        assert led.name == leader
        stats = campaign_stats(archive, "mixed")
        assert (stats.leaders[-1].name, stats.baselines[0].name) == (leader, baseline)
        assert stats.apart is not None
        assert bool(stats.apart.privileged) != stats.about_privileged
        news = Follower(archive, "mixed").look()
        assert news.leader is not None
        assert news.leader.name == leader
        settings = PromotionConfig(evaluator="preference.enumerable", seeds=2, top=3, baselines=(baseline,))
        found = promoted(archive, archive.campaign("mixed").id, PAIRS.name, settings)
        assert [e.name for e in found] == [baseline, *chosen]
        front = tradeoff(archive, "mixed", "final_kl", "frontier").front
        assert {bool(p.candidate.privileged) for p in front} == {stats.about_privileged}
        top = contest.leader_of_campaign(archive, "mixed")
        assert top is not None
        assert bool(top.privileged) == stats.about_privileged


def test_where_only_the_other_kind_is_ranked_nothing_leads(tmp_path: Path) -> None:
    path = make_mixed(tmp_path / "told.db", ("dpo",), ("told_scores",))
    with Archive(path) as archive:
        assert board(archive, "mixed").leader is None
        settings = PromotionConfig(evaluator="preference.enumerable", seeds=2, top=3, baselines=("dpo",))
        assert [e.name for e in promoted(archive, archive.campaign("mixed").id, PAIRS.name, settings)] == ["dpo"]
    said = discovery("stats", "mixed", "--archive", path).stdout
    assert "no loss is ranked yet that may lead" in said
    assert "apart from these, the leading privileged loss" in said


# --- while it runs


def scored(index: int, name: str, score: float, about_privileged: bool = False, origin: Any = "proposed") -> Outcome:
    gate = check_source(LOSSES[name], PAIRS)
    proposal = Proposal(index, origin, "openai", name, f"idea of {name}", candidate=LOSSES[name], gate=gate)
    apart = not contest.competes(gate, about_privileged)
    return Outcome(proposal, Score("frontier", True, dict.fromkeys(SEEDS, score)), apart=apart)


@pytest.mark.parametrize("about_privileged", [False, True])
def test_watchers_and_the_strategy_hear_which_losses_compete(about_privileged: bool) -> None:
    told: list[Outcome] = []
    strategy = SimpleNamespace(tell=told.append)
    stage = SimpleNamespace(metric="frontier", higher_is_better=True)
    progress = Progress()
    parts = SimpleNamespace(strategy=strategy, stage=stage, progress=progress, about_privileged=about_privileged)
    search: Any = SimpleNamespace(parts=parts)
    origins = {"told_softly": "known", "plain_two": "known", "plain_one": "proposed", "told_scores": "proposed"}
    for index, (name, origin) in enumerate(origins.items()):
        one = scored(index, name, 0.5 + index / 8, origin=origin)
        assert one.score is not None
        Search.report(search, one.proposal, SimpleNamespace(failure=None, by_seed=one.score.by_seed))  # type: ignore[arg-type]
    kind = "told" if about_privileged else "plain"
    assert progress.leader is not None
    assert progress.leader[0].startswith(kind)
    assert [n for n in progress.baselines if not n.startswith(kind)] == []
    assert [o.apart for o in told] == [not o.proposal.name.startswith(kind) for o in told]


def test_the_strategy_builds_on_those_that_compete_first() -> None:
    strategy = ConversationStrategy({"explore": 0.0, "full": 3}, 0)
    scores = {"told_scores": 0.9, "plain_two": 0.4, "told_softly": 0.8, "plain_one": 0.5}
    for index, (name, score) in enumerate(scores.items()):
        strategy.tell(scored(index, name, score))
    plan = strategy.ask(0)
    assert [p.name for p in plan.in_full] == ["plain_one", "plain_two", "told_scores"]
    assert [p.name for p in plan.in_brief] == ["told_softly"]


def prompt_of(plan: Plan, about_privileged: bool = False) -> str:
    metric = MetricSpec("frontier", True, "ratio", "the area")
    context = PromptContext(PAIRS, metric, "A task.", about_privileged=about_privileged)
    return "\n".join(part.text for part in PromptBuilder(context).build(plan).parts)


def test_prompts_mark_inputs_and_losses_and_name_the_best_that_competes() -> None:
    strategy = ConversationStrategy({"explore": 0.0}, 0)
    for index, (name, score) in enumerate((("told_scores", 0.9), ("plain_one", 0.5))):
        strategy.tell(scored(index, name, score))
    text = prompt_of(strategy.ask(0))
    for tensor in PAIRS.tensors:
        (line,) = (one for one in text.splitlines() if one.startswith(f"- `{tensor.name}`"))
        assert ("; privileged." in line) == tensor.privileged
    assert "### Loss with score 0.9000 (3 seeds), privileged\n" in text
    assert "### Loss with score 0.5000 (3 seeds)\n" in text
    assert "The best of these is\n```text\nplain_one: score 0.5000 (3 seeds)\n```" in text
    assert "This search is for losses that see labels alone" in text
    assert "This search is for privileged losses" in prompt_of(Plan(0, 0), about_privileged=True)


def test_a_prompt_with_nothing_but_the_other_kind_names_no_best() -> None:
    strategy = ConversationStrategy({}, 0)
    strategy.tell(scored(0, "told_scores", 0.9))
    assert "No loss that competes has a score yet." in prompt_of(strategy.ask(0))
