"""Alembic migrations of the archive. `db.schema.upgrade` runs them."""
