"""Known losses at any value of the scale scalar: which of them a candidate copies, and which it is nearest to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sandbox import curve, draws, fingerprint
from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.draws import SCALES as SETTINGS
from sandbox.fingerprint import Rows, distances, table, tolerance
from sandbox.oracle import LossOracle
from sandbox.reports import Fingerprint, Match, Nearest, Properties
from sandbox.server import OracleServer

SCALES = (1 / 16, 16.0)  # a known loss at beta * c with c in here is a rescaled beta, not a discovery
_COARSE = 129  # values of c tried first, evenly in log c
_CURVES_EVERY = 8  # loss curves are kept for every eighth of them
_FINE = 9  # values of c in each refinement, which narrows the bracket four times
_WORTH_REFINING = 0.08  # a true match is within 0.055 of its nearest value in the coarse table (Savage, for one)
_FLOOR = 0.48  # of the slope between table values: a flat minimum has 0.5; kinks near the match bring true ones to 0.45
_CLEAR = 0.01  # of DUPLICATE_DISTANCE: no need to search on
_FLAT = 0.8  # around a true match the distance is V-shaped; a minimum this close to its neighbours is not one
_NOTHING = 1e-30  # no gradient that float32 could hold against others
_SIEVE = 16  # every so many table values are looked at first
_PASSES = 0.5  # mean gap at the nearest of those beyond which no value in between can match
_VARIES = 1.02  # between the largest and the smallest factor of a loss that a trainer sees at one beta

Known = Mapping[str, tuple[Candidate, tuple[str, ...]]]  # name -> candidate, and the inputs that it reads


@dataclass(frozen=True)
class Tables:
    """What known losses do at each scale, in their order; float32 where nothing else is said.

    Attributes:
        rows: (known, scales, rows, values) fingerprints, and (known, scales, rows) float64 what was divided out of them.
        curves: (known, scales, points) normalised loss curves; no points for a contract without a margin.
    """

    rows: Rows
    curves: Tensor


def build_tables(server: OracleServer, contract: Contract, known: Known, conditions: Conditions) -> Tables:
    """One child and two packed calls for each known loss: about a tenth of a second. Raises what the oracle raises."""
    scales, bends = _scales(contract), _curve_scales(contract)
    found, curves = [], []
    for name in known:
        with _oracle(server, contract, known, name) as oracle:
            found.append(table(oracle, scales, conditions))
            if curve.has_margin(contract):
                curves.append(curve.curve_table(oracle, bends).float())
    parts = ([r.values.float() for r in found], [r.norms for r in found], [r.levels for r in found])
    empty = torch.zeros(0, len(scales), 0)
    rows = Rows(*(torch.stack(p) for p in parts)) if found else Rows(empty.unsqueeze(-1), empty, empty)
    return Tables(rows, torch.stack(curves) if curves else torch.zeros(len(known), len(bends), _points(contract)))


def tables_key(contract: Contract, known: Known, conditions: Conditions) -> str:
    """A hash of everything that the tables depend on: torch, contract, losses, conditions, and the code that measures."""
    losses = [(name, candidate.id, parameters) for name, (candidate, parameters) in known.items()]
    code = [Path(str(module.__file__)).read_bytes() for module in (curve, draws, fingerprint)]
    given = (torch.__version__, contract, losses, vars(conditions), _scales(contract), _curve_scales(contract))
    return hashlib.sha256(b"\0".join([repr(given).encode(), *code])).hexdigest()[:32]


@dataclass(frozen=True)
class _View:
    """What of a candidate is compared with the tables, and how near counts as equal.

    Attributes:
        one: its rows, without those that are not compared.
        lit: which rows are.
        dark: rows in which it has no gradient; they are not.
        losses_alone: its losses up to one factor for each row, in the place of normalised losses and gradients.
    """

    one: Rows
    lit: Tensor
    tolerance: float
    batch: int
    dark: Tensor
    losses_alone: bool

    def seen(self, rows: Rows) -> Rows:
        """A known loss's rows as this view compares them."""
        rows = rows.losses(self.batch) if self.losses_alone else rows
        return rows if bool(self.lit.all()) else rows[:, self.lit]


