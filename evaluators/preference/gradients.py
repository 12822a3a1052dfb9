"""Gradients of norm 1.

What only scales a batch's gradient, be it a constant, a schedule or a statistic of the batch, changes nothing then.
"""

from __future__ import annotations

from torch import Tensor


def normalised(gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The gradient with norm 1 over `dims`, which hold the weights of one run; what is 0 stays 0.

    Tiny and huge gradients keep their direction: nothing is squared before it is divided by its largest entry.
    """
    largest = gradient.abs().amax(dims, keepdim=True)
    scaled = gradient / largest.where(largest > 0, 1.0)
    return scaled / scaled.square().sum(dims, keepdim=True).sqrt().clamp(min=1.0)
