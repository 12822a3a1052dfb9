from pathlib import Path

import numpy as np
import pytest

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.responses import tree
from evaluators.preference.enumerable.worlds import batch_schedule, build_world, build_worlds, label_probabilities

TREE = tree(10)
BY_NAME = {r.name: r for r in d.REGIMES}


@pytest.fixture(scope="module")
def worlds():
    return {seed: {w.regime.name: w for w in build_worlds(seed, d.REGIMES, TREE).worlds} for seed in range(2)}


def test_worlds_are_a_function_of_seed_and_regime(worlds):
    again = build_world(0, BY_NAME["judge"], TREE)
    for name in ("features", "output", "reference_logps", "rewards", "proxies", "soft_labels"):
        np.testing.assert_array_equal(getattr(worlds[0]["judge"], name), getattr(again, name))
    assert worlds[0]["judge"].areas == again.areas
    rewards = [w.rewards.tobytes() for seed in worlds.values() for w in seed.values()]
    assert len(set(rewards)) == 2 * len(d.REGIMES)  # not one world ten times


def test_a_world_does_not_depend_on_which_others_there_are(worlds):
    alone = build_worlds(1, [BY_NAME["near_copies"]], TREE).worlds[0]
    np.testing.assert_array_equal(alone.train.second, worlds[1]["near_copies"].train.second)


def test_rewards_and_proxies_are_standardised_and_correlated_as_the_definition_says(worlds):
    found = []
    for world in (w for seed in worlds.values() for w in seed.values()):
        probs = np.exp(world.reference_logps)
        for values in (world.rewards, world.proxies):
            np.testing.assert_allclose((probs * values).sum(1), 0, atol=1e-9)
            np.testing.assert_allclose((probs * values**2).sum(1), 1, rtol=1e-9)
        found.append((probs * world.rewards * world.proxies).sum(1).mean())
    assert np.mean(found) == pytest.approx(d.PROXY_CORRELATION, abs=0.05)


def explained(probs, rewards, design):
    """Share of the rewards' variance that a linear function of the features has."""
    root = np.sqrt(probs)
    fitted = np.linalg.lstsq(root[:, None] * design, root * rewards, rcond=1e-9)[0]
    return 1 - (probs * (rewards - design @ fitted) ** 2).sum()


def test_what_explains_the_reward_has_the_shares_that_the_definition_names(worlds):
    """By least squares, feature by feature: another computation than the one that plants it."""
    counts = np.stack([(TREE.symbols == t).sum(1) for t in range(d.VOCABULARY)], 1)
    text = ["".join(str(t) for t in row[:n]) for row, n in zip(TREE.symbols, TREE.lengths, strict=True)]
    bigrams = np.array(
        [[sum(t[i : i + 2] == b for i in range(len(t))) for b in ("00", "01", "10", "11")] for t in text]
    )
    placed = np.array([[float(t[i : i + 1] == v) for i in range(10) for v in "01"] for t in text])
    for name in ("base", "judge", "off_policy"):
        world, design = worlds[0][name], [np.ones((TREE.responses, 1))]
        expected = 0.0
        for features, part in (
            (TREE.lengths[:, None], "length"),
            (counts, "token"),
            (bigrams, "bigram"),
            (placed, "topic"),
        ):
            design.append(features)
            expected += d.REWARD_SHARES[part]
            found = [
                explained(np.exp(logps), rewards, np.hstack(design))
                for logps, rewards in zip(world.reference_logps, world.rewards, strict=True)
            ]
            # never less; a little more, as features also fit what comes after them by chance
            assert min(found) > expected - 0.005, (name, part)
            assert np.mean(found) < expected + 0.06, (name, part)
    assert sum(d.REWARD_SHARES.values()) == pytest.approx(1)


def test_longer_is_better_in_some_worlds_and_worse_in_others(worlds):
    signs = [
        np.sign((np.exp(w.reference_logps) * w.rewards * TREE.lengths).sum(1))
        for s in worlds.values()
        for w in s.values()
    ]
    assert all(abs(s.sum()) == d.PROMPTS for s in signs)  # for all prompts of a world alike
    assert 4 <= sum(s[0] > 0 for s in signs) <= 16


def test_responses_are_long_and_log_ratios_can_reach_tens_of_nats(worlds):
    for world in worlds[0].values():
        probs = np.exp(world.reference_logps)
        assert 4 < (probs * TREE.lengths).sum(1).mean() < 9.5
        assert world.reference_logps.min() < -12


def test_pairs_hold_two_different_responses(worlds):
    for world in worlds[0].values():
        assert world.train.prompts.size == world.regime.pairs
        assert world.held_out.prompts.size == d.HELD_OUT_PAIRS
        for pairs in (world.train, world.held_out):
            assert (pairs.first != pairs.second).all()
        ours, theirs = (world.rewards[world.held_out.prompts, y] for y in (world.held_out.first, world.held_out.second))
        expected = 1 / (1 + np.exp(-np.clip(world.regime.sharpness * (ours - theirs), -500, 500)))
        np.testing.assert_allclose(world.preferred, expected, atol=1e-12)


