"""Archives as somebody else may have made them: each plants one thing in a copy of an ordinary archive."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np

from sandbox.reports import Properties
from tests.support.small_archive import WINNER

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
SLOW = "length(replace(hex(zeroblob(300000000)), '00', 'ab'))"
HUGE = 2**62
Plant = Callable[[sqlite3.Connection], object]


@contextmanager
def changed(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, open to anything that SQLite lets its owner do."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        yield connection


def rewritten(name: str, old: str, new: str) -> Plant:
    """A table's or index's text in the schema, replaced behind SQLite's back."""

    def plant(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA writable_schema=ON")
        changed_rows = connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ? AND instr(sql, ?)", (old, new, name, old)
        ).rowcount
        assert changed_rows == 1
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version={version + 1}")

    return plant


def in_place_of(table: str, made: str) -> Plant:
    """Something else by the name of a table."""

    def plant(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA legacy_alter_table=ON")
        connection.execute(f"ALTER TABLE {table} RENAME TO hidden")
        connection.executescript(made)

    return plant


def columns_of(table: str) -> str:
    """All columns of one of our tables, each an endless row's number."""
    from db.models import metadata

    return ", ".join(f"i AS {c.name}" for c in metadata.tables[table].columns)


def endless(table: str) -> Plant:
    return in_place_of(
        table, f"CREATE VIEW {table} AS {ENDLESS.replace('SELECT i FROM n', f'SELECT {columns_of(table)} FROM n')};"
    )


def said(statement: str, *values: object) -> Plant:
    """One statement that changes something."""

    def plant(connection: sqlite3.Connection) -> None:
        assert connection.execute(statement, values).rowcount != 0

    return plant


def bomb(megabytes: int = 1500) -> bytes:
    """An .npz of a few MB that unpacks to as many zeros."""
    header, packed = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (megabytes * 2**17,)}
    )
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("loss.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(megabytes):
            member.write(bytes(2**20))
    return packed.getvalue()


def array_claiming(shape: str, dtype: str = "<f8", content: bytes = bytes(16)) -> bytes:
    """An .npz with one array whose header says something else than its bytes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("loss.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content)
    return packed.getvalue()


def many_members(count: int = 20_000) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for i in range(count):
            archive.writestr(f"a{i}.npy", b"")
    return packed.getvalue()


def with_arrays(data: bytes | int) -> Plant:
    return said("INSERT OR REPLACE INTO trial_arrays SELECT id, 1, ? FROM trials WHERE status = 'done'", data)


DEEP = "[" * 100_000 + "]" * 100_000
RATHER_DEEP = '{"a":' * 300 + "1" + "}" * 300

# what is no table of ours: refused by every command before any of it is read
FOREIGN: Mapping[str, Plant] = {
    **{f"endless {name}": endless(name) for name in ("campaigns", "trials", "metrics", "leases", "tasks", "standings")},
    "endless version": in_place_of(
        "archive_version",
        f"CREATE TABLE archive_version (v text, version_num text GENERATED ALWAYS AS ({SLOW}));"
        "INSERT INTO archive_version VALUES ('x');",
    ),
    "shadow of the search index": lambda c: (
        c.execute("PRAGMA writable_schema=ON"),
        c.execute("DELETE FROM sqlite_master WHERE name = 'proposal_search_docsize'"),
        c.execute(
            "INSERT INTO sqlite_master VALUES ('view', 'proposal_search_docsize', 'proposal_search_docsize', 0, ?)",
            (f"CREATE VIEW proposal_search_docsize AS {ENDLESS}",),
        ),
    ),
    "another virtual table": in_place_of("prompts", "CREATE VIRTUAL TABLE prompts USING fts5(id, sha256);"),
    "generated column": said(f"ALTER TABLE campaigns ADD COLUMN more text GENERATED ALWAYS AS ({SLOW})"),
    "trigger": said(
        "CREATE TRIGGER t AFTER UPDATE ON archive_version BEGIN INSERT INTO tasks SELECT i,i,i,i,i,i,i,i,i FROM "
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n); END"
    ),
    "changed trigger of ours": rewritten("proposal_texts_added", "new.text", "upper(new.text)"),
    "check that calculates": rewritten(
        "archive_version", "version_num VARCHAR(32) NOT NULL", f"version_num VARCHAR(32) NOT NULL CHECK ({SLOW} > 0)"
    ),
    "default that calculates": rewritten("trials", "DEFAULT '0'", f"DEFAULT ({SLOW})"),
    "index of an expression": said("CREATE INDEX slow ON campaigns (hex(name))"),
    "index of a part": said("CREATE INDEX slow ON campaigns (name) WHERE name LIKE '%a%a%a%a%a%a%b'"),
}  # fmt: skip

# values that no campaign writes: refused, or shown as far as that is sane
ODD: Mapping[str, Plant] = {
    "deep configuration": said("UPDATE campaigns SET config = ?", DEEP),
    "rather deep configuration": said("UPDATE campaigns SET config = ?", RATHER_DEEP),
    "large configuration": said("UPDATE campaigns SET config = ?", json.dumps({"a": "x" * 10_000_000})),
    "configuration of another form": said("UPDATE campaigns SET config = '[]'"),
    "configuration of numbers": said("UPDATE campaigns SET config = 7"),
    "numbers without end": said("UPDATE tasks SET facts = ?", '{"a": ' + "9" * 5_000 + "}"),
    "large numbers": said("UPDATE tasks SET facts = ?", '{"a": ' + "9" * 4_000 + "}"),
    "facts of another form": said("UPDATE tasks SET facts = ?", '{"a": {"b": [1, null]}, "c": null, "d": NaN}'),
    "deep facts": said("UPDATE tasks SET facts = ?", DEEP),
    "options of another form": said("UPDATE tasks SET options = ?", '"x"'),
    "deep reports": said("UPDATE candidates SET gate = ?, probe = ?", DEEP, DEEP),
    "reports of another form": said("UPDATE candidates SET gate = '{}', probe = '{}'"),
    "violations of another form": said(
        "UPDATE candidates SET gate = ?",
        '{"parameters": [1, {}], "violations": [{"line": [], "problem": {}, "instead": 1}]}',
    ),
    "probe of another form": said(
        "UPDATE candidates SET probe = ?",
        '{"failure": {"kind": [], "message": 3}, "properties": null, "facts": {"a": "x"}, "curve": ["y"]}',
    ),
    "notes of another form": said(
        "UPDATE candidates SET gate = ?", '{"parameters": [], "violations": [], "notes": [7, {"a": []}]}'
    ),
    "notes without end": said(
        "UPDATE candidates SET gate = ?", json.dumps({"parameters": [], "violations": [], "notes": ["n" * 60] * 30_000})
    ),
    "properties of another form": said(
        "UPDATE candidates SET probe = ?",
        json.dumps({
            "failure": None, "facts": {},
            "properties": {f.name: [7] for f in fields(Properties)},
        }),
    ),
    "conditions beyond counting": said(
        "UPDATE candidates SET fingerprint = x'000000000000f03f', fingerprint_rows = 1, probe = ?",
        json.dumps({
            "failure": None, "properties": None, "facts": {}, "nearest": None,
            "conditions": {"seed": 2**62, "batch": 2**62, "scales": [1e308] * 100_000},
        }),
    ),
    "conditions of another form": said(
        "UPDATE candidates SET fingerprint = x'000000000000f03f', fingerprint_rows = 1, probe = ?",
        '{"failure": null, "properties": null, "facts": {}, "nearest": null, "conditions": ["x"], "single": "y"}',
    ),
    "foreign reasons": said("UPDATE campaigns SET end_reason = 'boredom', end_detail = char(27) || '[2J'"),
    "reasons of bytes": said("UPDATE campaigns SET end_reason = x'1b', end_detail = x'1bff'"),
    "large reasons": said("UPDATE campaigns SET end_detail = ?", "d" * 9_000_000),
    "curve without end": said(
        "UPDATE candidates SET probe = ?",
        json.dumps({"failure": None, "properties": None, "facts": {}, "curve": [1e308, -1e308] * 100_000, "nearest": None}),
    ),
    "seeds of texts": said("UPDATE campaigns SET seeds = ?", '["a", null, {}]'),
    "seeds without end": said("UPDATE campaigns SET seeds = ?", json.dumps(list(range(500_000)))),
    "large bytes": said("UPDATE candidates SET source_bytes = zeroblob(900000000) WHERE id = ?", WINNER.id),
    "large text": said("UPDATE proposals SET thought = CAST(zeroblob(200000000) AS TEXT)"),
    "rather large texts": said("UPDATE proposals SET name = ?, thought = ?", "n" * 9_000_000, "t" * 9_000_000),
    "large campaign's name": said("UPDATE campaigns SET name = ?", "n" * 9_000_000),
    "large code": said("UPDATE candidates SET source = ?", "a = 1\n" * 1_500_000),
    "bytes that are a number": with_arrays(HUGE),
    "code that is a number": said("UPDATE candidates SET source_bytes = ?", HUGE),
    "fingerprint that is a number": said("UPDATE candidates SET fingerprint = ?, fingerprint_rows = 2", HUGE),
    "fingerprint of no rows": said("UPDATE candidates SET fingerprint = x'00', fingerprint_rows = 0"),
    "text for a score": said("UPDATE standings SET score = 'high', sort_key = 'low' WHERE status = 'ranked'"),
    "infinite scores": said("UPDATE standings SET score = 9e999, sort_key = -9e999 WHERE status = 'ranked'"),
    "infinite metrics": said("UPDATE metrics SET value = 9e999, stderr = -9e999"),
    "largest metrics": said("UPDATE metrics SET value = 1.7e308, stderr = 1.7e308"),
    "whole metrics": said("UPDATE metrics SET value = ?", HUGE),
    "metrics of text": said("UPDATE metrics SET value = 'x'"),
    "metrics of bytes": said("UPDATE metrics SET value = x'00'"),
    "no metrics": said("DELETE FROM metrics"),
    "tokens beyond counting": said("UPDATE proposals SET prompt_tokens = ?, completion_tokens = ?", HUGE, HUGE),
    "tokens of text": said("UPDATE proposals SET prompt_tokens = 'many'"),
    "negative counts": said("UPDATE proposals SET prompt_tokens = -5, completion_tokens = -7, number = -number"),
    "infinite money": said("UPDATE proposals SET reply_cost = 9e999, reply_latency_s = -9e999"),
    "infinite time": said("UPDATE trials SET seconds = 9e999"),
    "time of text": said("UPDATE trials SET seconds = 'long'"),
    "no date": said("UPDATE campaigns SET created_at = 'yesterday'"),
    "first and last date": said(
        "UPDATE proposals SET created_at = '0001-01-01 00:00:00', judged_at = '9999-12-31 23:59:59'"
    ),
    "date out of range": said("UPDATE trials SET finished_at = '2026-13-45 99:99:99'"),
    "last dates": said("UPDATE standings SET measured_at = '9999-12-31 23:59:59.999999'"),
    "date that is a number": said("UPDATE trials SET created_at = 5"),
    "foreign words": said("UPDATE standings SET status = 'splendid', origin = 'heaven'"),
    "foreign states": said("UPDATE trials SET status = 'splendid'"),
    "foreign proposal": said("UPDATE proposals SET state = 'splendid', origin = 'heaven'"),
    "foreign failures": said("UPDATE proposals SET failure_kind = 'BOREDOM', failure_message = NULL"),
    "foreign failures of trials": said("UPDATE trials SET failure_kind = 'BOREDOM', failure_message = 'x'"),
    "failures without a message": said("UPDATE trials SET failure_kind = 'CRASH', failure_message = NULL"),
    "own parents": said(
        "INSERT INTO proposal_parents SELECT id, 99, candidate_id FROM proposals WHERE candidate_id NOT NULL"
    ),
    "parents of each other": said(
        "INSERT INTO proposal_parents SELECT p.id, 100 + q.number, q.candidate_id FROM proposals p, proposals q "
        "WHERE q.candidate_id NOT NULL"
    ),
    "repairs of each other": said("UPDATE proposals SET repair_of = 9 - number"),
    "repairs of themselves": said("UPDATE proposals SET repair_of = number"),
    "ids of bytes": said("UPDATE proposal_parents SET parent_id = x'1b5b324a'"),
    "a key with escapes": said("UPDATE proposal_parents SET parent_id = char(27) || '[2J'"),
    "text that is none": said("UPDATE proposals SET thought = CAST(x'ff1bfe' AS TEXT)"),
    "code that is none": said("UPDATE candidates SET source_bytes = x'ff1bfe80'"),
    "arrays that unpack to a gigabyte": lambda c: with_arrays(bomb())(c),  # takes seconds to make
    "arrays of objects": with_arrays(array_claiming("(2,)", "|O")),
    "arrays of a million million": with_arrays(array_claiming("(1000000, 1000000)")),
    "arrays of nothing without end": with_arrays(array_claiming("(1000000, 1000000)", "<S0")),
    "arrays of negative length": with_arrays(array_claiming("(-1, -2)")),
    "arrays with a deep header": with_arrays(array_claiming("(" * 3_000 + ")" * 3_000)),
    "many arrays": with_arrays(many_members()),
    "no arrays": with_arrays(b"PK\x05\x06"),
    "driven for ever": said(
        "UPDATE leases SET held = 1, beats = ?, host = ?, pid = ?, beat_at = '9999-01-01 00:00:00'",
        HUGE, "h" * 500_000, HUGE,
    ),
    "seeds beyond counting": said("UPDATE trials SET seed = ? WHERE id = 1", HUGE),
    "lost standings": said("DELETE FROM standings"),
    "lost tasks": said("DELETE FROM tasks"),
    "lost candidates": said("DELETE FROM candidates"),
    "no version": said("DELETE FROM archive_version"),
    "version of bytes": said("UPDATE archive_version SET version_num = x'ff'"),
    "lost table": said("DROP TABLE means"),
    "lost column": lambda c: (c.execute("DROP INDEX ix_trials_usage"), c.execute("ALTER TABLE trials DROP COLUMN seconds")),
}  # fmt: skip
