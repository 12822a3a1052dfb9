import pytest

from db.records import Proposal, Score
from discovery.protocols import Outcome
from discovery.strategies.conversation import CHARS_PER_TOKEN, ConversationStrategy
from discovery.strategies.testing import StrategyConformance, outcome
from evaluators.options import OptionsError
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind


def told(outcomes, seed: int = 0, **options) -> ConversationStrategy:
    strategy = ConversationStrategy(options, seed)
    for one in outcomes:
        strategy.tell(one)
    return strategy


def scores(plan) -> list[float]:
    return [p.score.mean for p in plan.in_full]


class TestConformance(StrategyConformance):
    def make_strategy(self, seed):
        return ConversationStrategy({}, seed)


class TestConformanceWithoutExploration(StrategyConformance):
    def make_strategy(self, seed):
        return ConversationStrategy({"explore": 0.0, "full": 2, "brief": 3}, seed)


MANY = [outcome(i, i / 100) for i in range(30)]


def test_without_exploration_the_best_are_shown():
    plan = told(MANY, explore=0.0, full=3, brief=4).ask(40)
    assert scores(plan) == [0.29, 0.28, 0.27]
    assert [p.score.mean for p in plan.in_brief] == [0.26, 0.25, 0.24, 0.23]


def test_less_is_better_where_the_metric_says_so():
    low = [Outcome(o.proposal, Score("m", False, o.score.by_seed)) for o in MANY]
    assert scores(told(low, explore=0.0, full=2).ask(0)) == [0.0, 0.01]


def test_exploration_shows_different_losses_but_favours_good_ones():
    strategy = told(MANY, explore=1.0, full=3)
    shown = [scores(strategy.ask(i)) for i in range(200)]
    assert len({tuple(s) for s in shown}) > 100
    times = [sum(value in s for s in shown) for value in (0.29, 0.15, 0.0)]
    assert times[0] > 2 * times[1] > 2 * times[2] / 2
    assert times[0] > 100


def test_the_share_of_exploring_asks_is_the_option():
    strategy = told(MANY, explore=0.25, full=3)
    top = sum(scores(strategy.ask(i)) == [0.29, 0.28, 0.27] for i in range(400))
    assert 0.65 < top / 400 < 0.85


def long(index: int, score: float, tokens: int) -> Outcome:
    candidate = Candidate("c", f"# {index}\n" + "x" * (tokens * CHARS_PER_TOKEN))
    return Outcome(Proposal(index, "proposed", "p", "n", "t", candidate=candidate), Score("m", True, {0: score}))


def test_the_token_budget_bounds_what_is_shown():
    outcomes = [long(i, i / 100, 500) for i in range(20)]
    for budget, expected in ((100, 0), (600, 1), (1200, 2), (2000, 3), (9000, 4)):
        plan = told(outcomes, token_budget=budget, explore=0.0).ask(0)
        assert len(plan.in_full) == expected
        characters = sum(len(p.source) + len(p.thought) + len(p.name) for p in plan.in_full)
        assert characters <= budget * CHARS_PER_TOKEN


def test_one_long_loss_does_not_keep_shorter_ones_out():
    plan = told([long(0, 0.9, 4000), long(1, 0.8, 100), long(2, 0.7, 100)], token_budget=2000, explore=0.0).ask(0)
    assert scores(plan) == [0.8, 0.7]
    assert [p.score.mean for p in plan.in_brief] == [0.9]


def test_failures_and_scores_share_the_brief_list():
    failed = [outcome(100 + i, kind=FailureKind.CRASH) for i in range(30)]
    plan = told([*MANY, *failed], full=1, brief=10, explore=0.0).ask(0)
    kinds = [p.failure is not None for p in plan.in_brief]
    assert kinds == [False] * 5 + [True] * 5
    assert plan.in_brief[5].name == "loss_129"  # the newest failure first
    only_failed = told(failed, brief=10).ask(0)
    assert len(only_failed.in_brief) == 10
    few = told([*MANY, failed[0]], full=1, brief=10, explore=0.0).ask(0)
    assert [p.failure is not None for p in few.in_brief] == [False] * 9 + [True]


def test_a_refused_copy_does_not_hide_its_original():
    original = outcome(0, 0.9)
    copy = Proposal(1, "proposed", "p", "copy", "t", candidate=original.proposal.candidate)
    refused = Outcome(copy, failure=Failure(FailureKind.DUPLICATE, "same as loss_0"))
    plan = told([original, refused]).ask(2)
    assert scores(plan) == [0.9]
    assert plan.in_full[0].name == "loss_0"


def test_a_loss_that_fails_later_loses_its_place():
    plan = told([outcome(0, 0.9), outcome(0, kind=FailureKind.TIMEOUT)]).ask(1)
    assert plan.in_full == ()
    assert plan.in_brief[0].failure.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize("options", [{"explore": 1.5}, {"token_budget": 0}, {"full": -1}, {"full": "two"}, {"ful": 2}])
def test_bad_options(options):
    with pytest.raises(OptionsError, match="conversation"):
        ConversationStrategy(options, 0)
