"""`preference.enumerable`: a tiny language model whose responses can all be enumerated, so that scores are exact."""

from evaluators.preference.enumerable.evaluator import EnumerableEvaluator

__all__ = ["EnumerableEvaluator"]
