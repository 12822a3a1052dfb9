"""Controlled sentiment generation on real reviews (the IMDb experiment of the DPO and DiscoPOP papers)."""

from evaluators.preference.sentiment.evaluator import SentimentEvaluator

__all__ = ["SentimentEvaluator"]
