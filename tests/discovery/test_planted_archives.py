"""Every command that reads an archive, on archives that somebody made to hang, fill or mislead whoever opens them."""

from __future__ import annotations

import asyncio
import io
import shutil
import signal
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from db.archive import Archive, ArchiveError
from db.arrays import BROKEN, MAX_UNPACKED, unpack_arrays
from db.checking import check
from db.limits import reads_within
from discovery.web.turns import Turns
from tests.support.command import Ended, discovery
from tests.support.dashboard import ask, dashboard
from tests.support.planted import ENDLESS, FOREIGN, ODD, array_claiming, bomb, changed, many_members
from tests.support.postgres import new_database
from tests.support.small_archive import CRASHED, REFUSED, WINNER, make_archive

SECONDS = 60  # on a very busy machine; each takes far less than one
WORST = (  # of each sort one; the others together take as long as all other tests
    "endless campaigns", "deep configuration", "arrays that unpack to a gigabyte", "large bytes", "infinite metrics",
    "reports of another form",
)  # fmt: skip
ID = WINNER.short_id
READING: dict[str, list[str]] = {
    "campaigns": ["campaigns"],
    "campaigns as JSON": ["campaigns", "--json"],
    "candidates": ["candidates", "--where", "score > 0.1", "--sort", "created"],
    "candidates as CSV": ["candidates", "--csv"],
    "candidates found": ["candidates", "--search", "winner"],
    "show": ["show", ID, "--prompt", "--reply"],
    "show a refused one": ["show", REFUSED.short_id],
    "show as JSON": ["show", ID, "--json"],
    "compare": ["compare", ID, CRASHED.short_id],
    "lineage": ["lineage", ID, "--children"],
    "leaderboard": ["leaderboard", "small"],
    "stats": ["stats", "small"],
    "tail": ["tail", "small", "--every", "0.1"],
    "check": ["archive", "check"],
    "copy": ["archive", "copy", "FROM", "TO"],
    "upgrade": ["archive", "upgrade"],
}
PAGES = (
    "/", "/campaign?name=small", "/campaign/live?name=small", "/candidates", "/candidates?campaign=small&col=frontier",
    "/candidates?where=score+%3E+0.1&sort=score", f"/candidate/{ID}", f"/candidate/{CRASHED.short_id}",
    f"/candidate/{REFUSED.short_id}", f"/candidate/{ID}/lineage", f"/compare?id={ID}&id={CRASHED.short_id}",
    "/pareto?campaign=small",
)  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_archive(tmp_path_factory.mktemp("good") / "small.db")
    with changed(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def run(command: str, archive: Path) -> Ended:
    given = READING[command]
    if "FROM" in given:
        return discovery(*({"FROM": archive, "TO": archive.with_name("copy.db")}.get(word, word) for word in given))
    return discovery(*given, "--archive", archive)


def planted(good: Path, folder: Path, kind: str) -> Path:
    path = Path(shutil.copy(good, folder / "planted.db"))
    with changed(path) as connection:
        (FOREIGN | ODD)[kind](connection)
    return path


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_table_of_ours_is_refused_before_it_is_read(kind: str, good: Path, tmp_path: Path) -> None:
    path = planted(good, tmp_path, kind)
    for command in READING if kind in WORST else ("campaigns", "check", "copy", "upgrade"):
        started = time.monotonic()
        ended = run(command, path)
        assert ended.code == 2, (command, ended)
        assert "another's making" in ended.error
        assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in WORST else pytest.mark.slow) for k in ODD])
def test_odd_values_end_every_command_soon_and_in_one_line(kind: str, good: Path, tmp_path: Path) -> None:
    path = planted(good, tmp_path, kind)
    for command, given in READING.items():
        started = time.monotonic()
        ended = run(command, path)
        assert time.monotonic() - started < SECONDS, command
        allowed = (0, 1, 2) if given[:2] in (["archive", "check"], ["archive", "copy"]) else (0, 2)
        assert ended.code in allowed, (command, ended.stderr)
        is_told = ended.code == 0 or (ended.code == 1 and "check" in given)  # what is wrong is the result of a check
        assert ended.stderr == "" if is_told else ended.error.startswith("error: "), command
        assert len(ended.stdout) < 5_000_000


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in WORST else pytest.mark.slow) for k in ODD])
def test_odd_values_end_every_page_soon(kind: str, good: Path, tmp_path: Path) -> None:
    path = planted(good, tmp_path, kind)
    if (
        discovery("campaigns", "--archive", path).code == 2
        and "schema" in discovery("stats", "x", "--archive", path).stderr
    ):
        return  # it is not opened at all
    with dashboard(path) as running:
        for page in PAGES:
            started = time.monotonic()
            answer = ask(running, page)
            assert answer.status in (200, 404, 503), (page, answer.text)
            assert time.monotonic() - started < SECONDS, page


# a read that takes long


def slow_archive(path: Path) -> Path:
    """Nothing but our own tables, with so many rows that a question takes a while."""
    make_archive(path)
    with changed(path) as connection:
        rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n"
        connection.execute(
            "INSERT INTO proposals (campaign_id, number, state, origin, proposer, name, thought, created_at, judged_at) "
            f"SELECT 1, 1000 + i, 'judged', 'proposed', 'p' || i, 'n', 't', '2026-01-01', '2026-01-01' FROM ({rows})"
        )
    return path


