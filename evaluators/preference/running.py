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


class MovingMean:
    """Moving mean of each run's mean, which forgets: a tenth of it is of the newest step. It starts at 0.

    That start is not corrected for: beta-DPO was trained so.
    """

    _KEPT = 0.9  # of the last value, as in the code that trained beta-DPO

    def __init__(self) -> None:
        self._mean = torch.zeros(1, dtype=torch.float64)

    def update(self, values: Tensor) -> list[float]:
        """Takes (R, N) values of one step, gives R moving means that include it."""
        self._mean = self._KEPT * self._mean + (1 - self._KEPT) * values.double().mean(1).cpu()
        means: list[float] = self._mean.tolist()
        return means
