"""Calls every allow-listed name on tensors, and sees which give back an argument or a view of it, and which change one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch

from tests.sandbox.call_everything import SUBJECTS

y = torch.linspace(0.05, 0.95, 32)
m, sq, one, zero, i, b = (
    torch.stack([y, 2 * y]),
    torch.eye(3),
    torch.ones(1),
    torch.tensor(0.5),
    torch.arange(32) % 4,
    y > 0.5,
)

# arguments for which much becomes the identity: of the type, shape and size already, by nothing, over no dimension
ARGUMENTS: list[tuple[Any, ...]] = [
    (y,), (m,), (sq,), (one,), (zero,), (i,), (b,), (y.double(),), ([y],), ([zero],), (y, y), (y, 0), (y, 1), (y, -1),
    (y, ()), (y, (32,)), (y, 32), (y, 0, 1), (y, 1, 0), (y, 0, -1), (m, 0, 1), (m, (0, 1)), (m, 1), (y, torch.float32),
    (i, torch.int64), (b, torch.bool), (y, 1.0), (y, 0.0), (y, 0.0, 0.0), (1.0, y), (y, 0, 0, 32), (y, 0, (4, 8)),
    (y, (0, 0)), ("i->i", y), ("i->i", [y]), (b, y, y), (y[None],), (y[None], 0), (y, "cpu"), (i, 1), (y, i),
    (0.0, y), ([y, y],), (y, None, None, None),
]  # fmt: skip


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a result or an argument."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def _subjects() -> dict[str, Callable[..., Any]]:
    """Names of functions and methods; of modules an instance, of which the gate knows nothing, is called."""
    kept = {n: use for n, use in SUBJECTS.items() if n.startswith((".", "torch."))}
    return {n: use for n, use in kept.items() if not n.startswith("torch.nn.") or n.startswith("torch.nn.functional.")}


def measure() -> tuple[set[str], set[str]]:
    """Names whose result shares memory with an argument, and names that have changed an argument."""
    warnings.simplefilter("ignore")
    share, change = set(), set()
    for name, use in _subjects().items():
        for given in ARGUMENTS:
            mine = list(tensors(given))
            before = [t._version for t in mine]
            with suppress(Exception):  # most arguments suit few names
                memory = {t.untyped_storage().data_ptr() for t in tensors(use(*given)) if t.numel()}
                share |= {name} if memory & {t.untyped_storage().data_ptr() for t in mine} else set()
            change |= {name} if [t._version for t in mine] != before else set()
    return share, change
