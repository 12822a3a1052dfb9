"""Comparing what the models create with what the migrations create."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db.archive import Archive
from db.models import SCHEMA_VERSION, VERSION_TABLE, metadata
from db.schema import upgrade

# an archive with one of everything, as this version wrote it
SAVED = Path(__file__).parents[1] / "db" / "assets" / f"archive_v{int(SCHEMA_VERSION)}.sqlite3"


def reflected(url: str) -> dict[str, Any]:
    """Columns, keys, indexes and checks of every table, as the database tells them."""
    engine = sa.create_engine(url)
    look = sa.inspect(engine)
    tables = {}
    for name in look.get_table_names():
        columns = [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(name)]
        keys = sorted(
            (str(k["name"]), tuple(k["constrained_columns"]), k["referred_table"]) for k in look.get_foreign_keys(name)
        )
        unique = sorted((str(u["name"]), tuple(u["column_names"])) for u in look.get_unique_constraints(name))
        indexes = sorted((str(i["name"]), tuple(i["column_names"])) for i in look.get_indexes(name))
        checks = sorted((str(c["name"]), c["sqltext"]) for c in look.get_check_constraints(name))
        primary = look.get_pk_constraint(name)
        tables[name] = (columns, primary["name"], primary["constrained_columns"], keys, unique, indexes, checks)
    if engine.dialect.name == "sqlite":
        tables["triggers"] = triggers(engine)
    engine.dispose()
    return tables


def triggers(engine: sa.Engine) -> dict[str, str]:
    """What keeps the index of text searches, and the index, by name; without white space."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' OR name = 'proposal_search'"
    with engine.connect() as connection:
        found = {name: "".join(made.split()) for name, made in connection.exec_driver_sql(query)}
    assert len(found) == 4
    return found


def differences(url: str) -> list[Any]:
    """What Alembic would change in this database to make it match the models."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "version_table": VERSION_TABLE,
            "include_name": lambda name, kind, parents: kind != "table" or not name.startswith("proposal_search"),
        }
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, metadata)
    engine.dispose()
    return list(found)


def assert_same_schema(created: str, migrated: str) -> None:
    """Both URLs name empty databases: one is created from the models, one migrated."""
    Archive(created, create=True).close()
    assert upgrade(migrated) == ""
    Archive(migrated).close()
    assert differences(migrated) == []
    assert reflected(migrated) == reflected(created)
