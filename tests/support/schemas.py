"""Comparing what the models create with what the migrations create."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db.archive import Archive
from db.models import VERSION_TABLE, metadata
from db.schema import upgrade


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
    engine.dispose()
    return tables


def differences(url: str) -> list[Any]:
    """What Alembic would change in this database to make it match the models."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
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
