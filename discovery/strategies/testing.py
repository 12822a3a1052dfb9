"""The suite that every search strategy passes. Inherit it in a test module and say how yours is made:

class TestMine(StrategyConformance):
    def make_strategy(self, seed):
        return MyStrategy({}, seed)
"""

from __future__ import annotations

import json

from db.records import Proposal, Score
from discovery.protocols import Outcome, Plan, Strategy
from evaluators.options import OptionsError
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind

HOSTILE = 'x\x00\x1b[2J\u202e``` """ {{ 7 * 7 }} \ud800'


def outcome(index: int, score: float | None = None, kind: FailureKind | None = None, text: str = "") -> Outcome:
    """What a campaign tells of proposal `index`: a score, a failure, or neither (in training)."""
    candidate = Candidate("c", f"# loss {index} {text}")
    failure = Failure(kind, f"went wrong {text}") if kind else None
    proposal = Proposal(index, "proposed", "evolve", f"loss_{index}{text}", f"idea {index}{text}", candidate=candidate)
    return Outcome(proposal, None if score is None else Score("m", True, {0: score}), failure)


HISTORY = (
    outcome(0, 0.5),
    outcome(1, 0.9),
    outcome(2, kind=FailureKind.NON_FINITE),
    outcome(3),
    outcome(4, 0.1),
    outcome(5, kind=FailureKind.STATIC, text=HOSTILE),
    outcome(6, 0.7, text=HOSTILE),
    outcome(3, 0.3),
    Outcome(Proposal(7, "proposed", "evolve", "", "", failure=Failure(FailureKind.STATIC, "no code in the reply"))),
    outcome(8, kind=FailureKind.INFRASTRUCTURE),
)


class StrategyConformance:
    """What a campaign relies on. `higher` scores are better throughout."""

    def make_strategy(self, seed: int) -> Strategy:
        """A fresh strategy. Override it."""
        raise TypeError(f"{type(self).__name__} must define make_strategy(seed)")

    def told(self, seed: int, history: tuple[Outcome, ...] = HISTORY) -> Strategy:
        strategy = self.make_strategy(seed)
        for one in history:
            strategy.tell(one)
        return strategy

    def test_it_says_what_it_is(self) -> None:
        strategy = self.make_strategy(0)
        assert strategy.name
        assert "\n" not in strategy.summary

    def test_it_can_be_asked_before_anything_is_known(self) -> None:
        plan = self.make_strategy(0).ask(0)
        assert plan.index == 0
        assert plan.in_full == ()

    def test_plans_carry_their_index_and_their_own_seed(self) -> None:
        plans = [self.told(0).ask(i) for i in range(20)]
        assert [p.index for p in plans] == list(range(20))
        assert len({p.seed for p in plans}) == 20
        assert all(p.seed >= 0 for p in plans)

    def test_it_is_a_function_of_seed_history_and_index(self) -> None:
        first, again = ([self.told(3).ask(i) for i in range(10)] for _ in range(2))
        assert first == again
        assert [p.seed for p in first] != [self.told(4).ask(p.index).seed for p in first]

    def test_asking_changes_nothing_that_matters_after_a_restart(self) -> None:
        busy = self.make_strategy(0)
        for index, one in enumerate(HISTORY):
            busy.ask(index)
            busy.tell(one)
        assert busy.ask(50) == self.told(0).ask(50)

    def test_losses_in_full_are_scored_ones_best_first_each_once(self) -> None:
        for index in range(20):
            plan = self.told(0).ask(index)
            scores = [p.score.mean for p in plan.in_full if p.score]
            assert len(scores) == len(plan.in_full)
            assert scores == sorted(scores, reverse=True)
            assert len(set(plan.parents)) == len(plan.parents)

    def test_plans_hold_only_what_was_told(self) -> None:
        known = {o.proposal.candidate.id for o in HISTORY if o.proposal.candidate}
        for index in range(20):
            plan = self.told(0).ask(index)
            assert set(plan.parents) <= known
            assert {p.candidate_id for p in plan.in_brief} <= known | {""}
            assert not {p.candidate_id for p in plan.in_brief} & set(plan.parents)

    def test_our_own_failures_are_not_shown_as_lessons(self) -> None:
        plan = self.told(0, (outcome(0, kind=FailureKind.INFRASTRUCTURE),)).ask(1)
        assert all(p.failure is None for p in plan.in_brief)

    def test_a_thousand_losses_do_not_make_a_plan_larger(self) -> None:
        many = tuple(outcome(i, i / 1000) for i in range(1000))
        assert self._size(self.told(0, many).ask(1)) <= 4 * self._size(self.told(0, many[:100]).ask(1))

    def test_options_are_checked(self) -> None:
        try:
            type(self.make_strategy(0))({"no_such_option": 1}, 0)
        except OptionsError as error:
            assert "no_such_option" in str(error)  # noqa: PT017 - the suite must not need pytest
        else:
            raise AssertionError("an unknown option must raise OptionsError")

    @staticmethod
    def _size(plan: Plan) -> int:
        return len(json.dumps([[p.name, p.thought, p.source] for p in (*plan.in_full, *plan.in_brief)]))
