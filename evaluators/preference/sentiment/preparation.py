"""What all trials share: the classifier, the SFT model, prompts, and the pool of responses that policies are scored on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evaluators.disk_cache import Stored
from evaluators.options import OptionsError
from evaluators.preference.sentiment.data import LabelledTexts
from evaluators.preference.sentiment.model import FIRST_OUTPUT, PAD, UNKNOWN, LanguageModel, ModelSize
from evaluators.preference.sentiment.options import POOL_BATCH, Plan, SentimentOptions
from evaluators.preference.sentiment.output_layer import token_logps
from evaluators.preference.sentiment.pool import Pool, Weights, mean_of_others
from evaluators.preference.sentiment.reward import SentimentReward, accuracy, fit_reward
from evaluators.preference.sentiment.sampling import SAMPLE_ROWS, generator, sample
from evaluators.preference.sentiment.steps import Responses, WordValues, steps_of
from evaluators.preference.sentiment.training import train, training_set
from evaluators.preference.sentiment.vocabulary import SPECIALS, EncodedTexts, Vocabulary, build_vocabulary

FORMAT = 5  # raise it whenever the same options would prepare something else

_PLACEMENTS = 4  # rounds in which the fixed policy is brought to its KL
_PLACED_ON = 512  # responses that each of them samples
_SHARPNESS = 4.0  # of the labels that the fixed policy learns from
_RATE = 0.04


@dataclass(frozen=True)
class Prepared:
    """The shared part of all trials.

    Attributes:
        weights: state of the SFT model, which is also the reference.
        train_prompts: (N, P) prompts that pairs are sampled for.
        eval_prompts: (prompts, P) held-out prompts of the pool.
        pool: responses to them.
        facts: measurements of the preparation.
    """

    vocabulary: Vocabulary
    size: ModelSize
    weights: Mapping[str, Tensor]
    reward: SentimentReward
    train_prompts: Tensor
    eval_prompts: Tensor
    pool: Pool
    facts: Mapping[str, float]

    def model(self, device: torch.device) -> LanguageModel:
        """A new copy of the SFT model."""
        model = LanguageModel(self.size, generator(0, "overwritten"))
        model.load_state_dict(dict(self.weights))
        return model.to(device)

    def stored(self) -> Stored:
        """As tensors and plain JSON values."""
        tensors = {"train_prompts": self.train_prompts, "eval_prompts": self.eval_prompts}
        tensors |= {f"weights.{name}": tensor for name, tensor in self.weights.items()}
        tensors |= {f"reward.{name}": tensor for name, tensor in self.reward.tensors().items()}
        tensors |= {f"pool.{name}": tensor.contiguous() for name, tensor in self.pool.tensors().items()}
        return tensors, {"words": self.vocabulary.words, "size": asdict(self.size), "facts": dict(self.facts)}

    @classmethod
    def from_stored(cls, stored: Stored) -> Prepared:
        """The inverse of `stored`."""
        tensors, values = stored
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "reward": {}, "pool": {}, "": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group if rest else ""][rest or name] = tensor
        return cls(
            vocabulary=Vocabulary(tuple(values["words"])),
            size=ModelSize(**values["size"]),
            weights=groups["weights"],
            reward=SentimentReward.from_tensors(groups["reward"]),
            pool=Pool.from_tensors(groups["pool"]),
            facts=values["facts"],
            **groups[""],
        )


def build(
    options: SentimentOptions, texts: LabelledTexts, device: torch.device, progress: Callable[[str], None]
) -> Prepared:
    """Prepare everything. Deterministic in options, texts, device and number of threads.

    Raises:
        OptionsError: too few texts for what the options ask, or scikit-learn is missing.
    """
    progress(f"reading {len(texts.texts):,} texts")
    vocabulary, train, held_out = _encode(options, texts)
    progress("fitting the sentiment classifier")
    reward, _ = fit_reward(train.encoded, train.labels, len(vocabulary), options.bigrams)
    facts = {"reward_accuracy": accuracy(reward, held_out.encoded, held_out.labels)}
    facts["reward_accuracy_openings"] = accuracy(reward, _openings(held_out.encoded, options.context), held_out.labels)
    train_prompts = _prompts(options, train.encoded, 1, "training")
    eval_prompts = _prompts(options, held_out.encoded, options.pool_prompts, "held-out")[: options.pool_prompts]
    size = ModelSize(len(vocabulary), options.width, options.layers, options.heads, options.context)
    model = LanguageModel(size, generator(options.prepare_seed, "sft weights")).to(device)
    shown = options.sft_steps * options.sft_batch
    windows = _windows(options, train.encoded, vocabulary, shown)
    facts["sft_train_nats"] = _train_sft(model, windows, options, progress)
    facts["sft_parameters"] = float(sum(p.numel() for p in model.parameters()))
    # as large a share of the held-out windows as of the training ones, so that both have as few unknown words
    held_out_windows = _windows(
        options, held_out.encoded, vocabulary, shown * len(held_out.encoded) // len(train.encoded)
    )
    facts["sft_held_out_nats"] = _held_out_nats(model, held_out_windows[:: max(1, len(held_out_windows) // 1024)])

    progress("sampling the pool of responses")
    sft_tokens = _answers(model, eval_prompts, options, "pool")
    reward = reward.standardised(reward.log_odds(sft_tokens))
    sft_responses = Responses.of(model, sft_tokens, options.prompt_tokens)
    values = WordValues.fitted(reward, sft_responses, reward(sft_tokens))
    layer = _fixed_policy(model, train_prompts, reward, values, options, facts)
    fixed_tokens = _answers(model, eval_prompts, options, "fixed policy", layer)
    both = [tokens.view(options.pool_prompts, options.pool_samples, -1) for tokens in (sft_tokens, fixed_tokens)]
    pool = _pool(model, layer, torch.cat(both, 1), reward, values, options.prompt_tokens)
    facts["sft_log_odds_mean"], facts["sft_log_odds_std"] = reward.centre, reward.scale
    weights = Weights.of(pool, pool.sft_logps)
    facts["sft_share"], facts["fixed_share"] = weights.share(), Weights.of(pool, pool.fixed_logps).share()
    return Prepared(
        vocabulary=vocabulary,
        size=size,
        weights={name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        reward=reward,
        train_prompts=train_prompts,
        eval_prompts=eval_prompts,
        pool=pool,
        facts=facts,
    )


def _answers(
    model: LanguageModel, prompts: Tensor, options: SentimentOptions, purpose: str, layer: Tensor | None = None
) -> Tensor:
    """(prompts * samples, T): a policy's responses to each prompt, one prompt after the other."""
    repeated = prompts.repeat_interleave(options.pool_samples, 0)
    noise = generator(options.prepare_seed, purpose)
    return sample(model, repeated, noise, options.response_tokens, layer).tokens


