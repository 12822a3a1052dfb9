"""Statements in the database driver's own form, for what runs once per trial.

Compiling a statement is done once, and its values go to the driver as they are, which takes a third of the time. Column
types do not see them, nor what comes back: texts must have been made storable before, and a time can only be one that
was read in the same way. `read` makes of such a value what its column says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine


@lru_cache(maxsize=64)
def _driver_form(
    dialect: Dialect, statement: sa.ClauseElement, columns: tuple[str, ...] | None
) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
    """The statement's text, the order of its values where they go by position, and values that it brings itself."""
    compiled = statement.compile(dialect=dialect, column_keys=None if columns is None else list(columns))
    return str(compiled), tuple(getattr(compiled, "positiontup", None) or ()), dict(compiled.params or {})


def run_plain(connection: Connection, statement: sa.ClauseElement, values: Mapping[str, Any]) -> sa.CursorResult[Any]:
    """Run one statement whose `bindparam`s are numbers or storable texts."""
    text, order, own = _driver_form(connection.dialect, statement, None)
    every = {**own, **values}
    return connection.exec_driver_sql(text, tuple(every[name] for name in order) if order else every)


def insert_plain(connection: Connection, insert: sa.Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of plain values, all with the same columns."""
    text, order, _ = _driver_form(connection.dialect, insert, tuple(rows[0]))
    if order:
        connection.exec_driver_sql(text, [tuple(row[name] for name in order) for row in rows])
    else:
        connection.exec_driver_sql(text, [dict(row) for row in rows])


@lru_cache(maxsize=256)
def _bind_processor(dialect: Dialect, kind: TypeEngine[Any]) -> Any:
    return kind.dialect_impl(dialect).bind_processor(dialect)


@lru_cache(maxsize=256)
def _result_processor(dialect: Dialect, kind: TypeEngine[Any]) -> Any:
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def bound(connection: Connection, column: sa.Column[Any], value: Any) -> Any:
    """A column's value as the driver takes it."""
    process = _bind_processor(connection.dialect, column.type)
    return value if process is None else process(value)


def read(connection: Connection, column: sa.Column[Any], value: Any) -> Any:
    """A column's value from what the driver gave."""
    process = _result_processor(connection.dialect, column.type)
    return value if process is None else process(value)
