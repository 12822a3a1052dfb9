"""`docs/archive.md` says what is true."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from db.models import SCHEMA_VERSION, metadata, version_table
from tests.support.schemas import SAVED

DOC = Path(__file__).parents[2] / "docs" / "archive.md"


def test_every_table_and_version_is_named() -> None:
    text = DOC.read_text(encoding="utf-8")
    for name in [*metadata.tables, version_table.name]:
        assert f"`{name}`" in text, name
    assert f"`{SCHEMA_VERSION}`" in text


def test_named_columns_exist() -> None:
    columns = {c.name for table in metadata.tables.values() for c in table.columns}
    rows = re.findall(r"^\| (`.+?) \| .+? \| (.+) \|$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 10
    for _, notable in rows:
        outside = re.sub(r"\([^)]*\)", "", notable)
        for name in re.findall(r"`(\w+)`", outside):
            assert name in columns, name


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(SAVED, tmp_path / "runs" / "archive.db")
    monkeypatch.chdir(tmp_path)
    for example in re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, "docs/archive.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "α loss 0.75" in printed
    assert "{'curve': (4,)}" in printed
