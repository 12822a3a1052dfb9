"""Evolution of known losses as expression trees: no language model, no key.

The default of the demo, and the baseline that a language model must beat.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from db.messages import Reply
from discovery.expressions.breeding import Offspring, Parent, breed
from discovery.expressions.reader import read_tree
from discovery.expressions.trees import Node, TreeError
from discovery.expressions.writer import write_source
from discovery.protocols import Past, ProposerError, Request
from discovery.replies import label
from evaluators.objectives import default_baselines, known_objectives
from evaluators.options import OptionsError, option, parse_options
from sandbox.contract import Contract

FAMILY = "preference.pairs"
MODEL = "evolve"
_WORDS = {
    "logsigmoid": "logistic", "softplus": "logistic", "exp": "exp", "expm1": "exp", "relu": "hinge", "square": "square",
    "pow": "square", "sigmoid": "sigmoid", "tanh": "tanh", "atan": "atan", "sqrt": "root", "log1p": "log", "log": "log",
    "abs": "abs",
}  # fmt: skip
_MAX_WORDS = 3
_MAX_BRIEF = 64  # losses shown in brief that offspring are kept apart from; more would take too long


@dataclass(frozen=True)
class EvolveOptions:
    """Options of the `evolve` proposer."""

    fresh_blood: float = option(
        0.2, "share of proposals bred from the known objectives instead of the campaign's leaders"
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.fresh_blood <= 1.0:
            raise OptionsError("proposer evolve: fresh_blood is a share, from 0 to 1")


class EvolveProposer:
    """Recombines and mutates the plan's past losses; those it cannot read as trees are left out.

    Fresh blood, and the first proposals, come from the family's usual baselines. Offspring that copy any known loss that can
    be read as a tree are not proposed.

    A reply is a function of the seed, the plan's seed and past losses, and the attempt; nothing is remembered between
    requests.

    Raises:
        OptionsError: a bad option, or a contract of another family.
    """

    name: ClassVar[str] = "evolve"
    summary: ClassVar[str] = "expression trees of known losses, mutated and recombined; no language model is used"
    uses_llm: ClassVar[bool] = False
    repairs: ClassVar[bool] = False
    Options = EvolveOptions

    def __init__(self, options: Mapping[str, Any], contract: Contract, seed: int) -> None:
        self.options = parse_options(EvolveOptions, options, "proposer evolve")
        if contract.name != FAMILY:
            raise OptionsError(
                f"proposer evolve knows {FAMILY} only, not {contract.name}; use proposer openai for this evaluator"
            )
        self._contract, self._seed = contract, seed
        sources = {name: o.candidate.source for name, o in known_objectives(contract.name).items()}
        self._known = [p for p in (_parent(name, source, contract) for name, source in sources.items()) if p]
        stock = default_baselines(contract.name)
        self._stock = [p for p in self._known if p.name in stock]

    async def propose(self, request: Request) -> Reply:
        """One new loss; takes milliseconds.

        Raises:
            ProposerError: not fatal; no usable loss was found in a bounded number of draws.
        """
        started = time.perf_counter()
        plan = request.plan
        rng = random.Random(f"evolve/{self._seed}/{plan.seed}/{request.attempt}")
        past = self._read(plan.in_full)
        parents = self._stock if not past or rng.random() < self.options.fresh_blood else past
        avoid = [p.tree for p in [*self._known, *past, *self._read(plan.in_brief[:_MAX_BRIEF])]]
        try:
            offspring = breed(rng, parents, avoid)
        except TreeError as error:
            raise ProposerError(f"proposer evolve: {error}", fatal=False) from error
        return Reply(self._text(offspring), MODEL, time.perf_counter() - started)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _read(self, past: tuple[Past, ...]) -> list[Parent]:
        """Past losses as trees, in order; failed and unreadable ones are left out."""
        read = (_parent(p.name, p.source, self._contract) for p in past if p.failure is None)
        return [parent for parent in read if parent is not None]

    def _text(self, offspring: Offspring) -> str:
        """The reply, in the form that language models are asked for."""
        crossed = " and ".join(dict.fromkeys(offspring.parents))
        thought = f"{offspring.operator.capitalize()} of {crossed}: {offspring.account}."
        docstring = f"{thought}\n\nBred as an expression tree by the evolve proposer; no language model was used."
        code = write_source(offspring.tree, self._contract, docstring)
        digest = hashlib.sha256(code.encode()).hexdigest()[:4]
        name = "_".join([*_words(offspring.tree), offspring.operator, digest])
        return json.dumps({"thought": thought, "name": name, "code": code})


def _parent(name: str, source: str, contract: Contract) -> Parent | None:
    try:
        return Parent(
            label(name), read_tree(source, contract)
        )  # a past name is hostile text, and goes into a docstring
    except TreeError:
        return None


def _words(tree: Node) -> list[str]:
    """The functions that give a tree its character, outermost first."""
    found = [_WORDS[node.op] for node in reversed(list(tree.walk())) if node.op in _WORDS]
    return list(dict.fromkeys(found))[:_MAX_WORDS] or ["linear"]
