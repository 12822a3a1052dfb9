"""A tiny language model whose responses can all be enumerated, so that scores are exact: pairs, or single responses."""

from evaluators.preference.enumerable.evaluator import EnumerableEvaluator
from evaluators.preference.enumerable.unpaired_evaluator import EnumerableUnpairedEvaluator

__all__ = ["EnumerableEvaluator", "EnumerableUnpairedEvaluator"]