def test_a_read_ends_when_its_time_is_over(tmp_path: Path) -> None:
    path = slow_archive(tmp_path / "slow.db")
    with Archive(path, read_limit_s=0.001) as archive:
        started = time.monotonic()
        with pytest.raises(ArchiveError, match="took longer than it may") as ended:
            archive.outcomes("small")
        assert ended.value.fault
        assert time.monotonic() - started < 5
    with Archive(path) as archive:
        assert len(archive.outcomes("small")) > 20_000
        with reads_within(0.0), pytest.raises(ArchiveError, match="took longer"):
            archive.campaigns()
        assert len(archive.campaigns()) == 1


def test_ctrl_c_during_a_long_statement_is_no_slow_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = make_archive(tmp_path / "small.db")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    for limit in (None, 60.0):
        with Archive(path, read_limit_s=limit) as archive:
            threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
            with pytest.raises(KeyboardInterrupt), archive._read() as connection:
                connection.exec_driver_sql(f"SELECT count(*) FROM ({ENDLESS} LIMIT 1000000000)")
            assert len(archive.campaigns()) == 1


def test_a_read_of_postgresql_ends_when_its_time_is_over(server: Any) -> None:
    url = new_database(server)
    with Archive(url, create=True) as archive, archive._read() as connection:
        with reads_within(0.2), pytest.raises(ArchiveError, match="took longer"), archive._read() as limited:
            limited.exec_driver_sql("SELECT pg_sleep(20)")
        connection.exec_driver_sql("SELECT pg_sleep(0.3)")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE campaigns RENAME TO hidden; CREATE VIEW campaigns AS SELECT * FROM hidden", "campaigns"),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(99); RETURN NEW; END'; "
            "CREATE TRIGGER slow BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION f()",
            "slow",
        ),
        ("CREATE RULE quiet AS ON INSERT TO trials DO INSTEAD NOTHING", "trials"),
        ("ALTER TABLE proposals ENABLE ROW LEVEL SECURITY", "proposals"),
        ("ALTER TABLE metrics ADD COLUMN more text GENERATED ALWAYS AS (repeat('x', 99)) STORED", "more"),
        ("ALTER TABLE metrics ADD CONSTRAINT c CHECK (length(repeat(name, 3)) > 0)", "c"),
        ("CREATE INDEX i ON campaigns (upper(name))", "campaigns"),
        ("CREATE TABLE child () INHERITS (campaigns)", "child"),
        ("ALTER TABLE tasks ALTER version SET DEFAULT length(repeat('x', 99))", "tasks"),
    ],
)
def test_what_is_no_table_of_ours_in_postgresql(server: Any, statement: str, named: str) -> None:
    url = new_database(server)
    Archive(url, create=True).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    for command in (["campaigns"], ["archive", "check"], ["archive", "upgrade"]):
        ended = discovery(*command, "--archive", url)
        assert ended.code == 2
        assert f"'{named}' in it is of another's making" in ended.error


def test_what_else_the_file_holds_is_nobodys_business(good: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(good, tmp_path / "beside.db"))
    with changed(path) as connection:
        connection.executescript(
            f"CREATE VIEW notes AS {ENDLESS}; CREATE TABLE recipes (a, b DEFAULT (random())); "
            "CREATE TRIGGER mine AFTER INSERT ON recipes BEGIN DELETE FROM recipes; END; "
            "CREATE INDEX of_my_own ON trials (seed, status);"
        )
    assert discovery("campaigns", "--archive", path).code == 0
    assert list(check(path)) == []


# many requests


def test_slow_requests_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.web.turns._WAIT_S", 0.2)

    async def at_once() -> list[object]:
        turns, slow = Turns(2), threading.Event()
        waiting = [asyncio.create_task(turns.take(lambda: slow.wait(20))) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = [asyncio.create_task(turns.take(lambda: "shown")) for _ in range(30)]
        ended = await asyncio.gather(*refused, return_exceptions=True)
        slow.set()
        await asyncio.gather(*waiting)
        return [*ended, await turns.take(lambda: "shown again")]

    *refused, after = asyncio.run(at_once())
    assert {getattr(r, "status_code", None) for r in refused} == {503}
    assert after == "shown again"


# arrays


@pytest.mark.parametrize("data", [array_claiming("(-1, -2)"), array_claiming("(3,)"), array_claiming("(1,)"), b"", b"PK",
                                  array_claiming("(2,)", "|O"), array_claiming("(10**6, 10**6)", "<S0"), many_members(),
                                  array_claiming("(2,)", "<f8", bytes(16) + b"x")])  # fmt: skip
def test_arrays_that_are_none(data: bytes) -> None:
    with pytest.raises(BROKEN):
        unpack_arrays(data)


def test_arrays_unpack_to_so_much_and_no_more() -> None:
    packed = bomb(MAX_UNPACKED // 2**20 + 1)
    assert len(packed) < 100_000
    tracemalloc.start()
    with pytest.raises(BROKEN):
        unpack_arrays(packed)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    right = array_claiming("(2,)", "<f8", np.array([1.5, -2.0]).tobytes())
    assert unpack_arrays(right)["loss"].tolist() == [1.5, -2.0]
    with np.load(io.BytesIO(right), allow_pickle=False) as loaded:
        assert loaded["loss"].tolist() == [1.5, -2.0]