class _DirectPreference:
    """The loss of the fixed policy, DPO."""

    parameters = ()

    def tolerant(self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]]) -> tuple[Tensor, Tensor]:
        chosen = inputs["policy_chosen_logps"] - inputs["reference_chosen_logps"]
        rejected = inputs["policy_rejected_logps"] - inputs["reference_rejected_logps"]
        losses = -functional.logsigmoid(scalars["beta"][0] * (chosen - rejected)).mean(1)
        return losses, losses.detach().isfinite()


def _fixed_policy(
    model: LanguageModel,
    prompts: Tensor,
    reward: SentimentReward,
    values: WordValues,
    options: SentimentOptions,
    facts: dict[str, float],
) -> Tensor:
    """The output layer of a DPO policy, trained on pairs of its own and scaled to the pool's KL."""
    count = options.pool_pairs // POOL_BATCH
    plan = Plan(options.pool_pairs, _SHARPNESS, count, POOL_BATCH, _RATE, (options.pool_beta,))
    data = training_set(model, prompts, reward, plan, generator(options.prepare_seed, "pairs of the fixed policy"))
    start = model.output_layer
    change = train(start, data, plan, _DirectPreference()).layers[0] - start
    place, layer = prompts[torch.arange(_PLACED_ON) % len(prompts)], start + change
    for _ in range(_PLACEMENTS):
        noise = generator(options.prepare_seed, "placement")
        responses = Responses.drawn(sample(model, place, noise, options.response_tokens, layer))
        steps = steps_of(responses, start, [layer - start], values)[0]
        facts["fixed_kl"] = Weights.own(steps).kl(steps)
        layer = start + (layer - start) * (options.pool_kl / max(facts["fixed_kl"], 1e-9)) ** 0.5
    return layer


