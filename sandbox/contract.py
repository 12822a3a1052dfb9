"""What a candidate function of a task family receives and returns.

One object: the prompt text, the gate, the probe, the oracle and the exporters are all derived from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

DType = Literal["float32", "int64", "bool"]
Wanted = Literal["up", "down", "by_label"]

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True)
class TensorInput:
    """One tensor argument of shape (B,).

    Attributes:
        name: parameter name in the candidate's signature.
        description: one sentence for the prompt.
        low, high: the ordinary range; the probe draws from it, extremes lie far outside.
        carries_gradient: whether the trainer back-propagates into it (policy inputs do, reference inputs do not).
        dtype: what the candidate sees (float32 becomes float64 where a check needs more digits).
        optional: the candidate receives it only if it names it as a parameter.
        reference: the input without gradient that this policy input starts equal to and is compared with, if there is one.
        below: what no value reaches, however far training goes, if there is such a bound: a log-prob is below 0.
        wanted: which way a good loss moves this policy input, or on which side better examples have another input: up, down,
            or by the contract's label, up where it is true. None claims nothing: no margin and no slope are measured for it.
        tokens_of: the input whose sum over tokens this one counts the tokens of, for lengths; both are drawn to fit.
        privileged: it tells more about an example than its label does, as a reward or the probability behind the label
            does. A loss that reads it is compared with others that do.
    """

    name: str
    description: str
    low: float
    high: float
    carries_gradient: bool = False
    dtype: DType = "float32"
    optional: bool = False
    reference: str | None = None
    below: float | None = None
    wanted: Wanted | None = None
    tokens_of: str | None = None
    privileged: bool = False


@dataclass(frozen=True)
class ScalarInput:
    """One Python float argument. The probe tries `probe_values` and draws others between the least and the largest."""

    name: str
    description: str
    default: float
    probe_values: tuple[float, ...]
    optional: bool = False


@dataclass(frozen=True)
class Contract:
    """The signature of a task family's candidates: `function(*tensors, *scalars) -> (B,)` per-example losses.

    Attributes:
        name: e.g. ``preference.pairs``; part of a candidate's identity.
        function: the name the candidate must define.
        description: what the inputs are and what training minimises, for the prompt.
        tensors, scalars: the arguments, required ones first.
        scale_scalar: the scalar (beta) whose rescaling does not make a new objective, if any.
        label: the bool input that says which way inputs that are wanted "by_label" should go.
        smallest_batch: the fewest examples that any trainer passes in one call; nothing smaller is probed.

    Raises:
        ValueError: an empty, repeated or non-identifier name, no gradient-carrying input, an unknown `scale_scalar`, a
            `label` that is no required bool input, an input wanted by a label that there is not, a required tensor after an
            optional one, a `reference` that is no input without gradient, `tokens_of` that is no input, a range that reaches
            `below`, or a `smallest_batch` below 1.
    """

    name: str
    function: str
    description: str
    tensors: tuple[TensorInput, ...]
    scalars: tuple[ScalarInput, ...] = ()
    scale_scalar: str | None = None
    label: str | None = None
    smallest_batch: int = 1

    def __post_init__(self) -> None:
        names = [i.name for i in self.inputs]
        if len(set(names)) != len(names):
            raise ValueError(f"contract {self.name}: an input name is repeated")
        for name in (self.function, *names):
            if not _NAME.match(name):
                raise ValueError(f"contract {self.name}: {name!r} is not a lower-case identifier")
        if not any(t.carries_gradient and not t.optional for t in self.tensors):
            raise ValueError(f"contract {self.name}: no required input carries gradient")
        if self.scale_scalar is not None and self.scale_scalar not in {s.name for s in self.scalars}:
            raise ValueError(f"contract {self.name}: scale_scalar {self.scale_scalar!r} is not one of its scalars")
        if self.label not in {None, *(t.name for t in self.tensors if t.dtype == "bool" and not t.optional)}:
            raise ValueError(f"contract {self.name}: label {self.label!r} is not one of its required bool inputs")
        if self.label is None and any(t.wanted == "by_label" for t in self.tensors):
            raise ValueError(f"contract {self.name}: an input is wanted by_label, and there is no label")
        if [t.optional for t in self.tensors] != sorted(t.optional for t in self.tensors):
            raise ValueError(f"contract {self.name}: an optional tensor stands before a required one")
        fixed = {t.name for t in self.tensors if not t.carries_gradient}
        for tensor in self.tensors:
            if tensor.reference is not None and not (tensor.carries_gradient and tensor.reference in fixed):
                raise ValueError(
                    f"contract {self.name}: {tensor.name} has no reference {tensor.reference!r} without gradient"
                )
            if tensor.below is not None and tensor.high >= tensor.below:
                raise ValueError(f"contract {self.name}: the range of {tensor.name} is not below {tensor.below:g}")
            if tensor.tokens_of not in {None, *(t.name for t in self.tensors)}:
                raise ValueError(
                    f"contract {self.name}: {tensor.name} counts the tokens of no input {tensor.tokens_of!r}"
                )
        if self.smallest_batch < 1:
            raise ValueError(f"contract {self.name}: smallest_batch must be at least 1, not {self.smallest_batch}")

    @property
    def inputs(self) -> list[TensorInput | ScalarInput]:
        return [*self.tensors, *self.scalars]

    @property
    def required(self) -> tuple[str, ...]:
        """Names every candidate must take, in order."""
        return tuple(i.name for i in self.inputs if not i.optional)

    @property
    def optional(self) -> tuple[str, ...]:
        """Names a candidate may take."""
        return tuple(i.name for i in self.inputs if i.optional)

    def tensors_of(self, parameters: tuple[str, ...]) -> tuple[TensorInput, ...]:
        """The tensor inputs that a candidate with these parameters receives, in contract order."""
        return tuple(t for t in self.tensors if t.name in parameters)

    def privileged_of(self, parameters: Collection[str]) -> tuple[str, ...]:
        """Those inputs of a candidate with these parameters that tell it more than labels do, in contract order."""
        return tuple(t.name for t in self.tensors if t.privileged and t.name in parameters)

    def scalars_of(self, parameters: tuple[str, ...]) -> tuple[ScalarInput, ...]:
        """The scalar inputs that a candidate with these parameters receives, in contract order."""
        return tuple(s for s in self.scalars if s.name in parameters)

    def signature(self) -> str:
        """The required signature as Python source, e.g. ``def loss(a: torch.Tensor, beta: float) -> torch.Tensor:``."""
        typed = [f"{t.name}: torch.Tensor" for t in self.tensors if not t.optional]
        typed += [f"{s.name}: float" for s in self.scalars if not s.optional]
        return f"def {self.function}({', '.join(typed)}) -> torch.Tensor:"


def _fresh_seed() -> int:
    return random.SystemRandom().getrandbits(52)  # a whole number in JSON, whoever reads it


@dataclass(frozen=True)
class Conditions:
    """What training passes to a loss, and the secret from which inputs like it are drawn.

    Fingerprints taken under equal conditions can be compared, others cannot. Whoever writes a candidate must not know the
    seed: it would tell at which values, in which order, the candidate is compared.

    Attributes:
        seed: of all values that are drawn; by default a fresh one from the system's randomness. No text of this shows it.
        batch: examples in one call of the training.
        scales: values of the contract's scale scalar in training; empty: draw them between its probe values.

    Raises:
        ValueError: a batch below 1.
    """

    seed: int = field(default_factory=_fresh_seed, repr=False)
    batch: int = 32
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"a batch of {self.batch} examples")
