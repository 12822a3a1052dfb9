"""Column types that store the same values in SQLite and PostgreSQL, and give nothing else back.

SQLite stores any value in any column, and an archive may have been made by anybody: what is read is checked to be of its
column's type. A value that is not ends the read with ValueError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.processors import to_float
from sqlalchemy.types import TypeDecorator

from db.redact import redact_secrets
from evaluators.base import LARGEST

# PostgreSQL refuses NUL, and neither database can encode half of a surrogate pair
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_DIGITS = re.compile(r"\d{20}")
MAX_JSON = 2 * 2**20  # characters of a JSON value; a campaign's configuration, the largest, has some thousand
MAX_JSON_DEPTH = 60

RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers rows by itself only for INTEGER keys


def storable(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD; everything else is kept to the letter."""
    return text if text.isascii() and "\x00" not in text else _UNSTORABLE.sub(_REPLACEMENT, text)


def is_storable(text: str) -> bool:
    """Whether `storable` would leave the text as it is."""
    return _UNSTORABLE.search(text) is None


def plain(value: Any) -> Any:
    """A JSON value that every database takes: clean strings without passwords, non-finite floats spelled out as text."""
    if isinstance(value, str):
        return redact_secrets(storable(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Mapping):
        return {plain(str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return plain(str(value))


class UTCDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC. SQLite has no zones: it holds the UTC time, and the zone is put back when it is read."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times in the archive must carry a time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Checked(TypeDecorator[Any]):
    """A type whose values are checked when they are read; `accepts` are the driver's types of them."""

    impl: Any = sa.Text
    cache_ok = True
    accepts: ClassVar[type | tuple[type, ...]] = str

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        accepts, what = self.accepts, type(self).__name__

        def checked(value: Any) -> Any:
            if value is None or isinstance(value, accepts):
                return value
            raise ValueError(f"a value of the type {type(value).__name__} where {what} belongs")

        return checked


class StoredText(_Checked):
    """Text that has been stored once: as it is."""

    cache_ok = True


class SafeText(StoredText):
    """Text of any origin: storable everywhere, passwords masked."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else redact_secrets(storable(value))


class SourceText(StoredText):
    """Source code: storable everywhere, otherwise to the letter, because its hash is its identity."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class HashText(_Checked):
    """A SHA-256 in hexadecimal, or another short key."""

    impl = sa.String(64)
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        def checked(value: Any) -> Any:
            if value is None or (
                isinstance(value, str) and len(value) <= 64 and value.isascii() and value.isprintable()
            ):
                return value
            raise ValueError("something else where a hash belongs")

        return checked


class Whole(_Checked):
    """A whole number; sums of them too, which PostgreSQL gives as decimals."""

    impl = sa.Integer
    cache_ok = True
    accepts = (int, Decimal)


class BigWhole(Whole):
    """A whole number of 64 bits."""

    impl = sa.BigInteger
    cache_ok = True


class Real(TypeDecorator[float]):
    """A float64 of at most `LARGEST`; nothing else is ever written. Whole numbers are read as floats."""

    impl = sa.Double
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        read: Callable[[Any], float | None] = to_float  # written in C: listings read millions

        def checked(value: Any) -> float | None:
            number = read(value)
            if number is None or abs(number) <= LARGEST:
                return number
            raise ValueError(f"a number that is not finite or over {LARGEST:g}")

        return checked


class Blob(_Checked):
    """Bytes. The database library's own type would make a number into as many zero bytes."""

    impl = sa.LargeBinary
    cache_ok = True
    accepts = bytes


class SafeJSON(TypeDecorator[Any]):
    """JSON without NUL, lone surrogates, NaN or passwords. None is SQL NULL. `form` is what the outermost value is."""

    impl = sa.JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, form: type) -> None:
        super().__init__()
        self.form = form

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return plain(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is not None and not isinstance(value, self.form):
            raise ValueError(f"JSON of another form than {self.form.__name__}")
        return value


def read_json(text: str | bytes) -> Any:
    """A stored JSON value, of bounded size and depth.

    Raises:
        ValueError: it is no JSON, larger than `MAX_JSON` or nested more deeply than `MAX_JSON_DEPTH`.
    """
    if not isinstance(text, (str, bytes)):
        raise ValueError(f"a value of the type {type(text).__name__} where JSON belongs")
    if len(text) > MAX_JSON:
        raise ValueError(f"JSON of {len(text):,} characters, where {MAX_JSON:,} are the most")
    try:
        value = json.loads(text, parse_int=_whole) if _DIGITS.search(str(text)) else json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [v for outer in level if isinstance(outer, (dict, list)) for v in _inside(outer)]
        if not level:
            return value
    raise ValueError("JSON that is nested too deeply")


def _whole(text: str) -> int:
    """A whole number as any database has them. Raises ValueError."""
    if len(text) > 20:
        raise ValueError("JSON with a number of more than 64 bits")
    return int(text)


def _inside(value: Any) -> Iterable[Any]:
    """What of a list or object can hold more."""
    return (v for v in (value.values() if isinstance(value, dict) else value) if isinstance(v, (dict, list)))