def test_near_copies_differ_in_one_token(worlds):
    pairs = worlds[0]["near_copies"].train
    differ = TREE.symbols[pairs.first] != TREE.symbols[pairs.second]
    assert (differ.sum(1) == 1).all()
    assert (TREE.lengths[pairs.first] == TREE.lengths[pairs.second]).all()
    assert len(set(differ.argmax(1))) > 5  # anywhere


def followed(worlds, name: str) -> tuple[float, float]:
    """Share of training labels that follow the reward, and what is expected under clean labels."""
    right, clean = [], []
    for seed in worlds.values():
        world = seed[name]
        gap = world.train.differences(world.rewards)
        right.append(gap > 0)
        clean.append(1 / (1 + np.exp(-world.regime.sharpness * np.abs(gap))))
    return float(np.mean(np.concatenate(right))), float(np.mean(np.concatenate(clean)))


def test_labels_follow_bradley_terry_except_where_the_regime_says_otherwise(worlds):
    for name in ("base", "near_copies", "expert"):
        right, clean = followed(worlds, name)
        assert right == pytest.approx(clean, abs=0.04)
    for name in ("flips", "off_policy"):
        (right, clean), flip = followed(worlds, name), BY_NAME[name].flip
        assert right == pytest.approx(clean * (1 - flip) + (1 - clean) * flip, abs=0.08)
    right, clean = followed(worlds, "judge")
    flip = BY_NAME["judge"].flip
    assert right < clean * (1 - flip) + (1 - clean) * flip - 0.03


def test_length_bias_favours_long_responses_beyond_their_reward(worlds):
    def excess(name):
        gaps = []
        for seed in worlds.values():
            pairs, rewards = seed[name].train, seed[name].rewards
            longer = np.sign(TREE.lengths[pairs.first] - TREE.lengths[pairs.second])
            clean = np.tanh(seed[name].regime.sharpness * pairs.differences(rewards) / 2)
            gaps.append((longer - longer * clean).mean())
        return np.mean(gaps)

    assert excess("length_bias") > excess("base") + 0.1


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


def test_experts_pairs_are_better_than_the_references_by_what_exponential_tilting_gives(worlds):
    """The first response alone is drawn from reference * exp(2 reward); being two different ones lowers it a little."""
    for name in ("expert", "few_pairs", "near_copies", "deterministic"):
        expertise = BY_NAME[name].expertise
        assert expertise == (1.5 if name == "near_copies" else 2.0)
        for seed in worlds.values():
            world, pairs = seed[name], seed[name].held_out
            drawn = world.rewards[pairs.prompts, pairs.first].mean()
            logits = world.reference_logps + expertise * world.rewards
            tilted = np.exp(logits - logits.max(1, keepdims=True))
            expected = ((tilted / tilted.sum(1, keepdims=True)) * world.rewards).sum(1).mean()
            assert drawn == pytest.approx(expected, abs=0.25)
            assert expected > 0.7
    base = worlds[0]["base"]
    assert base.rewards[base.held_out.prompts, base.held_out.first].mean() == pytest.approx(0, abs=0.2)


def test_soft_labels_are_those_of_the_proxies(worlds):
    world = worlds[0]["off_policy"]
    expected = label_probabilities(world.train, world.proxies, world.regime, TREE)
    np.testing.assert_array_equal(world.soft_labels, expected)
    assert (world.soft_labels.min(), world.soft_labels.max()) == (
        pytest.approx(0.3, abs=1e-6),
        pytest.approx(0.7, abs=1e-6),
    )


def test_every_epoch_holds_every_pair_once():
    regime = BY_NAME["few_pairs"]
    order = batch_schedule(3, regime, 20, 32)
    assert order.shape == (20, 32)
    for epoch in order.reshape(-1).reshape(5, regime.pairs):
        assert set(epoch) == set(range(regime.pairs))
    assert not np.array_equal(order, batch_schedule(4, regime, 20, 32))


def test_a_definition_of_another_version_has_other_worlds(monkeypatch):
    drawn = d.generator(0, "base", "pairs").random()
    monkeypatch.setattr(d, "VERSION", d.VERSION + 1)
    assert d.generator(0, "base", "pairs").random() != drawn


def test_the_documented_regimes_are_the_real_ones():
    text = (Path(__file__).parents[2] / "docs" / "evaluators" / "enumerable.md").read_text()
    for r in d.REGIMES:
        source = "reference" if r.from_reference else "another layer"
        source += f" * exp({r.expertise:g} r)" if r.expertise else ""
        source += ", near-copies" if r.near_copies else ""
        row = f"| `{r.name}` | {r.pairs} | {r.sharpness:g} | {r.flip:g} | {r.judge:g} | {r.length_bias:g} | {source} "
        assert row in text, row
