"""Inputs of the recorded vectors, and what collects the results. Used by `make_trl_vectors.py` in TRL's own environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20250612
PAIRS = 12
BETAS = (0.1, 1.5)
EXTREMES = (10.0, 100.0, 1e3, 1e4)
DTYPES = ("float64", "float32", "bfloat16")


def drawn(kind: str) -> dict[str, Any]:
    """Log-probs and lengths of PAIRS pairs, float64; `kind` is random or extreme, which is about the log-ratios."""
    rng = np.random.Generator(np.random.PCG64([SEED, kind == "extreme"]))
    found: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        reference = rng.uniform(-60, -2, PAIRS)
        ratio = rng.normal(0, 3, PAIRS)
        if kind == "extreme":
            ratio = rng.choice([-1.0, 1.0], PAIRS) * rng.choice(EXTREMES, PAIRS)
        found[f"ref_{side}"] = reference
        found[side] = np.minimum(reference + ratio, -0.05) if kind == "random" else reference + ratio
        found[f"{side}_length"] = rng.integers(1, 40, PAIRS)
    found["kl"] = rng.uniform(-60, -2, PAIRS)
    found["ref_kl"] = found["kl"] - rng.normal(0.5, 1, PAIRS)
    return found


class Recorder:
    """Collects records and their arrays; a record names the arrays it refers to."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.records: list[dict[str, Any]] = []
        self.arrays: dict[str, Any] = {}

    def add(self, loss: str, dtype: str, kind: str, beta: float, settings: dict[str, Any], **outputs: Any) -> None:
        """`outputs` are tensors or numbers; tensors become float64 arrays."""
        number = len(self.records)
        arrays, facts = {}, {}
        for name, value in outputs.items():
            if hasattr(value, "detach"):
                key = f"{self.version}/{number}/{name}"
                self.arrays[key] = value.detach().double().numpy()
                arrays[name] = key
            else:
                facts[name] = value
        self.records.append(
            {"version": self.version, "loss": loss, "dtype": dtype, "kind": kind, "beta": beta}
            | {"settings": settings, "arrays": arrays, **facts}
        )

    def save(self, path: Path) -> None:
        for kind in ("random", "extreme"):
            for dtype in DTYPES:
                for name, tensor in tensors(kind, dtype).items():
                    self.arrays[f"inputs/{kind}/{dtype}/{name}"] = tensor.double().numpy()
        records = np.frombuffer(json.dumps(self.records).encode(), np.uint8)
        np.savez(path, records=records, **self.arrays)


def tensors(kind: str, dtype: str) -> dict[str, Any]:
    """The drawn inputs in a precision; lengths stay integers."""
    import torch

    found = {}
    for name, values in drawn(kind).items():
        tensor = torch.from_numpy(np.asarray(values))
        found[name] = tensor if name.endswith("length") else tensor.to(getattr(torch, dtype))
    return found
