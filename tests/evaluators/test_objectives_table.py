"""docs/objectives.md says what the sources say."""

from pathlib import Path

import pytest

from evaluators.objectives_table import main, objectives_table, updated
from tests.support.objective_calls import NAMES

PAGE = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page, "run: python -m evaluators.objectives_table docs/objectives.md"


def test_every_objective_is_in_the_table_once() -> None:
    rows = [line for line in objectives_table().split("\n") if line.startswith("| `")]
    assert len(rows) == len(NAMES)
    for row in rows:
        cells = row.replace("\\|", "/").strip("| ").split(" | ")
        assert len(cells) == 6
        assert all(cell.strip("` ") for cell in cells)


def test_the_script_rewrites_a_page_and_refuses_one_without_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("| `dpo` |", "| `old` |"), encoding="utf-8")
    assert main([str(page)]) == 0
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    page.write_text("nothing", encoding="utf-8")
    assert main([str(page)]) == 2
    assert "no place" in capsys.readouterr().err
    assert main([]) == 2
    assert main([str(tmp_path / "none.md")]) == 2
