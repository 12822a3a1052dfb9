"""A made-up archive of any size, loaded in bulk: what `benchmarks.archive` reads and adds to.

Losses are published ones, each with a comment of its own. A tenth of them is refused and a twentieth fails in training; the
others have twelve finished trials with twenty metrics each. Only trials' arrays are left out, some 17 kB of each: nothing
that lists or searches reads them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection, Engine

from db import models as m
from db.archive import Archive
from db.convert import gate_json, probe_json, search_text
from db.messages import Prompt, PromptPart
from db.testing_values import TASK, proposal
from db.types import plain
from evaluators.objectives import known_objectives
from sandbox.candidate import Candidate

CAMPAIGN = "benchmark"
SEEDS = 12
WHOLE = ("score", "kl", "accuracy", "chosen_change", "reward", "margin", "entropy", "win_rate")
NAMES = (*WHOLE, *(f"score/part {i}" for i in range(12)))
NEEDLE = "log-sum-exp of everything"  # in the thought of one loss in a thousand

_START = datetime(2026, 1, 1, tzinfo=UTC)
_CHUNK = 2_000  # candidates
_ROWS, _ENTRIES = 6, 144  # of a fingerprint
_SENTENCE = "a smooth margin that saturates keeps the gradient of hard pairs alive while the policy stays close"
_WORDS = _SENTENCE.split()

Row = dict[str, Any]
Load = Callable[[sa.Table, Sequence[Row]], None]


@dataclass(frozen=True)
class Loss:
    """A candidate that is to be stored; `status` is that of its standing."""

    index: int
    candidate: Candidate
    thought: str
    parents: tuple[str, ...]
    status: str

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def proposal(self) -> int:
        return self.index + 1


def fill(archive: Archive, engine: Engine, count: int, seed: int, tell: Callable[[str], None]) -> int:
    """Fill an empty archive with `count` candidates; returns the id of the campaign, which `archive` drives."""
    started = archive.start_campaign(
        CAMPAIGN, {}, task=TASK, metric=NAMES[0], higher_is_better=True, seeds=range(SEEDS)
    )
    rng, draws = random.Random(seed), np.random.default_rng(seed)
    sources = [o.candidate.source for o in known_objectives("preference.pairs").values()]
    best: Sequence[str] = ()
    for start in range(0, count, _CHUNK):
        losses = [_loss(i, rng, sources, best) for i in range(start, min(start + _CHUNK, count))]
        best = [x.id for x in losses if x.status == "ranked"][:50] or best
        with engine.begin() as connection:
            load = _loader(connection)
            _load_proposals(load, started.id, losses, draws)
            _load_trials(load, started.id, losses, draws)
        tell(f"{start + len(losses):,} of {count:,} candidates")
    _settle(engine)
    return started.id


def _loss(index: int, rng: random.Random, sources: Sequence[str], best: Sequence[str]) -> Loss:
    thought = " ".join(rng.choices(_WORDS, k=rng.randint(10, 60)))
    if index % 1000 == 7:
        thought += f", by {NEEDLE}"
    return Loss(
        index=index,
        candidate=Candidate("preference.pairs", f"{rng.choice(sources)}\n# {index} {rng.random()}\n"),
        thought=thought,
        parents=tuple(rng.sample(best, k=min(len(best), rng.randint(0, 4)))),
        status="refused" if index % 10 == 3 else "failed" if index % 20 == 9 else "ranked",
    )


def _loader(connection: Connection) -> Load:
    """Stores rows of plain values, all with the same columns, as fast as the database takes them."""
    raw: Any = connection.connection.driver_connection

    def insert(table: sa.Table, rows: Sequence[Row]) -> None:
        names = ", ".join(rows[0])
        text = f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' for _ in rows[0])})"
        raw.executemany(text, ([_sqlite_value(v) for v in row.values()] for row in rows))

    def copy(table: sa.Table, rows: Sequence[Row]) -> None:
        with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(rows[0])}) FROM STDIN") as stream:
            for row in rows:
                stream.write_row(tuple(row.values()))

    def load(table: sa.Table, rows: Sequence[Row]) -> None:
        if rows:
            (insert if connection.dialect.name == "sqlite" else copy)(table, rows)

    return load


def _sqlite_value(value: Any) -> Any:
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


def _load_proposals(load: Load, campaign: int, losses: Sequence[Loss], draws: np.random.Generator) -> None:
    """Candidates with their reports, and the proposals that brought them, each with a prompt of six parts."""
    like = proposal(0)
    assert like.gate is not None
    assert like.probe is not None
    gate, probe = (json.dumps(plain(v)) for v in (gate_json(like.gate), probe_json(like.probe)))
    prints = draws.standard_normal((len(losses), _ENTRIES)).astype("<f8")
    load(m.candidates, [
        {
            "id": x.id, "contract": x.candidate.contract, "source": x.candidate.source,
            "parameters": '["policy_chosen_logps", "beta"]', "gate": gate, "probe": probe, "fingerprint": p.tobytes(),
            "fingerprint_rows": _ROWS, "created_at": _at(x.index),
        }
        for x, p in zip(losses, prints, strict=True)
    ])  # fmt: skip
    _load_prompts(load, losses)
    load(m.proposals, [
        {
            "id": x.proposal, "campaign_id": campaign, "number": x.index, "state": "judged", "origin": "proposed",
            "proposer": "openai", "name": f"loss {x.index}", "thought": x.thought, "prompt_id": x.proposal,
            "reply_text": f"{x.thought}\n```python\n{x.candidate.source}```", "reply_model": f"model {x.index % 3}",
            "reply_latency_s": 2.5, "reply_attempts": 1, "prompt_tokens": 4000, "completion_tokens": 600,
            "candidate_id": x.id, "failure_kind": "CRASH" if x.status == "refused" else None,
            "failure_message": "ValueError: no" if x.status == "refused" else None,
            "created_at": _at(x.index), "judged_at": _at(x.index, 3), "reply_cost": 0.01,
        }
        for x in losses
    ])  # fmt: skip
    load(m.proposal_texts, [
        {"proposal_id": x.proposal, "text": search_text(f"loss {x.index}", x.thought, x.candidate.source)} for x in losses
    ])  # fmt: skip
    load(m.proposal_parents, [
        {"proposal_id": x.proposal, "position": i, "parent_id": p} for x in losses for i, p in enumerate(x.parents)
    ])  # fmt: skip


def _load_prompts(load: Load, losses: Sequence[Loss]) -> None:
    parts = [[PromptPart("user", f"{x.index} {i} " + _SENTENCE * 3) for i in range(6)] for x in losses]
    load(m.prompt_parts, [{"sha256": p.sha256, "role": p.role, "text": p.text} for some in parts for p in some])
    wholes = [Prompt(tuple(some)) for some in parts]
    load(m.prompts, [{"id": x.proposal, "sha256": p.sha256} for x, p in zip(losses, wholes, strict=True)])
    load(m.prompt_links, [
        {"prompt_id": x.proposal, "position": i, "part_sha256": p.sha256}
        for x, some in zip(losses, parts, strict=True) for i, p in enumerate(some)
    ])  # fmt: skip


def _load_trials(load: Load, campaign: int, losses: Sequence[Loss], draws: np.random.Generator) -> None:
    """Trials of all that were accepted; a failed loss has one failed trial. Standings and means are those of the values."""
    values = draws.random((len(losses), SEEDS, len(NAMES)))
    load(m.standings, [_standing(campaign, x, v) for x, v in zip(losses, values, strict=True)])
    trained = [(x, v) for x, v in zip(losses, values, strict=True) if x.status != "refused"]
    load(m.trials, [_trial(campaign, x, seed) for x, _ in trained for seed in _seeds(x)])
    load(m.attempts, [
        {
            "trial_id": _trial_id(x, seed), "number": 1, "worker": f"slot {seed % 4}", "started_at": _at(x.index, 10),
            "ended_at": _at(x.index, 16 + seed), "failure_kind": "NON_FINITE" if x.status == "failed" else None,
            "failure_message": "not finite" if x.status == "failed" else None, "unconfined": False,
        }
        for x, _ in trained for seed in _seeds(x)
    ])  # fmt: skip
    ranked = [(x, v) for x, v in trained if x.status == "ranked"]
    load(m.metrics, [
        {
            "trial_id": _trial_id(x, seed), "name": name, "position": i, "value": float(v[seed, i]),
            "higher_is_better": name != "kl", "unit": "",
        }
        for x, v in ranked for seed in range(SEEDS) for i, name in enumerate(NAMES)
    ])  # fmt: skip
    load(m.means, [
        {"proposal_id": x.proposal, "name": name, "campaign_id": campaign, "value": float(v[:, i].mean())}
        for x, v in ranked for i, name in enumerate(WHOLE)
    ])  # fmt: skip


def _seeds(loss: Loss) -> range:
    return range(SEEDS if loss.status == "ranked" else 1)


def _trial_id(loss: Loss, seed: int) -> int:
    return loss.index * SEEDS + seed + 1


def _standing(campaign: int, loss: Loss, values: NDArray[np.float64]) -> Row:
    is_ranked, score = loss.status == "ranked", float(values[:, 0].mean())
    kind = {"refused": "CRASH", "failed": "NON_FINITE"}.get(loss.status)
    return {
        "campaign_id": campaign, "candidate_id": loss.id, "proposal_id": loss.proposal, "number": loss.index,
        "origin": "proposed", "proposer": "openai", "status": loss.status, "failure_kind": kind,
        "failure_message": None if kind is None else "not finite", "score": score if is_ranked else None,
        "sort_key": -score if is_ranked else None, "trials_done": SEEDS if is_ranked else 0,
        "trials_failed": int(loss.status == "failed"), "unconfined": False,
        "measured_at": _at(loss.index, 16 + SEEDS - 1) if is_ranked else None,
    }  # fmt: skip


def _trial(campaign: int, loss: Loss, seed: int) -> Row:
    has_failed = loss.status == "failed"
    details = {
        "timings": {"setup_s": 0.1, "train_s": 4.5, "evaluate_s": 0.4, "oracle_s": 0.3}, "device": "cpu", "threads": 1,
        "versions": {"torch": "2.13.0", "numpy": "2.3.0"}, "peak_memory_mb": 512.0, "oracle_calls": 200,
        "setup": {}, "sandbox": "full",
    }  # fmt: skip
    return {
        "id": _trial_id(loss, seed), "campaign_id": campaign, "task_id": TASK.id, "candidate_id": loss.id, "seed": seed,
        "status": "failed" if has_failed else "done", "attempts": 1, "failure_kind": "NON_FINITE" if has_failed else None,
        "failure_message": "not finite" if has_failed else None, "details": None if has_failed else json.dumps(details),
        "created_at": _at(loss.index, 9), "finished_at": _at(loss.index, 16 + seed),
        "device": None if has_failed else "cpu", "seconds": 6.0 + seed,
    }  # fmt: skip


def _at(index: int, seconds: int = 0) -> datetime:
    """Proposals come every five seconds."""
    return _START + timedelta(seconds=5 * index + seconds)


def _settle(engine: Engine) -> None:
    """What a database that grew slowly has: sequences behind the largest id, and statistics."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":
            for table in (m.proposals, m.prompts, m.trials):
                largest = f"(SELECT max(id) FROM {table.name})"
                connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {largest})")
            connection.exec_driver_sql("VACUUM ANALYZE")
