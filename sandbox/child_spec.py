"""What a child is told when it is forked: the candidate's entry point and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.contract import Contract
from sandbox.limits import Limits


@dataclass(frozen=True)
class ChildSpec:
    """A contract narrowed to the inputs one candidate reads, its limits, and how its source is run (see `packed.Entry`)."""

    contract: Contract
    parameters: tuple[str, ...]
    limits: Limits
    elementwise: bool = False
    mapped: bool = False
    module: bool = False

    def entry(self) -> dict[str, Any]:
        """The plain JSON that the fork server passes on."""
        tensors = self.contract.tensors_of(self.parameters)
        return {
            "function": self.contract.function,
            "tensors": [[t.name, t.dtype, t.carries_gradient] for t in tensors],
            "scalars": [s.name for s in self.contract.scalars_of(self.parameters)],
            "elementwise": self.elementwise,
            "mapped": self.mapped,
            "module": self.module,
        }
