"""Evaluators as plug-ins: made, prepared, and held to what they promise, before anything of them is stored."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evaluators.base import Calls, Evaluator, Metric, MetricSpec, TrialReport
from evaluators.options import nearest
from evaluators.plugin_border import method_of, name_of, optional, plugin_border
from sandbox.contract import Contract
from sandbox.failure import PluginError


def wrong_facts(kind: Any) -> list[str]:
    """What an evaluator's class says of itself and cannot be used, one phrase each."""
    wrong = [f"{n} is a {_kind(getattr(kind, n))}, not text" for n in ("name", "summary") if not _is(kind, n, str)]
    wrong += [f"version is a {_kind(kind.version)}, not a whole number"] * (not _is(kind, "version", int))
    wrong += [f"contract is a {_kind(kind.contract)}, not a Contract"] * (not _is(kind, "contract", Contract))
    wrong += [f"arrays_doc is a {_kind(kind.arrays_doc)}, not a mapping"] * (not _is(kind, "arrays_doc", Mapping))
    metrics = kind.metrics
    if not isinstance(metrics, (tuple, list)) or not metrics or not all(isinstance(m, MetricSpec) for m in metrics):
        wrong.append("metrics is no tuple of MetricSpec")
    elif kind.primary_metric not in [m.name for m in metrics]:
        wrong.append(f"primary_metric {kind.primary_metric!r} is none of its metrics")
    return wrong


def prepare(evaluator: Evaluator, tell: Callable[[str], None] | None = None) -> dict[str, float]:
    """Have it prepare what its trials share; returns its facts as plain numbers.

    Raises OptionsError, PluginError, InfrastructureError.
    """
    with plugin_border(evaluator, "prepare"):
        return _checked_facts(evaluator, evaluator.prepare(tell))


def calls_of(evaluator: Evaluator) -> Calls | None:
    """How its training calls a loss; None where it does not say. Raises PluginError."""
    with plugin_border(evaluator, "calls"):
        calls: Any = optional(evaluator, "calls")
    if calls is not None and not isinstance(calls, Calls):
        raise PluginError(f"{name_of(evaluator)}, calls are a {_kind(calls)}, not Calls")
    return calls


def _checked_facts(evaluator: Evaluator, facts: Any) -> dict[str, float]:
    where = method_of(evaluator, "prepare")
    if not isinstance(facts, Mapping):
        raise PluginError(f"{where} returned a {_kind(facts)}, not a mapping of names to numbers")
    return {str(name): _number(value, f"{where} returned {name}") for name, value in facts.items()}


def checked_report(evaluator: Evaluator, report: Any, seed: int) -> TrialReport:
    """The report with plain numbers, if it is one, is about this seed, and holds every promised metric as a finite number.

    Raises PluginError.
    """
    where = method_of(evaluator, "run")
    if type(report) is not TrialReport:  # a class of its own could not be read by the driver
        raise PluginError(f"{where} returned a {_kind(report)}, not a TrialReport")
    if report.seed != seed:
        raise PluginError(f"{where} reported seed {report.seed!r} when it was asked for {seed}")
    for metric in report.metrics:
        if type(metric) is not Metric:
            raise PluginError(f"{where} reported a {_kind(metric)} among its metrics, not a Metric")
    metrics = tuple(_plain(metric, f"{where} reported the metric {metric.name}") for metric in report.metrics)
    reported = {m.name: m for m in metrics}
    for promised in evaluator.metrics:
        if promised.name not in reported:
            near = f"; {nearest(promised.name, list(reported))}" if reported else ""
            raise PluginError(f"{where} reported no {promised.name}, which it promises{near}")
        if reported[promised.name].higher_is_better != promised.higher_is_better:
            raise PluginError(f"{where} reported {promised.name} with another direction than it promises")
    for name, array in report.arrays.items():
        if type(array) is not np.ndarray:
            raise PluginError(f"{where} reported {name} as a {_kind(array)}, not as a numpy array")
        if array.dtype.hasobject:
            raise PluginError(f"{where} reported {name} as an array of objects, not of numbers or text")
    return replace(report, metrics=metrics)


def _plain(metric: Metric, what: str) -> Metric:
    stderr = None if metric.stderr is None else _number(metric.stderr, f"{what}'s standard error")
    return replace(metric, value=_number(metric.value, what), stderr=stderr)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise PluginError(f"{what} as a {_kind(value)}, not a number")
    if not math.isfinite(value):
        raise PluginError(f"{what} as {float(value)}; an evaluator must raise instead")
    return float(value)


def _kind(value: object) -> str:
    return type(value).__name__


def _is(kind: Any, name: str, wanted: type) -> bool:
    return isinstance(getattr(kind, name), wanted)
