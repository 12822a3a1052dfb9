"""How many workers fit on what a machine or a cluster has. Ray would wait for ever for what is not there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.base import Resources
from evaluators.options import OptionsError


@dataclass(frozen=True)
class Pools:
    """How many actors, with what, and where.

    Attributes:
        trial_slots, check_workers: how many are wanted.
        address: of the cluster to join; None for a Ray on this machine.
        resources: of one trial slot.
        secrets: environment variables that no other process may see.
        unsafe_no_sandbox: see `OracleServer`.
        gpus_are_set: whether `resources.gpus` is a setting of the campaign, and not what an evaluator asks for.
    """

    trial_slots: int
    check_workers: int
    address: str | None
    resources: Resources
    secrets: tuple[str, ...] = ()
    unsafe_no_sandbox: bool = False
    gpus_are_set: bool = False


@dataclass(frozen=True)
class Node:
    """What one machine offers to Ray; infinite where nothing is counted."""

    cpus: float
    gpus: float
    memory_mb: float


@dataclass(frozen=True)
class Fitted:
    """How many actors there is room for. `said`: what a person should know about it; empty where all fit."""

    trial_slots: int
    check_workers: int
    said: str = ""


def fit(pools: Pools, nodes: Sequence[Node]) -> Fitted:
    """As many of the wanted slots as there is room for: check workers first, but never so many that no trial fits.

    Raises OptionsError: not even one slot beside one check worker fits; says what is missing.
    """
    for checks in range(pools.check_workers, 0, -1):
        slots = min(pools.trial_slots, _slots(pools.resources, nodes, checks))
        if slots:
            break
    else:
        raise OptionsError(_why_none(pools, nodes))
    lacking = [
        f"{found} of {wanted} {name}"
        for name, found, wanted in (
            ("trial_slots", slots, pools.trial_slots),
            ("probe_workers", checks, pools.check_workers),
        )
        if found < wanted
    ]
    said = f"{_where(pools)} has room for {' and '.join(lacking)} ({_has(nodes)}): the campaign runs with those"
    return Fitted(slots, checks, said if lacking else "")


def _slots(wanted: Resources, nodes: Sequence[Node], checks: int) -> int:
    free = [node.cpus for node in nodes]
    for _ in range(checks):  # where most is free, as Ray does it
        most = max(range(len(free)), key=free.__getitem__, default=None)
        if most is None or free[most] < 1:
            return 0
        free[most] -= 1
    return sum(
        min(_times(cpus, wanted.cpus), _times(node.gpus, wanted.gpus), _times(node.memory_mb, wanted.memory_mb))
        for node, cpus in zip(nodes, free, strict=True)
    )


def _times(there: float, each: float) -> int:
    """How often `each` fits; Ray counts in ten-thousandths."""
    if not each or math.isinf(there):
        return 1_000_000
    return int(there / each + 1e-4)


def _why_none(pools: Pools, nodes: Sequence[Node]) -> str:
    r = pools.resources
    most = max((node.gpus for node in nodes), default=0.0)
    if r.gpus > most and not pools.gpus_are_set:
        has = "no GPU here" if not most else f"only {most:g} GPUs here"
        return (
            f"{has}: the evaluator asks for {r.gpus:g} (device: cuda); set device: cpu among its options, or join a cluster "
            "that has one with workers.ray_address"
        )
    if r.gpus > most:
        return (
            f"workers.gpus_per_trial is {r.gpus:g}, and {_where(pools)} has {most:g}; lower it, or leave it out "
            "for what the evaluator asks for"
        )
    return (
        f"{_where(pools)} has no room for a trial of {r.cpus:g} CPUs and {r.memory_mb:,} MB beside one probe worker of "
        f"1 CPU ({_has(nodes)}); lower workers.cpus_per_trial, or add nodes"
    )


def _where(pools: Pools) -> str:
    return f"the Ray cluster at {pools.address}" if pools.address else "this machine"


def _has(nodes: Sequence[Node]) -> str:
    counted = [n for n in nodes if math.isfinite(n.cpus)]
    cpus = f"{sum(n.cpus for n in counted):g} CPUs, " if counted else ""
    return f"{cpus}{sum(n.gpus for n in nodes):g} GPUs on {len(nodes)} node{'' if len(nodes) == 1 else 's'}"
