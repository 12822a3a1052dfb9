"""The archive: what was asked, answered, run and measured, in SQLite or PostgreSQL."""
