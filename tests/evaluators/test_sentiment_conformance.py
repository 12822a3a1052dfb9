from typing import ClassVar

import pytest

from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.testing import EvaluatorConformance
from tests.support.sentiment_setup import SMALL


class TestSentimentConformance(EvaluatorConformance):
    quick_options = SMALL
    changed_option = ("steps", 6)
    objective = "dpo"
    cache: ClassVar = None

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _share_a_cache(cls, tmp_path_factory):
        cls.cache = tmp_path_factory.mktemp("cache")

    def make_evaluator(self, options):
        return SentimentEvaluator(options, self.cache)
