"""What the probe found, in words."""

from __future__ import annotations

from sandbox.reports import Nearest, ProbeReport, Properties
from sandbox.text import one_line


def properties(probe: ProbeReport | None) -> list[tuple[str, str]]:
    """Labels and values; what an earlier version did not measure is left out."""
    if probe is None or probe.properties is None:
        return []
    found = probe.properties
    judged = {
        "bounded below": found.bounded_below,
        "bounded above": found.bounded_above,
        "finite at extremes": found.finite_at_extremes,
        "monotone": found.monotone_decreasing,
        "convex in the margin": found.convex_in_margin,
        "uses the reference": found.uses_reference,
        "batch-coupled": found.batch_coupled,
        "detached parts": found.detached_parts,
    }
    facts = ", ".join(f"{name} {value:.4g}" for name, value in probe.facts.items())
    return [
        ("gradient to", ", ".join(found.inputs_with_gradient)),
        *((label, "yes" if value else "no") for label, value in judged.items() if value is not None),
        *_limits(found),
        *([("nearest known", _nearest(probe.nearest))] if probe.nearest is not None else []),
        *([("measured", one_line(facts))] if facts else []),
    ]


def _limits(found: Properties) -> list[tuple[str, str]]:
    up, down = found.limit_at_plus_infinity, found.limit_at_minus_infinity
    if up is None or down is None:
        return []
    return [("far margins", f"loss tends to {one_line(up, 20)} upwards, {one_line(down, 20)} downwards")]


def _nearest(found: Nearest) -> str:
    """``dpo 0.012, ipo 0.1 (by fingerprint); dpo 0.002 (by curve)``, each at its best factor of the scale scalar."""
    ways = (("fingerprint", found.by_fingerprint), ("curve", found.by_curve))
    said = [f"{', '.join(f'{m.name} {m.distance:.3g}' for m in near)} (by {way})" for way, near in ways if near]
    return "; ".join(said)
