"""`preference.enumerable_unpaired`: the worlds and the score of `preference.enumerable`, for losses of single responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from evaluators.preference.contract import UNPAIRED
from evaluators.preference.enumerable.description import describe_unpaired
from evaluators.preference.enumerable.evaluator import EnumerableEvaluator
from evaluators.preference.enumerable.options import UnpairedOptions
from sandbox.contract import Contract

if TYPE_CHECKING:
    import torch

    from evaluators.preference.enumerable.feeds import Feed
    from evaluators.preference.enumerable.worlds import Worlds


class EnumerableUnpairedEvaluator(EnumerableEvaluator):
    """Each training pair gives one desirable and one undesirable example, unless the options keep fewer of one side.

    Worlds, model, steps, betas and score are those of `preference.enumerable`, so the scores of both can be read side by
    side; comparisons are made within one of them.
    """

    name: ClassVar[str] = "preference.enumerable_unpaired"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "The worlds of preference.enumerable with single labelled responses instead of pairs"
    contract: ClassVar[Contract] = UNPAIRED
    Options: ClassVar[type[UnpairedOptions]] = UnpairedOptions
    _options: UnpairedOptions

    @property
    def task_description(self) -> str:
        return describe_unpaired(self._options)

    def _feed(self, worlds: Worlds, device: torch.device, reads: tuple[str, ...]) -> Feed:
        from evaluators.preference.enumerable.unpaired import UnpairedFeed

        return UnpairedFeed(worlds, self._options, device, reads)
