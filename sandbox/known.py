"""Known losses at any value of the scale scalar: which of them a candidate copies, and which it is nearest to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sandbox import curve, draws, fingerprint
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.fingerprint import DUPLICATE_DISTANCE, POINTS, distances, stack, table
from sandbox.oracle import LossOracle
from sandbox.reports import Fingerprint, Match, Nearest
from sandbox.server import OracleServer

SCALES = (1 / 16, 16.0)  # a known loss at beta * c with c in here is a rescaled beta, not a discovery
_COARSE = 129  # values of c tried first, evenly in log c
_CURVES_EVERY = 8  # loss curves are kept for every eighth of them
_FINE = 9  # values of c in each refinement, which narrows the bracket four times
_WORTH_REFINING = 0.05  # a true match is within about 0.02 of its nearest value in the coarse table
_FLOOR = 0.2  # of the slope between table values: a true match has none, and slopes change little between neighbours
_CLEAR = 0.01  # of DUPLICATE_DISTANCE: no need to search on
_FLAT = 0.8  # around a true match the distance is V-shaped; a minimum this close to its neighbours is not one
_SIEVE = 16  # every so many table values are looked at first
_PASSES = 0.5  # mean gap at the nearest of those beyond which no value in between can match

Known = Mapping[str, tuple[Candidate, tuple[str, ...]]]  # name -> candidate, and the inputs that it reads


@dataclass(frozen=True)
class Tables:
    """What known losses do at each scale, float32, in their order.

    Attributes:
        prints: (known, scales, rows, values) fingerprints.
        curves: (known, scales, points) normalised loss curves; no points for a contract without a margin.
    """

    prints: Tensor
    curves: Tensor


def build_tables(server: OracleServer, contract: Contract, known: Known) -> Tables:
    """One child and two packed calls for each known loss: about a tenth of a second. Raises what the oracle raises."""
    scales, bends = _scales(contract), _curve_scales(contract)
    if not known:
        return Tables(torch.zeros(0, len(scales), 0, 0), torch.zeros(0, len(bends), _points(contract)))
    prints, curves = [], []
    for name in known:
        with _oracle(server, contract, known, name) as oracle:
            prints.append(table(oracle, scales).float())
            if curve.has_margin(contract):
                curves.append(curve.curve_table(oracle, bends).float())
    return Tables(torch.stack(prints), torch.stack(curves) if curves else torch.zeros(len(known), len(bends), 0))


def tables_key(contract: Contract, known: Known) -> str:
    """A hash of everything that the tables depend on: torch, contract, losses, and the code that measures."""
    losses = [(name, candidate.id, parameters) for name, (candidate, parameters) in known.items()]
    code = [Path(str(module.__file__)).read_bytes() for module in (curve, draws, fingerprint)]
    parts = [repr((torch.__version__, contract, losses, _scales(contract), _curve_scales(contract))).encode(), *code]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


class KnownLosses:
    """Recognises known losses, at any scale.

    Args:
        server: where the children come from that a close match is checked in.
        known: the losses; all of them accepted by the gate.
        tables: from `build_tables` for the same contract and losses; made here if there are none.

    Raises:
        ValueError: `tables` of another number of losses or scales.
    """

    def __init__(self, server: OracleServer, contract: Contract, known: Known, tables: Tables | None = None) -> None:
        self._server, self._contract, self._known = server, contract, dict(known)
        self._names = list(known)
        self._scales, self._curve_scales = _scales(contract), _curve_scales(contract)
        self._unscaled = self._scales.index(1.0)
        made = tables or build_tables(server, contract, known)
        right = (len(known), len(self._curve_scales), _points(contract))
        if made.prints.shape[:2] != (len(known), len(self._scales)) or made.curves.shape != right:
            raise ValueError("tables of other losses, or of another version of this code")
        self._prints, self._curves = made.prints, made.curves

    def match(self, found: Fingerprint) -> Match | None:
        """The known loss that this is a copy of, up to the scale scalar; None if it is new.

        A copy of one as it stands is preferred to a copy of another at some scale: some known losses are others rescaled.
        Raises what the oracle raises.
        """
        one = stack([found]).float()
        if one.shape[1:] != self._prints.shape[2:]:
            return None
        same = distances(one, self._prints[:, self._unscaled])
        best = int(same.argmin())
        if float(same[best]) < DUPLICATE_DISTANCE:
            return Match(self._names[best], 1.0, float(same[best]))
        for position, name in enumerate(self._names):
            match = self._rescaled(position, name, one)
            if match is not None:
                return match
        return None

    def nearest(self, found: Fingerprint, losses: Sequence[float] = (), limit: int = 3) -> Nearest:
        """The known losses that behave most alike. `losses`: the candidate's curve, as in `MarginBehaviour.curve`."""
        one = stack([found]).float()
        rows = [_apart(one, prints) for prints in self._prints] if one.shape[1:] == self._prints.shape[2:] else []
        near = {name: _nearest_of(name, row, self._scales) for name, row in zip(self._names, rows, strict=False)}
        bent: list[Match] = []
        if losses and self._curves.shape[2] == len(losses):
            gaps = (self._curves - torch.tensor(losses)).norm(dim=2).nan_to_num(math.inf)
            bent = [_nearest_of(*item, self._curve_scales) for item in zip(self._names, gaps, strict=True)]
        # several known losses may have one curve; what else they do decides between them
        bent.sort(key=lambda m: (round(m.distance, 4), near[m.name].distance if m.name in near else 0.0, m.name))
        ordered = sorted(near.values(), key=lambda m: (m.distance, m.name))
        return Nearest(tuple(ordered[:limit]), tuple(bent[:limit]))

    def _rescaled(self, position: int, name: str, one: Tensor) -> Match | None:
        """The match of one known loss at some scale, if there is one."""
        prints = self._prints[position]
        if float(_mean_gaps(one, prints[::_SIEVE]).min()) > _PASSES:
            return None
        gaps = _mean_gaps(one, prints).tolist()
        best = min(range(len(gaps)), key=gaps.__getitem__)
        if gaps[best] < _WORTH_REFINING and _reaches_zero(gaps, best):
            match = self._refine(name, one, best)
            if match.distance < DUPLICATE_DISTANCE:
                return match
        return None

    def _refine(self, name: str, one: Tensor, best: int) -> Match:
        """Search c between the neighbours of the best coarse value, then compare there."""
        one = one.double()
        found = Match(name, self._scales[best], math.inf)
        low, high = self._scales[max(best - 1, 0)], self._scales[min(best + 1, len(self._scales) - 1)]
        with _oracle(self._server, self._contract, self._known, name) as oracle:
            while high / low > 1 + 1e-9:
                scales = [low * (high / low) ** (i / (_FINE - 1)) for i in range(_FINE)]
                rows = table(oracle, scales)
                gaps = _mean_gaps(one, rows)
                at = int(gaps.argmin())
                found = Match(name, scales[at], float(distances(one, rows[at : at + 1])))
                around = gaps[max(at - 1, 0) : at + 2]
                if found.distance < _CLEAR * DUPLICATE_DISTANCE or float(gaps[at]) > _FLAT * float(around.max()):
                    break
                low, high = scales[max(at - 1, 0)], scales[min(at + 1, len(scales) - 1)]
        return found