def _pool(
    model: LanguageModel,
    layer: Tensor,
    answers: Tensor,
    reward: SentimentReward,
    values: WordValues,
    prompt_length: int,
) -> Pool:
    """The pool of (prompts, K, T) answers; `layer` is the fixed policy's."""
    responses = Responses.of(model, answers.flatten(0, 1), prompt_length)
    start, rewards = model.output_layer, reward(answers.flatten(0, 1)).view(answers.shape[:2])
    (steps,) = steps_of(responses, start, [torch.zeros_like(start)], values)
    chance = (values.drawn(responses) - steps.expected).sum(1).view_as(rewards)  # in the draw of each next word
    half = rewards.shape[1] // 2
    baselines = mean_of_others((rewards - chance)[:, None, :half].expand(-1, 2 * half, -1))
    return Pool(responses, rewards, baselines, steps.logps, token_logps(responses.states, responses.targets, layer))


@dataclass(frozen=True)
class _Part:
    encoded: EncodedTexts
    labels: NDArray[np.bool_]


def _encode(options: SentimentOptions, texts: LabelledTexts) -> tuple[Vocabulary, _Part, _Part]:
    """Shuffle, cut to `max_texts`, split into training and held-out texts, and encode both."""
    order = torch.randperm(len(texts.texts), generator=generator(options.prepare_seed, "split")).numpy()[
        : options.max_texts
    ]
    labels = np.array(texts.labels, np.bool_)[order]
    train_count = len(order) - max(1, round(len(order) * options.held_out))
    is_train = np.arange(len(order)) < train_count
    if not 0 < labels[is_train].sum() < train_count:
        raise OptionsError(f"the {train_count} training texts all have one label; give more texts or raise max_texts")
    vocabulary, encoded = build_vocabulary([texts.texts[i] for i in order], is_train, options.vocabulary)
    train, held_out = (_Part(encoded.subset(np.flatnonzero(use)), labels[use]) for use in (is_train, ~is_train))
    return vocabulary, train, held_out


def _openings(texts: EncodedTexts, length: int) -> EncodedTexts:
    """The first `length` tokens of each text."""
    parts = [texts[i][:length] for i in range(len(texts))]
    return EncodedTexts(
        np.concatenate(parts), np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])
    )


def _prompts(options: SentimentOptions, texts: EncodedTexts, needed: int, kind: str) -> Tensor:
    """(N, P): the openings of texts that go on after them and whose words are all known, without repeats."""
    length = options.prompt_tokens
    openings = [texts[i][:length] for i in range(len(texts)) if len(texts[i]) > length]
    usable = dict.fromkeys(tuple(o.tolist()) for o in openings if (o >= len(SPECIALS)).all())
    if len(usable) < needed:
        raise OptionsError(
            f"the {kind} texts give {len(usable)} prompts of {length} known words, {needed} are needed; give more texts, "
            "or lower prompt_tokens or pool_prompts, or raise vocabulary"
        )
    return torch.tensor(list(usable))


