"""Figures of a loss card as PNG: the loss beside known ones, and its differences to baselines with their intervals.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; lines differ in their dashes too. No text of a
candidate is read as mathematics.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from discovery.contest import UNLIKE
from discovery.dossier import Measurement
from discovery.exporters.base import Curve, ExportError
from sandbox.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS = "#D55E00"
_OTHERS = {
    "dpo": ("#0072B2", "--"),
    "hinge": ("#009E73", "-."),
    "ipo": ("#CC79A7", ":"),
    "lrml": ("#56B4E9", (0, (4, 1, 1, 1, 1, 1))),
}
_MORE = ("#E69F00", (0, (1, 1)))
_VERDICTS = {"better": "#009E73", "worse": "#D55E00"}
_STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.edgecolor": "#555555", "text.parse_math": False,
    "legend.frameon": False, "svg.hashsalt": "card",
}  # fmt: skip
_DPI = 200


@dataclass(frozen=True)
class Shape:
    """A curve centred at margin 0 and divided by the size of its slope there, so that losses of any scale compare.

    `unit` is that slope's size, or the largest slope where it vanishes at 0; `at_zero` is the loss there.
    """

    name: str
    margins: tuple[float, ...]
    losses: tuple[float, ...]
    slopes: tuple[float, ...]
    at_zero: float
    unit: float


def shape_of(curve: Curve) -> Shape:
    """The curve's shape. Raises ExportError for a curve without a finite value at margin 0."""
    middle = min(range(len(curve.margins)), key=lambda i: abs(curve.margins[i]))
    at_zero, slope = curve.losses[middle], abs(curve.slopes[middle])
    largest = max((abs(s) for s in curve.slopes if abs(s) < float("inf")), default=0.0)  # NaN compares false
    unit = slope if slope > 1e-3 * largest else largest
    if not (abs(at_zero) < float("inf") and unit > 0):
        raise ExportError(f"the loss {one_line(curve.name, 40)} has no finite value at margin 0, so it cannot be drawn")
    losses = tuple((value - at_zero) / unit for value in curve.losses)
    return Shape(curve.name, curve.margins, losses, tuple(s / unit for s in curve.slopes), at_zero, unit)


def loss_figure(shapes: Sequence[Shape], beta: float) -> bytes:
    """Loss and slope against the margin. The first shape is that of the loss that the card is about."""
    with _styled():
        figure, (left, right) = _figure(7.2, 3.3, 2)
        for axes, kind in ((left, "losses"), (right, "slopes")):
            for shape in shapes[1:]:
                colour, dashes = _OTHERS.get(shape.name, _MORE)
                values = getattr(shape, kind)
                axes.plot(
                    shape.margins, values, color=colour, linestyle=dashes, linewidth=1.5, label=_label(shape.name)
                )
            ours = shapes[0]
            axes.plot(ours.margins, getattr(ours, kind), color=_OURS, linewidth=2.6, label=_label(ours.name), zorder=5)
            axes.axvline(0, color="#999999", linewidth=0.8, zorder=1)
            axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
            axes.set_xlabel("margin d in nats")
            axes.set_xlim(ours.margins[0], ours.margins[-1])
            axes.set_ylim(*_limits([getattr(s, kind) for s in shapes]))
        left.set_ylabel("(L(d) − L(0)) / |L′(0)|, nats")
        right.set_ylabel("L′(d) / |L′(0)|")
        left.set_title(f"Loss (beta = {beta:g})", fontsize=9, loc="left")
        right.set_title("Slope (below 0: pulls the margin up)", fontsize=9, loc="left")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], loc="outside lower center", ncols=len(labels)
        )
        return _png(figure)


def score_figure(measurements: Sequence[Measurement]) -> bytes:
    """Paired differences to each baseline with 95% intervals, one panel per measurement."""
    rows = [len(m.versus) for m in measurements]
    with _styled():
        figure, panels = _figure(7.2, 0.75 * len(rows) + 0.3 * sum(rows) + 0.3, 1, rows)
        for axes, measurement in zip(panels, measurements, strict=True):
            _forest(axes, measurement)
        return _png(figure)


def _forest(axes: Axes, measurement: Measurement) -> None:
    score, others = measurement.score, measurement.versus
    effect = others[0].difference.minimum_effect
    if effect:
        axes.axvspan(-effect, effect, color="#EEEEEE", zorder=0)
    axes.axvline(0, color="#555555", linewidth=0.9, zorder=1)
    for place, other in enumerate(others):
        difference, colour = other.difference, _VERDICTS.get(other.difference.verdict, "#555555")
        if difference.low is not None and difference.high is not None:
            axes.plot(
                [difference.low, difference.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt"
            )
        marker = {"better": "^", "worse": "v"}.get(difference.verdict, "o")
        axes.plot([difference.mean], [place], marker=marker, color=colour, markersize=6)
    axes.set_yticks(range(len(others)), [_label(o.name) + ("" if o.alike else f", {UNLIKE}") for o in others])
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    direction = "right is better" if score.higher_is_better else "left is better"
    axes.set_xlabel(f"{_label(score.metric)}: this loss minus the baseline ({direction})")
    axes.set_title(_label(_where(measurement), 90), fontsize=9, loc="left")


def _where(measurement: Measurement) -> str:
    kind = "ranked the search" if measurement.ranks else "fresh seeds" if measurement.fresh_seeds else "another task"
    count = len(measurement.score.by_seed)
    return f"{measurement.evaluator} ({kind}), {count} seed{'s' if count > 1 else ''}"


def _limits(curves: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Room for the first curve and for most of the others: one that shoots off is cut, not the rest squeezed."""

    def ends(values: Sequence[float]) -> tuple[float, float]:
        finite = sorted(v for v in values if abs(v) < float("inf"))
        return (finite[0], finite[-1]) if finite else (0.0, 0.0)

    spans = [ends(c) for c in curves]
    ours, sizes = spans[0], sorted(high - low for low, high in spans)
    reach = max(ours[1] - ours[0], 1.5 * sizes[len(sizes) // 2])
    low, high = max(min(s[0] for s in spans), ours[0] - reach), min(max(s[1] for s in spans), ours[1] + reach)
    pad = 0.05 * (high - low or 1.0)
    return low - pad, high + pad


def _label(text: str, limit: int = 30) -> str:
    """Hostile text for a figure: one line of what the font surely has."""
    return one_line(text, limit).replace("…", "...").encode("ascii", "replace").decode() or "unnamed"


def _styled() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ExportError("a card has plots, which need matplotlib: pip install 'objective-discovery[card]'") from None
    return matplotlib.rc_context(_STYLE)


def _figure(width: float, height: float, columns: int, rows: Sequence[int] = (1,)) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [0.5 + r for r in rows]
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": ratios})
    return figure, grid.ravel()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are cut
        figure.savefig(buffer, format="png", metadata={"Software": None})  # equal figures give equal bytes
    return buffer.getvalue()
