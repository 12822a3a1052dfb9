"""What all trials share: the classifier, the SFT model, a pool of pairs sampled from it, and its held-out responses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.disk_cache import Stored
from evaluators.options import OptionsError
from evaluators.preference.sentiment.data import LabelledTexts
from evaluators.preference.sentiment.model import FIRST_OUTPUT, PAD, UNKNOWN, LanguageModel, ModelSize
from evaluators.preference.sentiment.options import SentimentOptions
from evaluators.preference.sentiment.reward import SentimentReward, accuracy, fit_reward
from evaluators.preference.sentiment.vocabulary import SPECIALS, EncodedTexts, Vocabulary, build_vocabulary

FORMAT = 3  # raise it whenever the same options would prepare something else

SAMPLE_ROWS = 512  # responses sampled, or sequences scored, at once


@dataclass(frozen=True)
class Prepared:
    """The shared part of all trials.

    Attributes:
        weights: state of the SFT model, which is also the reference.
        pair_tokens: (pairs, 2, T) two responses each, with their prompt.
        pair_rewards, pair_logps: (pairs, 2) their rewards and their log-probs under the SFT model.
        eval_prompts: (prompts, P) held-out prompts.
        eval_rewards: (prompts, samples) rewards of the SFT model's responses to them.
        facts: measurements of the preparation.
    """

    vocabulary: Vocabulary
    size: ModelSize
    weights: Mapping[str, Tensor]
    reward: SentimentReward
    pair_tokens: Tensor
    pair_rewards: Tensor
    pair_logps: Tensor
    eval_prompts: Tensor
    eval_rewards: Tensor
    facts: Mapping[str, float]

    def model(self, device: torch.device) -> LanguageModel:
        """A new copy of the SFT model."""
        model = LanguageModel(self.size, generator(0, "overwritten"))
        model.load_state_dict(dict(self.weights))
        return model.to(device)

    def stored(self) -> Stored:
        """As tensors and plain JSON values."""
        names = ("pair_tokens", "pair_rewards", "pair_logps", "eval_prompts", "eval_rewards")
        tensors = {name: getattr(self, name) for name in names}
        tensors |= {f"weights.{name}": tensor for name, tensor in self.weights.items()}
        tensors |= {f"reward.{name}": tensor for name, tensor in self.reward.tensors().items()}
        return tensors, {"words": self.vocabulary.words, "size": asdict(self.size), "facts": dict(self.facts)}

    @classmethod
    def from_stored(cls, stored: Stored) -> Prepared:
        """The inverse of `stored`."""
        tensors, values = stored
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "reward": {}, "": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.rpartition(".") if name.startswith("reward.") else name.partition(".")
            groups[group if rest else ""][rest or name] = tensor
        return cls(
            vocabulary=Vocabulary(tuple(values["words"])),
            size=ModelSize(**values["size"]),
            weights=groups["weights"],
            reward=SentimentReward.from_tensors(groups["reward"]),
            facts=values["facts"],
            **groups[""],
        )


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each seed and purpose."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


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
    eval_prompts = _prompts(options, held_out.encoded, options.eval_prompts, "held-out")[: options.eval_prompts]
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

    progress(f"sampling {options.pair_pool:,} pairs from the SFT model")
    noise = generator(options.prepare_seed, "pairs")
    prompts = train_prompts[torch.arange(options.pair_pool) % len(train_prompts)].repeat_interleave(2, 0)
    pool, _ = sample(model, prompts, noise, options.response_tokens)
    logps = sequence_logps(model, pool, options.prompt_tokens)
    raw = reward.log_odds(pool)
    reward = reward.standardised(raw)
    repeated = eval_prompts.repeat_interleave(options.sft_samples, 0)
    answers, _ = sample(model, repeated, generator(options.prepare_seed, "baseline"), options.response_tokens)
    baseline = reward(answers).view(options.eval_prompts, options.sft_samples)
    facts["sft_log_odds_mean"], facts["sft_log_odds_std"] = reward.centre, reward.scale
    facts["sft_reward"] = float(baseline.mean())
    facts["sft_reward_stderr"] = float(baseline.mean(1).std() / options.eval_prompts**0.5)
    return Prepared(
        vocabulary=vocabulary,
        size=size,
        weights={name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        reward=reward,
        pair_tokens=pool.view(options.pair_pool, 2, options.context),
        pair_rewards=reward(pool).view(options.pair_pool, 2),
        pair_logps=logps.view(options.pair_pool, 2),
        eval_prompts=eval_prompts,
        eval_rewards=baseline,
        facts=facts,
    )


def sample(model: LanguageModel, prompts: Tensor, noise: torch.Generator, steps: int) -> tuple[Tensor, Tensor]:
    """Responses to (N, P) prompts: (N, P + steps) tokens and (N, steps) log-probs of the drawn tokens, on the CPU."""
    uniforms = torch.rand(len(prompts), steps, generator=noise)
    parts = zip(torch.split(prompts, SAMPLE_ROWS), torch.split(uniforms, SAMPLE_ROWS), strict=True)
    drawn = [model.sample(p.to(model.device), u.to(model.device)) for p, u in parts]
    return torch.cat([tokens.cpu() for tokens, _ in drawn]), torch.cat([logps.cpu() for _, logps in drawn])


@torch.no_grad()
def sequence_logps(model: LanguageModel, tokens: Tensor, prompt_length: int) -> Tensor:
    """(N, T) -> (N,) log-probs of the responses, on the CPU."""
    parts = torch.split(tokens, SAMPLE_ROWS)
    return torch.cat([model.sequence_logps(part.to(model.device), prompt_length).cpu() for part in parts])


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
            "or lower prompt_tokens or eval_prompts, or raise vocabulary"
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
