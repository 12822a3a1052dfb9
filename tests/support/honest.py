"""Candidates as language models write them: all pass the gate (`tests/sandbox/honest_candidates.txt`)."""

from __future__ import annotations

from pathlib import Path

_FILE = Path(__file__).parents[1] / "sandbox" / "honest_candidates.txt"
HONEST: dict[str, str] = {
    name.strip(): source
    for name, _, source in (part.partition("\n") for part in _FILE.read_text(encoding="utf-8").split("#### ")[1:])
}