def _windows(options: SentimentOptions, texts: EncodedTexts, vocabulary: Vocabulary, count: int) -> Tensor:
    """(at most count, T) stretches of text that begin where a sentence begins, those with the fewest unknown words.

    A window of a text that is shorter than it has the end token there and padding after it.
    """
    length, end = options.context, SPECIALS.index("<end>")
    # every text gets its end token and enough padding that a window never reaches the next text
    tail = np.array([end] + [PAD] * length)
    parts = [np.concatenate([texts[i], tail]) for i in range(len(texts)) if len(texts[i])]
    stream = np.concatenate([[PAD], *parts])
    begins = np.isin(stream, vocabulary.sentence_ends) | (stream == PAD)
    starts = np.flatnonzero(begins[:-length] & (stream[1 : len(stream) - length + 1] >= UNKNOWN)) + 1
    starts = starts[(stream[starts] != end) & ~np.isin(stream[starts], vocabulary.sentence_ends)]
    # an end within the window only for texts that are shorter than it: a window cut short has fewer words to be unknown, so
    # choosing by unknown words would otherwise teach the model to stop
    ended = np.concatenate([[0], np.cumsum(stream == end)])
    starts = starts[(ended[starts + length] == ended[starts]) | (stream[starts - 1] == PAD)]
    unknown = np.concatenate([[0], np.cumsum(stream == UNKNOWN)])
    missing = unknown[starts + length] - unknown[starts]
    shuffled = torch.randperm(len(starts), generator=generator(options.prepare_seed, "windows")).numpy()
    starts = starts[shuffled][np.argsort(missing[shuffled], kind="stable")]
    wanted = starts[: max(1, count)]
    return torch.from_numpy(stream[wanted[:, None] + np.arange(length)])


def _sft_loss(model: LanguageModel, windows: Tensor) -> Tensor:
    """Mean negative log-prob of the known next tokens."""
    targets = windows[:, 1:]
    known = targets >= FIRST_OUTPUT
    return -(model.target_logps(model.hidden(windows[:, :-1]), targets) * known).sum() / known.sum().clamp_min(1)


def _batches(windows: Tensor, batch: int, steps: int, noise: torch.Generator) -> Iterator[Tensor]:
    """`steps` batches of row numbers, each row once per pass."""
    queue = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        while len(queue) < batch:
            queue = torch.cat([queue, torch.randperm(len(windows), generator=noise)])
        yield queue[:batch]
        queue = queue[batch:]


def _train_sft(
    model: LanguageModel, windows: Tensor, options: SentimentOptions, progress: Callable[[str], None]
) -> float:
    """Next-word training with Adam, warm-up over a tenth of the steps, then a cosine down to a twentieth."""
    counts = torch.bincount(windows.flatten(), minlength=model.size.vocabulary)[FIRST_OUTPUT:].float() + 0.5
    with torch.no_grad():
        model.output_bias.copy_((counts / counts.sum()).log())  # begin from word frequencies
    optimiser = torch.optim.Adam(model.parameters(), lr=options.sft_lr, betas=(0.9, 0.98))
    warm_up = max(1, options.sft_steps // 10)
    losses: list[float] = []
    noise = generator(options.prepare_seed, "sft batches")
    for step, rows in enumerate(_batches(windows, options.sft_batch, options.sft_steps, noise)):
        along = max(0.0, (step - warm_up) / max(1, options.sft_steps - warm_up))
        rate = options.sft_lr * min(1.0, (step + 1) / warm_up) * (0.05 + 0.95 * (1 + float(np.cos(np.pi * along))) / 2)
        optimiser.param_groups[0]["lr"] = rate
        loss = _sft_loss(model, windows[rows].to(model.device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step % 50 == 0:
            progress(f"training the SFT model: step {step} of {options.sft_steps}, {losses[-1]:.2f} nats a word")
    return float(np.mean(losses[-20:]))


@torch.no_grad()
def _held_out_nats(model: LanguageModel, windows: Tensor) -> float:
    parts = torch.split(windows, SAMPLE_ROWS)
    return sum(_sft_loss(model, p.to(model.device)).item() * len(p) for p in parts) / len(windows)


def cache_values(options: SentimentOptions, data_sha256: str, device: torch.device) -> dict[str, Any]:
    """Everything that a preparation depends on; its hash names the cache entry."""
    return {"format": FORMAT, "options": options.preparation(), "data": data_sha256, "device": device.type}
