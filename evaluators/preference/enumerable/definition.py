"""Every constant that the score depends on. Importable without torch.

A change of anything here moves scores: raise `VERSION` with it. The whole content is hashed into the task's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

VERSION = 1

# responses: strings over VOCABULARY tokens of length 0..MAX_LENGTH
VOCABULARY = 4
MAX_LENGTH = 4
EOS = VOCABULARY  # index of the end token among the model's outputs
RESPONSES = sum(VOCABULARY**n for n in range(MAX_LENGTH + 1))  # 341
PROMPTS = tuple((a, b) for a in range(VOCABULARY) for b in range(VOCABULARY) if a != b)  # 12 ordered pairs

# language model
HIDDEN = 16
INIT_SCALE = 0.3  # deviation of the initial weights before the reference is trained

# planted source: deviations of the parts of its next-token logits, and the logit offset of EOS by position
SOURCE_PREVIOUS = 0.8
SOURCE_TOPIC = 0.8
SOURCE_POSITION = 0.4
SOURCE_EOS = (-1.5, -0.5, 0.0, 0.5)

# reference: the model fitted to sequences sampled from the source
REFERENCE_STEPS = 100
REFERENCE_BATCH = 64
REFERENCE_LR = 0.02

# planted reward: deviations of its parts before it is standardised per prompt under the reference
REWARD_TOKEN = 0.5
REWARD_TOPIC = 0.7
REWARD_BIGRAM = 0.7
REWARD_RESIDUAL = 0.3  # part of a single (prompt, response), not shared with any other

# pairs and score
HELD_OUT_PAIRS = 512
TIE = 1e-5  # nats; log pi/ref closer than this are equal, as logits are float32
CHECKPOINT_EVERY = 10
KL_BUDGET = 2.0
OTHER_KL_BUDGETS = (0.5, 5.0)
REWARD_AT_KL = 1.0
GRID_POINTS = 201


@dataclass(frozen=True)
class Regime:
    """How one world's training pairs come about.

    Attributes:
        name: of the world.
        pairs: number of training pairs.
        sharpness: P(a preferred to b) = sigmoid(sharpness * (r(a) - r(b)) + length_bias * (len(a) - len(b))), with r the
            standardised reward.
        flip: probability that a label is then turned over.
        from_reference: responses are drawn from the reference; otherwise from another source, planted independently.
        length_bias: per token of difference in length; acts on training labels, not on the reward nor on held-out labels.
    """

    name: str
    pairs: int = 1024
    sharpness: float = 2.0
    flip: float = 0.0
    from_reference: bool = True
    length_bias: float = 0.0


REGIMES = (
    Regime("base"),
    Regime("little_data", pairs=128),
    Regime("label_flips", flip=0.15),
    Regime("near_deterministic", sharpness=20.0),
    Regime("off_policy", from_reference=False),
    Regime("length_bias", length_bias=1.0),
)


def generator(seed: int, regime: str, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose in one world: PCG64 seeded with sha256 of ``seed/regime/purpose``."""
    digest = hashlib.sha256(f"{seed}/{regime}/{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def definition() -> Mapping[str, Any]:
    """All constants above as plain JSON values."""
    constants = {k.lower(): v for k, v in globals().items() if k.isupper() and k != "REGIMES"}
    return {**constants, "regimes": [asdict(r) for r in REGIMES]}
