"""Losses as people and language models write them, from `tests/sandbox/honest_candidates.txt`.

To add one, append a line `#### some_name` and the module's text.
"""

from __future__ import annotations

from pathlib import Path

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate

_FILE = Path(__file__).parents[1] / "sandbox" / "honest_candidates.txt"
HONEST = {
    name: Candidate(PAIRS.name, source)
    for name, _, source in (part.partition("\n") for part in _FILE.read_text(encoding="utf-8").split("#### ")[1:])
}
