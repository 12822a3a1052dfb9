"""Loss curves as the probe stored them: comparable shapes, since each is centred and divided by its norm."""

from __future__ import annotations

from dataclasses import dataclass

from db.records import Proposal
from sandbox.reports import CURVE_REACH

_LARGEST = 1e6  # a normalised loss is of the order of one; NaN is none of it


@dataclass(frozen=True)
class LossCurve:
    """A loss against the margin, centred and divided by its norm, so that losses of any scale compare.

    Attributes:
        margins: in units of 1 / (the scale scalar's default), evenly spaced; the margin is a log-ratio in nats.
        losses: at each margin.
        slopes: of the losses per unit of the margin, by differences of neighbours.
    """

    name: str
    candidate_id: str
    margins: tuple[float, ...]
    losses: tuple[float, ...]
    slopes: tuple[float, ...]


def stored_curve(proposal: Proposal) -> LossCurve | None:
    """The curve that a proposal's probe measured; None where there is none, or it is not finite."""
    losses = proposal.probe.curve if proposal.probe is not None else ()
    if proposal.candidate is None or len(losses) < 2 or not all(abs(v) <= _LARGEST for v in losses):
        return None
    step = 2 * CURVE_REACH / (len(losses) - 1)
    margins = tuple(-CURVE_REACH + i * step for i in range(len(losses)))
    last = len(losses) - 1
    ends = [(max(i - 1, 0), min(i + 1, last)) for i in range(len(losses))]
    slopes = tuple((losses[b] - losses[a]) / ((b - a) * step) for a, b in ends)
    return LossCurve(proposal.name, proposal.candidate.id, margins, losses, slopes)
