"""Our values as plain JSON values: for `--json` on the command line and for exported records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any


def plain(value: Any, spell_non_finite: bool = False) -> Any:
    """Dataclasses, enums, dates and tuples as JSON values; text without lone surrogates, which no strict parser takes.

    JSON has no NaN and no infinity: they become null, or with `spell_non_finite` the texts that the archive uses. A field
    that a dataclass leaves out of its own text is a secret, and left out here too.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [f.name for f in dataclasses.fields(value) if f.repr]
        return {name: plain(getattr(value, name), spell_non_finite) for name in shown}
    if isinstance(value, Mapping):
        return {str(k): plain(v, spell_non_finite) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v, spell_non_finite) for v in value]
    if isinstance(value, Enum):
        return plain(value.value, spell_non_finite)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if spell_non_finite else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value if value is None or isinstance(value, (int, float, bool)) else plain(str(value))
