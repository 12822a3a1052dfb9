"""``python -m db upgrade URL``: migrate an archive to this version's schema."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from db.errors import ArchiveError
from db.models import SCHEMA_VERSION
from db.redact import redact_url
from db.schema import upgrade


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 done, 1 the database failed, 2 asked wrongly."""
    if len(arguments) != 2 or arguments[0] != "upgrade":
        print("usage: python -m db upgrade URL", file=sys.stderr)
        return 2
    try:
        found = upgrade(arguments[1])
    except ArchiveError as error:
        print(error, file=sys.stderr)
        return 1 if error.fault else 2
    print(f"{redact_url(arguments[1])}: schema {found or 'none'} -> {SCHEMA_VERSION}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
