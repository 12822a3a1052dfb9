"""The table of known objectives in docs/objectives.md, made from their sources:

python -m evaluators.objectives_table docs/objectives.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluators.objectives import Objective, known_families, known_objectives

BEGIN, END = (
    "<!-- objectives: begin (python -m evaluators.objectives_table docs/objectives.md) -->",
    "<!-- objectives: end -->",
)


def objectives_table() -> str:
    """One Markdown table per contract, objectives in alphabetical order."""
    return "\n\n".join(_table(contract) for contract in known_families())


def updated(page: str) -> str:
    """A page with the tables between its markers replaced. Raises ValueError if it has no markers."""
    start, end = page.find(BEGIN), page.find(END)
    if start < 0 or end < start:
        raise ValueError("the page has no place for the table of objectives")
    return f"{page[: start + len(BEGIN)]}\n{objectives_table()}\n{page[end:]}"


def _table(contract: str) -> str:
    rows = [_row(o) for o in known_objectives(contract).values()]
    head = ["| name | family | year | reads besides log-probs | loss | paper |", "|---|---|---|---|---|---|"]
    return "\n".join([f"### `{contract}`", "", *head, *rows])


def _row(objective: Objective) -> str:
    plain = ("logps", "beta", "desirable")
    reads = ", ".join(f"`{i}`" for i in objective.inputs if not i.endswith(plain)) or "-"
    reads += " (privileged)" if objective.privileged else ""
    unsure = " (UNSURE)" if objective.unsure else ""
    cells = [f"`{objective.name}`{unsure}", objective.family, str(objective.year), reads]
    cells += [f"`{objective.equation}`", objective.paper.rstrip(".")]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page in place."""
    if len(arguments) != 1:
        print("usage: python -m evaluators.objectives_table PAGE.md", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"evaluators.objectives_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
