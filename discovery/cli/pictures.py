"""Loss curves in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from discovery.cli.braille import COLOURS, drawn
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.browse.curves import LossCurve

_WIDTH, _HEIGHT = 60, 10


def print_curves(console: Console, curves: Sequence[LossCurve]) -> None:
    """Curves in one frame with their names; nothing if there are none."""
    if not curves:
        return
    console.print(Text("\nLoss against the margin", style="bold"))
    width = min(_WIDTH, console.width - 2)
    for line in drawn([c.losses for c in curves], width, _HEIGHT):
        console.print(Text("  ").append_text(line))
    left, right = f"{curves[0].margins[0]:g}", f"{curves[0].margins[-1]:g}"
    axis = left + "0".center(width - len(left) - len(right)) + right
    console.print(Text(f"  {axis}", style="dim"))
    for index, curve in enumerate(curves):
        name = (one_line(curve.name, 50) or "unnamed", COLOURS[index % len(COLOURS)])
        console.print(Text.assemble("  ", name, f" ({curve.candidate_id[:10]})"))
    console.print("  margin in units of 1 / beta; each curve centred and divided by its norm", style="dim")
