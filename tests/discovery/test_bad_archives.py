"""Every command that reads an archive, on everything that is no archive it can read: one line, exit code 2."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from db.archive import Archive
from tests.support.command import discovery
from tests.support.postgres import new_database
from tests.support.schemas import SAVED
from tests.support.small_archive import WINNER, make_archive

ID = WINNER.short_id
# where the archive's URL goes is "URL"; each would succeed, or say that the candidate is unknown, on a good archive
COMMANDS: Mapping[str, list[str]] = {
    "campaigns": ["campaigns", "--archive", "URL"],
    "candidates": ["candidates", "--archive", "URL", "--where", "score > 0.5"],
    "show": ["show", ID, "--archive", "URL"],
    "compare": ["compare", ID, ID, "--archive", "URL"],
    "lineage": ["lineage", ID, "--archive", "URL"],
    "tail": ["tail", "small", "--archive", "URL"],
    "leaderboard": ["leaderboard", "small", "--archive", "URL"],
    "stats": ["stats", "small", "--archive", "URL"],
    "nearest": ["nearest", ID, "--archive", "URL"],
    "export": ["export", ID, "--archive", "URL"],
    "evaluate": ["evaluate", ID, "--archive", "URL"],
    "run": ["run", "CONFIG", "--archive", "URL"],
    "import": ["import", "LOSS", "--archive", "URL"],
    "bench": ["objectives", "bench", "--seeds", "1", "--only", "dpo", "--archive", "URL"],
    "dashboard": ["dashboard", "--archive", "URL", "--port", "0"],
    "upgrade": ["archive", "upgrade", "--archive", "URL"],
    "check": ["archive", "check", "--archive", "URL"],
    "copy from": ["archive", "copy", "URL", "COPY"],
}
MAKING = {"run", "import", "bench"}  # make an archive where there is none


def corrupt(path: Path) -> None:
    shutil.copy(SAVED, path)
    with path.open("r+b") as file:  # the first page after its header: what the tables are
        file.seek(100)
        file.write(b"\xff" * 3_000)


def versioned(path: Path, version: str) -> None:
    shutil.copy(SAVED, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE archive_version SET version_num = ?", (version,))


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE recipes (id integer)")


FILES: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "there is no archive at"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "text": (lambda path: path.write_text("Dear diary, " * 500), "not an archive, or it is damaged"),
    "corrupt": (corrupt, "damaged: restore a backup"),
    "foreign": (foreign, "belongs to another program"),
    "newer": (lambda path: versioned(path, "9999"), "newer version .*pip install -U"),
    "older": (lambda path: versioned(path, "0001"), "older schema 0001: .*discovery archive upgrade"),
}
URLS = {
    "postgresql://me:hunter2@127.0.0.1:1/lab": "no database answers at .*check the host and the port",
    "postgresql://me:hunter2@no-such-host.invalid/lab": "no database answers at .*check the host's name",
    "postgresql://me:hunter2@127.0.0.1:99999/lab": "a port is a number",
    "postgresql://me:hunter2@127.0.0.1:1/lab?colour=red": "no such option",
    "postgresql:/me:hunter2@lab": "cannot read the archive URL",
    "mysql://me:hunter2@lab/lab": "an archive cannot live in 'mysql'",
    "env:NO_SUCH_VARIABLE": "which is not set",
}


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[[str, str], list[str]]:
    config, loss = tmp_path / "campaign.yaml", tmp_path / "a_loss.py"
    config.write_text(
        yaml.safe_dump(
            {
                "objective": {"evaluator": "preference.enumerable", "seeds": 1},
                "proposer": {"kind": "evolve"},
                "budget": {"candidates": 1},
            }
        )
    )
    loss.write_text(WINNER.source)
    places = {"CONFIG": str(config), "LOSS": str(loss), "COPY": str(tmp_path / "copy.db")}
    return lambda command, url: [{"URL": url, **places}.get(word, word) for word in COMMANDS[command]]


def refusal(given: list[str]) -> str:
    ended = discovery(*given)
    assert ended.code == 2, ended.stderr
    assert ended.stdout == "" or given[0] in ("run", "objectives")  # these have said what they are about to do
    assert "hunter2" not in ended.error
    return ended.error


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_archive_is_refused_by_every_command(
    command: str, kind: str, tmp_path: Path, arguments: Callable[[str, str], list[str]]
) -> None:
    if (kind == "missing" and command in MAKING) or (kind == "older" and command == "upgrade"):
        return
    path, (make, said) = tmp_path / "an archive.db", FILES[kind]
    make(path)
    before = path.read_bytes() if path.is_file() else None
    assert re.search(said, refusal(arguments(command, str(path))))
    assert before == (path.read_bytes() if path.is_file() else None)
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_url_is_refused_by_every_command(
    command: str, url: str, arguments: Callable[[str, str], list[str]]
) -> None:
    assert re.search(URLS[url], refusal(arguments(command, url)))


@pytest.fixture(scope="module")
def databases(server: Any) -> Iterator[dict[str, tuple[str, str]]]:
    """URLs in a real PostgreSQL server by what is wrong with them, and what is said."""
    import psycopg

    def prepared(*statements: str) -> str:
        url = new_database(server)
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()
        return url

    version = "CREATE TABLE archive_version (version_num varchar(32)); INSERT INTO archive_version VALUES ('%s')"
    good = new_database(server)
    Archive(good, create=True).close()
    access = Path(server.pgdata) / "pg_hba.conf"
    before = access.read_text()
    with psycopg.connect(server.get_uri(), autocommit=True) as admin:
        admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'correct'")
        access.write_text("local all guarded scram-sha-256\n" + before)
        admin.execute("SELECT pg_reload_conf()")
        as_guarded = good.replace("postgres:@", "guarded:hunter2@")
        assert as_guarded != good
        yield {
            "password": (as_guarded, "refused the password"),
            "no password": (good.replace("postgres:@", "guarded@"), "needs a password"),
            "user": (good.replace("postgres:@", "stranger:hunter2@"), "does not exist"),
            "database": (good.replace("/archive_", "/no_such_"), "does not exist"),
            "empty": (new_database(server), "holds no archive"),
            "foreign": (prepared("CREATE TABLE recipes (id integer)"), "belongs to another program"),
            "newer": (prepared(version % "9999"), "newer version"),
            "older": (prepared(version % "0001"), "older schema 0001: .*discovery archive upgrade"),
        }
        access.write_text(before)


@pytest.mark.parametrize("kind", ["password", "no password", "user", "database", "empty", "foreign", "newer", "older"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_archive_in_postgresql_is_refused_by_every_command(
    command: str, kind: str, databases: dict[str, tuple[str, str]], arguments: Callable[[str, str], list[str]]
) -> None:
    if (kind == "empty" and command in {*MAKING, "upgrade"}) or (kind == "older" and command == "upgrade"):
        return
    url, said = databases[kind]
    assert re.search(said, refusal(arguments(command, url)))


# on a good archive


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_archive(tmp_path_factory.mktemp("good") / "small.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:  # one that shares its first four digits
        (other,) = connection.execute("SELECT id FROM candidates WHERE id != ?", (WINNER.id,)).fetchone()
        twin = WINNER.id[:4] + ("0" if WINNER.id[4] != "0" else "1") + other[5:]
        connection.execute(
            "INSERT INTO candidates SELECT ?, contract, source, source_bytes, parameters, gate, probe, fingerprint, "
            "fingerprint_rows, created_at FROM candidates WHERE id = ?",
            (twin, other),
        )
    return path


@pytest.mark.parametrize("command", ["show", "compare", "lineage", "nearest", "export", "evaluate"])
@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (WINNER.id[:4], "ambiguous.*write one of these ids|two or more different"),
        ("0" * 12, "no candidate|no known objective|neither|two or more different"),
        ("g123", "no candidate|no known objective|neither|two or more different"),
    ],
)
def test_an_id_that_names_no_single_candidate(
    command: str, prefix: str, said: str, good: Path, arguments: Callable[[str, str], list[str]]
) -> None:
    given = [prefix if word == ID else word for word in arguments(command, str(good))]
    assert re.search(said, refusal(given))


@pytest.mark.parametrize(
    "where",
    ["", "(", "score >", "score > 0.5 and", "score > > 1", "1 < 2", "score = 1", "scor > 1", "name == dpo", "kl < 'x'",
     "score > 1e999", "((((score > 1)", "score > 1; drop table trials", "'", "score > 0.5\x00", "a" * 5_000],
)  # fmt: skip
@pytest.mark.parametrize("more", [[], ["--json"], ["--csv"]])
def test_a_malformed_filter(where: str, more: list[str], good: Path) -> None:
    refusal(["candidates", "--archive", str(good), "--where", where, *more])


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("tail", "smal", "did you mean 'small'"),
        ("stats", "smal", "did you mean 'small'"),
        ("leaderboard", "smal", "did you mean 'small'"),
        ("candidates", "--campaign=smal", "did you mean 'small'"),
        ("candidates", "--sort=scor", "did you mean 'score'"),
        ("candidates", "--status=rankd", "rankd"),
        ("candidates", "--limit=0", "limit"),
        ("show", f"{ID} --campaign=smal", "did you mean 'small'"),
        ("export", f"{ID} --campaign=smal", "did you mean 'small'"),
        ("export", f"{ID} --format=pyton", "did you mean 'python'"),
    ],
)
def test_a_name_that_is_not_there(command: str, wrong: str, said: str, good: Path) -> None:
    assert said in refusal([command, *wrong.split(), "--archive", str(good)])
