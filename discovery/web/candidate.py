"""Everything about one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from db.arrays import means_along
from db.measurements import Trials, by_measurement
from db.records import CampaignRecord, Entry, EntryFilter
from discovery.browse.comparison import code_diff
from discovery.browse.curves import LossCurve, stored_curve
from discovery.browse.intervals import Regimes, limits_of, metric_interval, regimes_of
from discovery.cli.catalogue import contract_named
from discovery.cli.probed import properties
from discovery.contest import alike
from discovery.gathering import of_archived
from discovery.statistics import Difference
from discovery.web.charts import Figure, figure, line, thinned
from discovery.web.compare import curve_charts
from evaluators.options import OptionsError
from evaluators.plugins import load_installed, plugin_names
from sandbox.text import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from db.archive import Archive

_BESIDE = 4  # baselines whose curves are drawn too
_CURVES, _SEEDS, _POINTS = 8, 6, 300  # training curves, lines in each, points of each
_MEAN, _LAST = ".mean", ".last"  # NAME.mean and NAME.last: what is kept of an array that is not kept whole
_CHECKPOINTS = "checkpoints"  # an array with the steps at which others were measured


@dataclass(frozen=True)
class Row:
    """One metric of a measurement: its mean over seeds with the interval, and the value of each seed that has one."""

    metric: str
    mean: Difference
    by_seed: Mapping[int, float]


@dataclass(frozen=True)
class Stage:
    """One measurement: its trials, and a table of their metrics."""

    title: str
    trials: Trials
    rows: tuple[Row, ...]
    regimes: Regimes | None = None  # the ranking metric in each world by itself

    @property
    def seeds(self) -> list[int]:
        return [t.seed for t in self.trials.trials if t.status == "done"]


def candidate(archive: Archive, prefix: str, campaign: str | None) -> dict[str, Any]:
    """Raises ArchiveError."""
    entry = archive.entry(prefix, campaign)
    proposal = archive.proposal_of(entry.candidate.id, entry.campaign)
    record = archive.campaign(entry.campaign)
    trials = archive.trials(entry.candidate.id, campaign=entry.campaign)
    lineage = archive.lineage(entry.candidate.id, entry.campaign)
    parents = [archive.entry(a.candidate_id, entry.campaign) for a in lineage if a.depth == 1]
    groups = by_measurement(trials, record.ranking)
    return {
        "entry": entry,
        "proposal": proposal,
        "parents": [(p, code_diff(p, entry)) for p in parents],
        "curves": curve_charts(_curves(archive, entry)),
        "checks": properties(proposal.probe),
        "nearest": proposal.probe.nearest if proposal.probe is not None else None,
        "stages": [_stage(archive, record, entry, group) for group in groups],
        "measurements": _measurements(archive, entry),
        "training": _training(archive, groups[0]) if groups else [],
        "formats": plugin_names("exporters"),
        "leading_baseline": next(iter(_baselines(archive, entry)), None),
    }


def _baselines(archive: Archive, entry: Entry) -> Sequence[Entry]:
    """The leading known objectives of the campaign without the candidate itself, those of its own kind first."""
    found = archive.entries(entry.campaign, EntryFilter(status="ranked", origin="known"))
    others = [e for e in found if e.candidate.id != entry.candidate.id]
    return sorted(others, key=lambda e: not alike(e, entry))[:_BESIDE]


def _curves(archive: Archive, entry: Entry) -> list[LossCurve]:
    """The candidate's curve and those of the leading baselines; nothing if it has none itself."""
    shown = (
        stored_curve(archive.proposal_of(e.candidate.id, e.campaign)) for e in (entry, *_baselines(archive, entry))
    )
    found = [c for c in shown if c is not None]
    return found if found and found[0].candidate_id == entry.candidate.id else []


def _measurements(archive: Archive, entry: Entry) -> Sequence[Any]:
    """With differences to baselines; nothing where the interface belongs to an evaluator that is not installed."""
    try:
        contract = contract_named(entry.candidate.contract)
    except OptionsError:
        return ()
    return of_archived(archive, entry, contract).measurements


def _stage(archive: Archive, record: CampaignRecord, loss: Entry, group: Trials) -> Stage:
    evaluator = archive.task(group.task_id).task.evaluator
    fresh = "on seeds that the search never saw" if group.fresh else "another task"
    title = f"{evaluator}, ranks by {record.ranking.metric}" if group.ranks else f"{evaluator}, promotion: {fresh}"
    values: dict[str, dict[int, float]] = {}
    for trial in group.trials:
        for found in trial.metrics if trial.status == "done" else ():
            if "/" not in found.name:
                values.setdefault(found.name, {})[trial.seed] = found.value
    limits = limits_of(evaluator)
    rows = (Row(name, metric_interval(group.trials, name, limits), v) for name, v in values.items())
    return Stage(title, group, tuple(rows), regimes_of(archive, record, loss, group))


def _training(archive: Archive, group: Trials) -> list[tuple[str, str, Figure]]:
    """Name, meaning and chart of each array that grows along training, one line a seed, averaged over all other axes."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for trial in [t for t in group.trials if t.status == "done"][:_SEEDS]:
        arrays = archive.arrays(trial.id)
        for name, means in _curves_of(arrays).items():
            x, y = (thinned(v.tolist(), _POINTS) for v in (_steps(arrays, name, len(means)), means))
            lines.setdefault(name, []).append(line(f"seed {trial.seed}", x, y, line={"width": 1.5}))
    meanings = _meanings(archive.task(group.task_id).task.evaluator)
    return [
        (name, one_line(meanings.get(name, ""), 200), figure(found, "step", name))
        for name, found in list(lines.items())[:_CURVES]
    ]


def _curves_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Means along the last axis, by the name of the array that the evaluator reported."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in arrays.items():
        if name.endswith(_MEAN) and values.ndim == 1 and _is_curve(values):
            found[name.removesuffix(_MEAN)] = values
        elif values.ndim >= 2 and _is_curve(values) and not name.endswith(_LAST):
            found[name] = means_along(values)
    return found


def _is_curve(values: NDArray[Any]) -> bool:
    return values.size > 0 and values.shape[-1] >= 2 and np.issubdtype(values.dtype, np.number)


def _steps(arrays: Mapping[str, NDArray[Any]], name: str, length: int) -> NDArray[Any]:
    """Where a curve's points lie: at checkpoints if it has as many of them, else at the points that were kept of it."""
    at, of_steps, steps = (arrays.get(n) for n in (f"{name}.at", f"{_CHECKPOINTS}.at", _CHECKPOINTS))
    same = at is None or (of_steps is not None and np.array_equal(at, of_steps))
    if steps is not None and steps.shape == (length,) and same:
        return steps
    return at if at is not None and at.shape == (length,) else np.arange(length)


def _meanings(evaluator: str) -> Mapping[str, str]:
    """What the arrays hold, if the evaluator is installed here."""
    try:
        found: Mapping[str, str] = load_installed("evaluators", evaluator).arrays_doc
    except OptionsError:
        return {}
    return found
