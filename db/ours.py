"""Whether what a database holds under our names is our own, and nothing runs while it is read or written.

An archive may have been made by anybody. A view by the name of one of our tables can be endless; a trigger, a generated
column, or an expression in a check or an index does whatever its author wrote. The schema tells of all of them, so it is
looked at before the first statement names one of its tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.models import SEARCH_INDEX, metadata, version_table

_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|\w+|[^\s\w]")
_SEARCH_TABLES = ("proposal_search", *(f"proposal_search_{part}" for part in ("data", "idx", "docsize", "config")))
OUR_TABLES = frozenset((*metadata.tables, version_table.name, *_SEARCH_TABLES))


def foreign_parts(connection: Connection) -> Iterator[str]:
    """Names of what stands where ours should, or hangs on one of our tables, and is not as this program makes it.

    Of what has other names nothing is said: no statement of ours names it.
    """
    look = _of_sqlite if connection.dialect.name == "sqlite" else _of_postgresql
    yield from look(connection)


def _of_sqlite(connection: Connection) -> Iterator[str]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master"
    for kind, name, table, made in connection.exec_driver_sql(query):
        if not OUR_TABLES & {str(name).lower(), str(table).lower()}:
            continue
        if not _is_ours(str(kind), str(name), made):
            yield str(name)


def _is_ours(kind: str, name: str, made: object) -> bool:
    """Whether a row of SQLite's schema is a table, index or trigger that one of our schemas has had."""
    if made is None:  # the index of a key, which SQLite makes itself
        return kind == "index" and name.startswith("sqlite_autoindex_")
    exact, words = _known()
    if name in exact:
        return _condensed(str(made)) == exact[name]
    # columns come and go with schemas, but the words that tables and indexes are made of stay the same few
    return kind in words and name == name.lower() and _words(str(made)) - {name} <= words[kind]


def _condensed(made: str) -> str:
    return "".join(made.replace('"', "").replace("'", "").split())


def _words(made: str) -> set[str]:
    return {word.lower() for word in _TOKEN.findall(made)}


@cache
def _known() -> tuple[Mapping[str, str], Mapping[str, set[str]]]:
    """The exact text of the search index and its triggers by name; all words of tables and of indexes by kind."""
    engine = sa.create_engine("sqlite://")
    exact: dict[str, str] = {}
    words: dict[str, set[str]] = {"table": set(), "index": set()}
    with engine.begin() as connection:
        metadata.create_all(connection, checkfirst=False)
        version_table.create(connection)
        for kind, name, made in connection.exec_driver_sql(
            "SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL"
        ):
            if kind == "trigger" or name in _SEARCH_TABLES:
                exact[name] = _condensed(made)
            else:
                words[kind] |= _words(made)
    engine.dispose()
    words["index"] |= words["table"]  # of any columns: a person may have added one that helps
    assert len(exact) == len(SEARCH_INDEX) + len(_SEARCH_TABLES) - 1
    return exact, words


# relations of our names, and what hangs on them: views and foreign tables, rules, row security, triggers, heirs, generated
# columns, expressions in indexes, and calls in checks and defaults, which PostgreSQL writes as a word and a parenthesis (a
# sequence's next number apart)
_POSTGRESQL = """
WITH ours AS (SELECT c.oid, c.relname, c.relkind, c.relhasrules, c.relrowsecurity FROM pg_class c
              WHERE c.oid IN (SELECT to_regclass(quote_ident(name)) FROM unnest(CAST(%(names)s AS text[])) AS name))
SELECT relname FROM ours WHERE relkind <> 'r' OR relhasrules OR relrowsecurity
UNION SELECT t.tgname FROM pg_trigger t JOIN ours ON ours.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION SELECT i.inhrelid::regclass::text FROM pg_inherits i JOIN ours ON ours.oid IN (i.inhparent, i.inhrelid)
UNION SELECT a.attname FROM pg_attribute a JOIN ours ON ours.oid = a.attrelid WHERE a.attgenerated <> ''
UNION SELECT ours.relname FROM pg_index x JOIN ours ON ours.oid = x.indrelid
      WHERE x.indexprs IS NOT NULL OR x.indpred IS NOT NULL
UNION SELECT k.conname FROM pg_constraint k JOIN ours ON ours.oid = k.conrelid
      WHERE k.contype = 'c' AND pg_get_constraintdef(k.oid) ~ '[[:alnum:]_"][(]'
UNION SELECT ours.relname FROM pg_attrdef f JOIN ours ON ours.oid = f.adrelid
      JOIN pg_attribute d ON d.attrelid = f.adrelid AND d.attnum = f.adnum AND d.attgenerated = ''
      WHERE pg_get_expr(f.adbin, f.adrelid) ~ '[[:alnum:]_"][(]'
        AND pg_get_expr(f.adbin, f.adrelid) !~ '^nextval[(]''[^'']*''::regclass[)]$'
"""


def _of_postgresql(connection: Connection) -> Iterator[str]:
    for (name,) in connection.exec_driver_sql(_POSTGRESQL, {"names": sorted(OUR_TABLES)}):
        yield str(name)
