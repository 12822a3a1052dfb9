"""Whatever text an archive holds, in whatever column, no command and no page passes on what acts on a screen."""

from __future__ import annotations

import ast
import io
import json
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from rich.text import Text

import discovery as discovery_package
from db.models import metadata
from db.types import SafeText
from discovery.cli.streams import CleanStream, clean_streams
from discovery.cli.terminal import CleanConsole
from sandbox.candidate import Candidate
from sandbox.text import clean_text, one_line, visible
from tests.support.command import discovery
from tests.support.dashboard import Running, ask, dashboard
from tests.support.planted import changed
from tests.support.small_archive import CRASHED, REFUSED, WINNER, make_archive

ACTING = (
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://x\x1b\\\x9b31m\x90q\x9c\x00\x08\x0b\x0c\x7f\x85"  # escapes, C0, C1, DEL
    "\u202e\u202d\u2066\u2069\u200e\u061c\u200b\u200d\ufeff\u2060\u00ad\u2028\u2029\U000e0041\ue000\ufff9"
)
HOSTILE = f"h{ACTING}[red]o[/red]<script>alert(1)</script>" + "é" + "\u0301" * 50
NUL_FREE = HOSTILE.replace("\x00", "")  # no database stores it
KEPT = {  # columns with a few words of ours, which `test_words_of_ours` turns to
    "status", "state", "origin", "failure_kind", "process", "host", "evaluator", "metric", "contract",
}  # fmt: skip
ID = WINNER.short_id
WRITTEN = Candidate(REFUSED.contract, f"{REFUSED.source}# {NUL_FREE}\n")
NAME = f"small{NUL_FREE}"
COMMANDS: dict[str, list[str]] = {
    "campaigns": ["campaigns"],
    "campaigns json": ["campaigns", "--json"],
    "campaigns csv": ["campaigns", "--csv"],
    "candidates": ["candidates"],
    "candidates of one": ["candidates", "--campaign", NAME],
    "candidates json": ["candidates", "--json"],
    "candidates csv": ["candidates", "--csv", "--where", "frontier > 0"],
    "show": ["show", ID, "--prompt", "--reply"],
    "show json": ["show", ID, "--prompt", "--reply", "--json"],
    "show refused": ["show", WRITTEN.short_id],
    "show crashed": ["show", CRASHED.short_id],
    "compare": ["compare", ID, CRASHED.short_id],
    "compare json": ["compare", ID, CRASHED.short_id, "--json"],
    "lineage": ["lineage", ID, "--children"],
    "lineage json": ["lineage", ID, "--json"],
    "leaderboard": ["leaderboard", NAME],
    "leaderboard json": ["leaderboard", NAME, "--json"],
    "stats": ["stats", NAME],
    "stats json": ["stats", NAME, "--json"],
    "tail": ["tail", NAME],
    "tail json": ["tail", NAME, "--json"],
    "check": ["archive", "check"],
    "export": ["export", ID],
    "export json": ["export", ID, "--format", "json"],
    "export torch": ["export", ID, "--format", "torch"],
    "export card": ["export", ID, "--format", "card", "-o", "CARD"],
    "nearest": ["nearest", ID],
    "several of a name": ["show", f"same{NUL_FREE}"],
    "no such name": ["show", f"sam{NUL_FREE}"],
    "show by name": ["show", f"winner{NUL_FREE}"],
    "no such campaign": ["stats", f"nothing{ACTING}"],
    "no such filter": ["candidates", "--where", f"{ACTING} > 1"],
    "no such command": [f"sta{ACTING}"],
    "no such option": ["stats", f"--x{ACTING}"],
}


def acting(text: str) -> set[str]:
    """The characters of a text that do something to a screen instead of showing."""
    odd = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return {c for c in text if c not in "\n\t\r" and unicodedata.category(c) in odd}


