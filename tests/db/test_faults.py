"""Killed writers, full disks, read-only files, locks and readers beside a writer."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from db import engine
from db.archive import Archive, ArchiveError
from db.arrays import POINTS
from db.testing_values import TASK, proposal, report

WRITER = """
import sys
from pathlib import Path
import numpy as np
from db.archive import Archive
from db.testing_values import TASK, proposal, report

path, count = Path(sys.argv[1]), int(sys.argv[2])
with Archive(path, create=True) as archive:
    campaign = archive.start_campaign("c", {}, task=TASK, metric="score", higher_is_better=True).id
    done = {t.seed for t in archive.trials(proposal(0).candidate.id) if t.status == "done"}
    if not archive.proposals(campaign):
        archive.record_known(campaign, proposal(0, origin="known"))
    for seed in range(count):
        trial = archive.ensure_trial(campaign, proposal(0).candidate.id, TASK.id, seed)
        if trial.status == "done":
            continue
        attempt = archive.start_attempt(trial.id, "w")
        archive.finish_trial(trial.id, attempt, report(seed, seed / 10, curve=np.arange(200.0)))
        print(seed, flush=True)
print("end", flush=True)
"""


def start_writer(path: Path, count: int, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(count)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=limit,
    )  # fmt: skip


def campaign_in(archive: Archive) -> int:
    return archive.start_campaign("c", {}, task=TASK, metric="score", higher_is_better=True).id


def fill(archive: Archive, campaign: int) -> None:
    for index in range(1, 1000):
        archive.record_known(campaign, proposal(index, thought="x" * 5000))


def test_a_killed_writer_loses_nothing_finished(tmp_path: Path) -> None:
    path, count = tmp_path / "a.db", 80
    acknowledged: set[int] = set()
    for kill_after in (3, 25):
        writer = start_writer(path, count)
        assert writer.stdout is not None
        for _ in range(kill_after):
            acknowledged.add(int(writer.stdout.readline()))
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0]
        acknowledged |= {int(line) for line in rest.split()}
        with Archive(path) as archive:
            found = archive.trials(proposal(0).candidate.id)  # type: ignore[union-attr]
            assert len({t.seed for t in found}) == len(found)
            assert acknowledged <= {t.seed for t in found if t.status == "done"}
            assert all(len(t.metrics) == 2 for t in found if t.status == "done")
            assert all(archive.arrays(t.id)["curve"].size == POINTS for t in found if t.status == "done")
    writer = start_writer(path, count)
    out, errors = writer.communicate(timeout=120)
    assert out.endswith("end\n"), errors
    with Archive(path) as archive:
        found = archive.trials(proposal(0).candidate.id)  # type: ignore[union-attr]
        assert [(t.seed, t.status) for t in found] == [(seed, "done") for seed in range(count)]
        totals = archive.totals("c")
        assert totals.trials == {"done": count}
        assert count <= totals.attempts <= count + 2, "only what was interrupted ran again"
        (entry,) = archive.entries("c")
        assert entry.score is not None
        assert entry.score.mean == pytest.approx(sum(range(count)) / 10 / count)
        assert entry.trials_done == count


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = start_writer(path, 5)
    writer.communicate()
    with Archive(path) as archive:
        assert archive.totals("c").trials == {"done": 5}
        campaign = campaign_in(archive)
        with archive._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(ArchiveError, match=r"no disk space left .*: free some and run the same command") as caught:
            fill(archive, campaign)
        assert caught.value.fault
        assert archive.totals("c").trials == {"done": 5}
    with Archive(path) as archive:
        before = archive.totals("c").proposals
        archive.record_known(campaign_in(archive), proposal(2000))
        assert archive.totals("c").proposals == before + 1


def test_a_file_size_limit_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    out, errors = start_writer(path, 3000, limit).communicate(timeout=120)
    last = errors.strip().splitlines()[-1]
    assert "ArchiveError" in last
    assert "disk" in last
    with Archive(path) as archive:
        assert archive.totals("c").trials["done"] == len(out.split()) > 0


def test_a_read_only_archive_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Archive(path, create=True) as archive:
        campaign = campaign_in(archive)
        archive.record_known(campaign, proposal(0))
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    with Archive(url) as archive:
        assert len(archive.entries("c")) == 1
        with pytest.raises(ArchiveError, match="cannot be written: make the file and its folder writable"):
            archive.record_task(TASK, {})
    with pytest.raises(ArchiveError, match="cannot be written"):
        Archive(url, create=True)


def test_a_lock_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_BUSY_MS", 100)
    path = tmp_path / "a.db"
    with Archive(path, create=True) as archive:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveError, match="is locked by another program"):
            campaign_in(archive)
        assert archive.campaigns() == []
        other.execute("ROLLBACK")
        campaign_in(archive)


def test_a_reader_sees_whole_transactions_while_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = start_writer(path, 60)
    assert writer.stdout is not None
    writer.stdout.readline()
    seen, problems = [0], []
    with Archive(path) as archive:
        while writer.poll() is None:
            found = archive.trials(proposal(0).candidate.id)  # type: ignore[union-attr]
            seen.append(sum(t.status == "done" for t in found))
            problems += [t for t in found if (t.status == "done") != (len(t.metrics) == 2)]
            (entry,) = archive.entries("c")
            if entry.score is not None and entry.trials_done != len(entry.score.by_seed):
                problems.append(entry)
        writer.communicate()
    assert not problems
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "the reader must have watched the writer at work"


def test_threads_read_while_the_driver_writes(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.db", create=True) as archive:
        campaign = campaign_in(archive)
        errors: list[BaseException] = []
        stop = threading.Event()

        def read() -> None:
            try:
                while not stop.is_set():
                    archive.entries(campaign)
            except ArchiveError as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for index in range(60):
            archive.record_known(campaign, proposal(index))
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(archive.entries(campaign)) == 60


def test_several_processes_create_one_archive(tmp_path: Path) -> None:
    code = "import sys; from db.archive import Archive; Archive(sys.argv[1], create=True).close()"
    path = str(tmp_path / "a.db")
    several = [subprocess.Popen([sys.executable, "-c", code, path], stderr=subprocess.PIPE) for _ in range(3)]
    for process in several:
        assert process.communicate()[1] == b""
    Archive(path).close()


def test_a_failing_call_stores_nothing(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.db", create=True) as archive:
        campaign = campaign_in(archive)
        archive.record_known(campaign, proposal(0))
        with pytest.raises(ArchiveError):  # number 0 is taken; its prompt and parents must not stay behind
            archive.record_reply(campaign, replace(proposal(1), index=0, parents=("aa" * 32,)))
        with archive._read() as connection:
            for table, rows in (("proposal_parents", 0), ("prompts", 1), ("prompt_parts", 2)):
                assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == rows
        assert archive.ensure_trial(campaign, proposal(0).candidate.id, TASK.id, 0).id == 1  # type: ignore[union-attr]
        with pytest.raises(ArchiveError, match="does not exist"):
            archive.finish_trial(99, 1, report(0, 0.5))
