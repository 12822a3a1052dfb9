"""Rewrite the golden files after an intended change: `python -m tests.discovery.update_goldens`, then read the diff."""

from pathlib import Path

from tests.support.prompt_cases import CASES, shown

GOLDEN = Path(__file__).parent / "golden"

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make in CASES.items():
        (GOLDEN / f"{name}.txt").write_text(shown(make()), encoding="utf-8")
        print(f"wrote {GOLDEN / name}.txt")