class KnownLosses:
    """Recognises known losses, at any scale.

    Args:
        server: where the children come from that a close match is checked in.
        known: the losses; all of them accepted by the gate.
        conditions: under which fingerprints are taken.
        tables: from `build_tables` for the same contract, losses and conditions; made here if there are none.

    Raises:
        ValueError: `tables` of another number of losses or scales.
    """

    def __init__(
        self,
        server: OracleServer,
        contract: Contract,
        known: Known,
        conditions: Conditions,
        tables: Tables | None = None,
    ) -> None:
        self._server, self._contract, self._known = server, contract, dict(known)
        self.conditions = conditions
        self._names = list(known)
        self._scales, self._curve_scales = _scales(contract), _curve_scales(contract)
        self._unscaled = self._scales.index(1.0)
        made = tables or build_tables(server, contract, known, conditions)
        right = (len(known), len(self._curve_scales), _points(contract))
        if made.rows.values.shape[:2] != (len(known), len(self._scales)) or made.curves.shape != right:
            raise ValueError("tables of other losses, or of another version of this code")
        self._rows, self._curves = made.rows, made.curves
        self._prints = made.rows.values

    def match(
        self, found: Fingerprint, properties: Properties | None = None, parameters: Sequence[str] = ()
    ) -> Match | None:
        """The known loss that this is a copy of, up to the scale scalar and a positive factor; None if it is new.

        A copy of one as it stands is preferred to a copy of another at some scale: some known losses are others rescaled.

        A factor of the gradients is a learning rate, whatever it depends on. So is a factor of the whole batch's losses
        through which gradients flow, if nothing else changes them: `properties` say so.

        Args:
            found: the candidate's, as the probe took it: what a copy does in either precision makes it one.
            properties: from the same probe.
            parameters: the inputs that it reads, to say what a factor depends on.

        Raises:
            ValueError: a fingerprint that was taken under other conditions. CandidateError, InfrastructureError: from the
                oracle.
        """
        self._require_comparable(found)
        if not self._names:
            return None
        prints = [p for p in (found, found.other) if p is not None]
        whole = properties is not None and properties.batch_coupled and not properties.detached_parts
        for losses_alone in (False, True) if whole else (False,):
            for one in prints:
                view = _view(one, self.conditions.batch, losses_alone)
                for match, theirs in self._candidates(view):
                    factor = self._factor(view, theirs, properties, parameters)
                    if factor or not losses_alone:
                        return replace(match, factor=factor)
        return None

    def _require_comparable(self, found: Fingerprint) -> None:
        if found.conditions != self.conditions:
            raise ValueError("a fingerprint that was taken under other conditions than the known losses'")

    def _candidates(self, view: _View) -> Iterator[tuple[Match, Rows]]:
        """Matches, the best one at scale 1 first, each with all rows of the known loss there."""
        if not bool(view.lit.any()):
            return
        plain = view.seen(self._rows[:, self._unscaled])
        same = distances(view.one.values.float(), plain.values)
        best = int(same.argmin())
        if float(same[best]) < view.tolerance:
            yield Match(self._names[best], 1.0, float(same[best])), self._rows[best : best + 1, self._unscaled]
        for position, name in enumerate(self._names):
            found = self._rescaled(position, name, view)
            if found is not None:
                yield found

    def _factor(self, view: _View, theirs: Rows, properties: Properties | None, parameters: Sequence[str]) -> str:
        """What the factor between two matching losses depends on; "" if it is the same in all calls of a training run."""
        norms = view.seen(theirs).norms[0]
        ratios = view.one.norms[0] / norms.clamp(min=_NOTHING)
        plain = (norms > _NOTHING) & (
            norms < 1 / _NOTHING
        )  # beyond, the last digits of the scale move an exponential's norm
        number = torch.arange(len(view.lit))[view.lit] % SETTINGS  # rows of one number have the same scale scalar
        groups = [ratios[plain & (number == n)] for n in range(SETTINGS)]
        paused = bool((view.dark & (theirs.norms[0] > _NOTHING)).any())
        if not paused and all(len(g) == 0 or float(g.max()) <= _VARIES * float(g.min()) for g in groups):
            return ""
        changing = [
            s.name for s in self._contract.scalars if s.name in parameters and s.name != self._contract.scale_scalar
        ]
        if properties is not None and properties.batch_coupled:
            changing.append("the batch")
        return " or ".join(changing) or "the call"

    def nearest(self, found: Fingerprint, losses: Sequence[float] = (), limit: int = 3) -> Nearest:
        """The known losses that behave most alike. `losses`: the candidate's curve, as in `MarginBehaviour.curve`."""
        self._require_comparable(found)
        one = torch.tensor([found.values]).float()
        rows = [_apart(one, prints, self.conditions.batch) for prints in self._prints]
        near = {name: _nearest_of(name, row, self._scales) for name, row in zip(self._names, rows, strict=False)}
        bent: list[Match] = []
        if losses and self._curves.shape[2] == len(losses):
            gaps = (self._curves - torch.tensor(losses)).norm(dim=2).nan_to_num(math.inf)
            bent = [_nearest_of(*item, self._curve_scales) for item in zip(self._names, gaps, strict=True)]
        # several known losses may have one curve; what else they do decides between them
        bent.sort(key=lambda m: (round(m.distance, 4), near[m.name].distance if m.name in near else 0.0, m.name))
        ordered = sorted(near.values(), key=lambda m: (m.distance, m.name))
        return Nearest(tuple(ordered[:limit]), tuple(bent[:limit]))

    def _rescaled(self, position: int, name: str, view: _View) -> tuple[Match, Rows] | None:
        """The match of one known loss at some scale, if there is one, and its rows there."""
        rows, one = self._rows, view.one.values.float()

        def gaps_at(step: int) -> Tensor:
            return _mean_gaps(one, view.seen(rows[position, ::step]).values)

        if float(gaps_at(_SIEVE).min()) > _PASSES:
            return None
        gaps = gaps_at(1).tolist()
        best = min(range(len(gaps)), key=gaps.__getitem__)
        if gaps[best] < _WORTH_REFINING and _reaches_zero(gaps, best):
            match, theirs = self._refine(name, view, best)
            if match.distance < view.tolerance:
                return match, theirs
        return None

    def _refine(self, name: str, view: _View, best: int) -> tuple[Match, Rows]:
        """Search c between the neighbours of the best coarse value, then compare there."""
        one = view.one.values.double()
        low, high = self._scales[max(best - 1, 0)], self._scales[min(best + 1, len(self._scales) - 1)]
        with _oracle(self._server, self._contract, self._known, name) as oracle:
            while True:
                scales = [low * (high / low) ** (i / (_FINE - 1)) for i in range(_FINE)]
                rows = table(oracle, scales, self.conditions)
                seen = view.seen(rows).values
                gaps = _mean_gaps(one, seen)
                at = int(gaps.argmin())
                found, theirs = Match(name, scales[at], float(distances(one, seen[at : at + 1]))), rows[at : at + 1]
                around = gaps[max(at - 1, 0) : at + 2]
                if found.distance < _CLEAR * view.tolerance or float(gaps[at]) > _FLAT * float(around.max()):
                    return found, theirs
                low, high = scales[max(at - 1, 0)], scales[min(at + 1, len(scales) - 1)]
                if high / low <= 1 + 1e-9:
                    return found, theirs


def _view(one: Fingerprint, batch: int, losses_alone: bool) -> _View:
    """Of all rows but those in which the candidate has no gradient (a learning rate of 0), or leaves float32's range."""
    values, norms = torch.tensor([one.values], dtype=torch.float64), torch.tensor([one.norms], dtype=torch.float64)
    rows = Rows(values, norms, torch.tensor([one.levels], dtype=torch.float64))
    lit = norms[0] > 0
    if one.single:
        lit &= values[0].isfinite().all(1)
    rows = rows.losses(batch) if losses_alone else rows
    return _View(rows[:, lit], lit, tolerance(one), batch, norms[0] == 0, losses_alone)


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


def _apart(one: Tensor, rows: Tensor, batch: int) -> Tensor:
    """(items,) mean over rows of the distance between their gradients, which have norm 1. NaN counts as equal."""
    gaps = (one - rows)[..., batch:].nan_to_num(0.0)
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
