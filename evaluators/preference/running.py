"""Statistics over the steps of a training run that a loss may read."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMean:
    """Mean over the steps so far of each run's mean log-ratio."""

    def __init__(self) -> None:
        self._total, self._steps = torch.zeros(1, dtype=torch.float64), 0

    def update(self, log_ratios: Tensor) -> list[float]:
        """Takes (R, N) log-ratios of one step, gives R means over all steps including it."""
        self._total, self._steps = self._total + log_ratios.double().mean(1).cpu(), self._steps + 1
        means: list[float] = (self._total / self._steps).tolist()
        return means
