from typing import ClassVar

import pytest

from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.testing import EvaluatorConformance


class TestSentimentConformance(EvaluatorConformance):
    changed_option = ("steps", 7)
    objective = "dpo"
    cache: ClassVar = None

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _share_a_preparation(cls, small, sentiment_cache):
        cls.quick_options, cls.cache = small, sentiment_cache

    def make_evaluator(self, options):
        return SentimentEvaluator(options, self.cache)