def plant_texts(path: Path) -> None:
    """Hostile text in all columns that take any text, and in what JSON holds."""
    with changed(path) as connection:
        for table in metadata.sorted_tables:
            for column in table.columns:
                if isinstance(column.type, SafeText) and column.name not in KEPT and not column.primary_key:
                    connection.execute(
                        f'UPDATE {table.name} SET "{column.name}" = "{column.name}" || ? WHERE "{column.name}" NOT NULL',
                        (NUL_FREE,),
                    )
        connection.execute("UPDATE campaigns SET end_reason = ?, end_detail = ?", (NUL_FREE, NUL_FREE))
        connection.execute(
            "UPDATE proposals SET name = ? WHERE name IN ('dpo', 'ipo') OR number < 2", (f"same{NUL_FREE}",)
        )
        hostile = {"a" + NUL_FREE: [NUL_FREE]}
        connection.execute("UPDATE campaigns SET config = ?", (json.dumps(hostile),))
        connection.execute("UPDATE tasks SET facts = ?, options = ?", (json.dumps(hostile), json.dumps(hostile)))
        for table, key in (("candidates", "id"), ("standings", "candidate_id"), ("proposals", "candidate_id")):
            connection.execute(f"UPDATE {table} SET {key} = ? WHERE {key} = ?", (WRITTEN.id, REFUSED.id))
        connection.execute("UPDATE candidates SET source = ? WHERE id = ?", (WRITTEN.source, WRITTEN.id))
        violation = {"line": 1, "problem": NUL_FREE, "instead": NUL_FREE}
        gate = json.dumps({"parameters": [], "violations": [violation], "notes": [NUL_FREE]})
        connection.execute("UPDATE candidates SET gate = ? WHERE id = ?", (gate, WRITTEN.id))
        match = [{"name": NUL_FREE, "scale": 1, "distance": 0.5}]
        nearest = {"by_fingerprint": match, "by_curve": match}
        probe = {"failure": None, "properties": None, "facts": {NUL_FREE: 1}, "curve": [0.5, -0.5], "nearest": nearest}
        connection.execute("UPDATE candidates SET probe = ?", (json.dumps(probe),))
        mended = json.dumps({"parameters": [], "violations": [], "notes": [NUL_FREE]})
        connection.execute("UPDATE candidates SET gate = ? WHERE id = ?", (mended, WINNER.id))
        connection.execute("UPDATE trials SET details = ?", (json.dumps({"device": NUL_FREE, "versions": hostile}),))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_archive(tmp_path_factory.mktemp("hostile") / "small.db")
    plant_texts(path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_passes_on_what_acts_on_a_terminal(command: str, planted: Path, tmp_path: Path) -> None:
    given = [str(tmp_path / "card.md") if word == "CARD" else word for word in COMMANDS[command]]
    ended = discovery(*given, "--archive", planted)
    assert ended.code == 0 or command.startswith(("no such", "several")) or command == "check", ended.stderr
    assert acting(ended.stdout) == set()
    assert acting(ended.stderr) == set()
    assert ended.stdout + ended.stderr
    if command.endswith("json"):
        assert "\\u202e" in ended.stdout or "[red]" not in ended.stdout  # data keeps what it is, in ASCII
    for written in tmp_path.rglob("*.md"):
        assert acting(written.read_text()) == set()


def test_markup_is_shown_to_the_letter(planted: Path) -> None:
    assert "[red]o[/red]" in discovery("candidates", "--archive", planted).stdout


@pytest.fixture(scope="module")
def running(planted: Path) -> Iterator[Running]:
    with dashboard(planted) as found:
        yield found


def address(path: str) -> str:
    return path.replace("NAME", quote(NAME))


@pytest.mark.parametrize(
    "path",
    [
        "/", "/campaign?name=NAME", "/campaign/live?name=NAME", "/candidates", "/candidates?campaign=NAME",
        "/candidates?search=NAME", "/candidates?where=NAME", "/candidates?sort=NAME", "/candidates?status=NAME",
        f"/candidate/{ID}", f"/candidate/{WRITTEN.short_id}", f"/candidate/{CRASHED.short_id}", f"/candidate/{ID}/lineage",
        f"/compare?id={ID}&id={CRASHED.short_id}", "/pareto?campaign=NAME", "/pareto?campaign=NAME&x=NAME",
        f"/candidate/{ID}/export/python", f"/candidate/{ID}/export/json", f"/candidate/{ID}/export/NAME",
        "/candidate/NAME", "/campaign?name=noNAME", "/NAME",
    ],
)  # fmt: skip
def test_no_page_passes_on_what_acts_on_a_screen(path: str, running: Running) -> None:
    answer = ask(running, address(path))
    assert answer.status < 500, answer.text
    assert acting(answer.text) == set()
    assert all(acting(value) == set() and value.isascii() for value in answer.headers.values())
    if answer.headers["content-type"].startswith("text/html"):
        assert "<script>alert" not in answer.text
    if answer.headers["content-type"].startswith("application/json"):
        assert not any(acting(text) for text in texts_of(json.loads(answer.text)))


def texts_of(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *texts_of(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)
    elif isinstance(value, str):
        yield value


WORDS = [
    (table.name, column.name)
    for table in metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, SafeText) and (column.name in KEPT or column.primary_key)
]


@pytest.mark.slow
@pytest.mark.parametrize(("table", "column"), WORDS)
def test_words_of_ours_that_somebody_replaced(table: str, column: str, planted: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(planted, tmp_path / "words.db"))
    with changed(path) as connection:
        connection.execute(f'UPDATE OR IGNORE {table} SET "{column}" = "{column}" || ?', (NUL_FREE,))
    for given in COMMANDS.values():
        ended = discovery(*(word.replace("CARD", str(tmp_path / "card.md")) for word in given), "--archive", path)
        assert ended.code in (0, 1, 2)
        assert acting(ended.stdout + ended.stderr) == set(), given
        assert ended.code == 0 or given[0] == "archive" or len(ended.stderr.splitlines()) == 1, given


# the function that everything goes through, and what makes it do so


def test_what_acts_is_gone_and_the_rest_is_kept() -> None:
    assert acting(visible(HOSTILE)) == set()
    assert visible("a\tb\nc é 漢 🎲") == "a\tb\nc é 漢 🎲"
    assert visible("a\u2028b\u2029c") == "a\nb\nc"
    assert one_line("a\u2028b\n\nc\x85d") == "a b c d"
    assert visible("e" + "\u0301" * 40) == "e" + "\u0301" * 3
    assert len(clean_text("x" * 10_000, 100)) == 100


def test_nothing_makes_a_console_of_its_own() -> None:
    """Rich's own consoles pass everything on, and so does what makes one by itself."""
    package = Path(discovery_package.__file__ or "").parent
    for path in package.rglob("*.py"):
        if path != package / "cli" / "terminal.py":
            made = {_called(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
            assert not made & {"Console", "get_console"}, path
            assert "from rich import print" not in path.read_text(), path


def _called(node: ast.Call) -> str:
    function = node.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def test_printing_goes_through_it() -> None:
    out, err = io.StringIO(), io.StringIO()
    with clean_streams(out, err):
        print(HOSTILE)
    assert acting(out.getvalue()) == set()
    assert "[red]o[/red]" in out.getvalue()


def test_only_the_consoles_own_styles_act_on_a_terminal() -> None:
    out = io.StringIO()
    console = CleanConsole(CleanStream(out), 200, {"FORCE_COLOR": "1", "TERM": "xterm-256color"})  # type: ignore[arg-type]
    console.print(Text(HOSTILE, style="bold"))
    console.print(HOSTILE)
    shown = out.getvalue()
    assert "\x1b[1m" in shown
    for sequence in ("\x1b[2J", "\x1b]0", "\x1b]8", "\x07", "\x9b", "\u202e"):
        assert sequence not in shown
    assert "[red]o[/red]" in shown