def _oracle(server: OracleServer, contract: Contract, known: Known, name: str) -> LossOracle:
    candidate, parameters = known[name]
    return LossOracle(server, candidate, contract, parameters)


def _scales(contract: Contract) -> list[float]:
    """Of the fingerprints: evenly in log, 1 among them; 1 alone for a contract without a scale scalar."""
    low, high = (math.log(s) for s in SCALES)
    steps = range(_COARSE) if contract.scale_scalar else range(0)
    return sorted({*(math.exp(low + (high - low) * i / (_COARSE - 1)) for i in steps), 1.0})


def _curve_scales(contract: Contract) -> list[float]:
    return sorted({*_scales(contract)[::_CURVES_EVERY], 1.0})


def _points(contract: Contract) -> int:
    return curve.POINTS if curve.has_margin(contract) else 0


def _nearest_of(name: str, gaps: Tensor, scales: Sequence[float]) -> Match:
    """At scale 1 unless another is really nearer."""
    best, plain = int(gaps.argmin()), scales.index(1.0)
    if float(gaps[plain]) <= float(gaps[best]) + 1e-6:
        best = plain
    return Match(name, scales[best], float(gaps[best]))


def _apart(one: Tensor, rows: Tensor) -> Tensor:
    """(items,) mean over rows of the distance between their gradients, which have norm 1. NaN counts as equal."""
    gaps = (one - rows)[..., POINTS:].nan_to_num(0.0)
    return gaps.square().sum(2).sqrt().mean(1)


def _mean_gaps(one: Tensor, rows: Tensor) -> Tensor:
    """(items,) mean relative differences: what the search for a scale descends.

    Unlike `distances` it sees every row, so that rows in which the scale cancels (a hinge far from its kink) do not hide
    the others, and it grows steadily with the error in the scale. Entries that are non-finite in either count as equal.
    """
    scale = torch.maximum(one.abs().nan_to_num(0.0).amax(2), rows.abs().nan_to_num(0.0).amax(2)).clamp(min=1e-30)
    return ((one - rows).abs().nan_to_num(0.0).mean(2) / scale).mean(1)


def _reaches_zero(gaps: Sequence[float], best: int) -> bool:
    """Whether the gaps around their minimum can belong to a match that lies between two table values.

    Around a match they are V-shaped: with slope s and spacing D, the neighbours sum to 2sD, and the minimum and its nearer
    neighbour to sD. What is missing to that is a floor that no scale removes. At an end of the table nothing is excluded
    but a minimum that is level with its neighbour.
    """
    last = len(gaps) - 1
    if best in (0, last):
        return last < 1 or gaps[best] < _FLAT * gaps[1 if best == 0 else last - 1]
    slope, nearer = (gaps[best - 1] + gaps[best + 1]) / 2, min(gaps[best - 1], gaps[best + 1])
    return (gaps[best] + nearer - slope) / 2 < _FLOOR * slope
