from pathlib import Path

import numpy as np
import pytest

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.responses import lengths, strings
from evaluators.preference.enumerable.worlds import batch_schedule, build_worlds


@pytest.fixture(scope="module")
def worlds():
    return {seed: {w.regime.name: w for w in build_worlds(seed).worlds} for seed in range(2)}


def test_worlds_are_a_function_of_seed_and_regime(worlds):
    again = {w.regime.name: w for w in build_worlds(0).worlds}
    for name, world in worlds[0].items():
        np.testing.assert_array_equal(world.reference_logps, again[name].reference_logps)
        np.testing.assert_array_equal(world.rewards, again[name].rewards)
        np.testing.assert_array_equal(world.train.first, again[name].train.first)
        assert world.areas == again[name].areas
        assert not np.array_equal(world.rewards, worlds[1][name].rewards)
    rewards = [w.rewards.tobytes() for w in worlds[0].values()]
    assert len(set(rewards)) == 6  # six worlds, not one world six times


def test_reference_has_learnt_its_source(worlds):
    for world in worlds[0].values():
        source = np.exp(world.source_logps)
        np.testing.assert_allclose(source.sum(1), 1, rtol=1e-12)
        misfit = (source * (world.source_logps - world.reference_logps)).sum(1).mean()
        uniform = (source * (world.source_logps + np.log(d.RESPONSES))).sum(1).mean()
        assert 0 < misfit < 0.3 * uniform


def test_pairs_hold_two_different_responses(worlds):
    for world in worlds[0].values():
        assert world.train.prompts.size == world.regime.pairs
        assert world.held_out.prompts.size == d.HELD_OUT_PAIRS
        for pairs in (world.train, world.held_out):
            assert (pairs.first != pairs.second).all()
            gap = world.rewards[pairs.prompts, pairs.first] - world.rewards[pairs.prompts, pairs.second]
            np.testing.assert_allclose(pairs.logits, world.regime.sharpness * gap)


def agreement(worlds, name: str) -> tuple[float, float]:
    """Share of training labels that follow the reward, and what clean sampled labels would have on average."""
    labels = [seed[name].train for seed in worlds.values()]
    followed = np.mean(np.concatenate([p.logits > 0 for p in labels]))
    clean = np.mean(np.concatenate([np.maximum(p.preferred, 1 - p.preferred) for p in labels]))
    return float(followed), float(clean)


def test_labels_follow_bradley_terry_except_where_the_regime_says_otherwise(worlds):
    for name in ("base", "near_deterministic", "off_policy"):
        followed, clean = agreement(worlds, name)
        assert followed == pytest.approx(clean, abs=0.04)
    assert agreement(worlds, "near_deterministic")[0] > 0.95
    followed, clean = agreement(worlds, "label_flips")
    assert followed == pytest.approx(clean * 0.85 + (1 - clean) * 0.15, abs=0.04)
    assert agreement(worlds, "length_bias")[0] < agreement(worlds, "length_bias")[1] - 0.02


def test_length_bias_favours_long_responses_beyond_their_reward(worlds):
    def excess(name):
        gaps = []
        for seed in worlds.values():
            pairs = seed[name].train
            longer = np.sign(lengths()[pairs.first] - lengths()[pairs.second])
            expected = longer * np.tanh(pairs.logits / 2)  # of +-longer under clean labels, given the pair
            gaps.append((longer - expected).mean())
        return np.mean(gaps)

    assert excess("length_bias") > excess("base") + 0.05


def test_off_policy_pairs_do_not_come_from_the_reference(worlds):
    def surprise(name):
        """Mean reference log-prob of drawn responses minus its expectation under the reference, in nats."""
        gaps = []
        for seed in worlds.values():
            world, pairs = seed[name], seed[name].train
            drawn = world.reference_logps[pairs.prompts, pairs.first].mean()
            gaps.append(drawn - (np.exp(world.reference_logps) * world.reference_logps).sum(1).mean())
        return np.mean(gaps)

    assert surprise("off_policy") < surprise("base") - 0.5


def test_little_data_is_little(worlds):
    assert worlds[0]["little_data"].regime.pairs * 8 == worlds[0]["base"].regime.pairs


def test_every_epoch_holds_every_pair_once():
    regime = d.REGIMES[1]
    order = batch_schedule(3, regime, 20, 32)
    assert order.shape == (20, 32)
    for epoch in order.reshape(-1)[: regime.pairs * 5].reshape(5, regime.pairs):
        assert set(epoch) == set(range(regime.pairs))
    assert not np.array_equal(order, batch_schedule(4, regime, 20, 32))


def test_response_order_is_by_length_then_lexicographic():
    assert strings()[:7] == ((), (0,), (1,), (2,), (3,), (0, 0), (0, 1))
    assert strings()[-1] == (3, 3, 3, 3)
    assert list(lengths()) == sorted(lengths())


def test_the_documented_regimes_are_the_real_ones():
    page = Path(__file__).parents[2] / "docs" / "evaluators" / "enumerable.md"
    rows = [f"| `{r.name}` | {r.pairs} | {r.sharpness:g} | {r.flip:g} | {r.length_bias:g} | " for r in d.REGIMES]
    text = page.read_text()
    assert [row for row in rows if row not in text] == []
    ours = [line for line in text.splitlines() if "another source" in line]
    assert [r.name in ours[0] for r in d.REGIMES] == [not r.from_reference for r in d.REGIMES]
