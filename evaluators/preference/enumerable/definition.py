"""Every constant that the score depends on. Importable without torch.

A change of anything here moves scores: raise `VERSION` with it. The whole content is hashed into the task's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

VERSION = 3

# responses: strings over VOCABULARY tokens of length 0 to the option `max_length`
VOCABULARY = 2
EOS = VOCABULARY  # index of the end token among the model's outputs
SYMBOLS = VOCABULARY + 1
MOST_RESPONSES = 2**13 - 1  # to one prompt: all of them are enumerated
PROMPTS = 12

# policy: a frozen random recurrent network, whose output layer alone is trained
WIDTH = 160
RECURRENT_GAIN = 1.2  # deviation of recurrent weights, times the root of WIDTH
POSITION_FEATURE = 0.5  # value of the feature that says at which position a symbol is emitted, and of the constant one

# reference: a random output layer
OUTPUT_SCALE = 0.2
OUTPUT_SCALE_EOS = 0.05
EOS_LOGIT = (-3.5, 0.0)  # what is added to the logit of EOS at the first and at the last position, linear between

# planted reward: shares of its variance under the reference, for each prompt; each part is orthogonal to those before it
REWARD_SHARES = {
    "length": 0.2,  # longer is better in one half of the worlds, worse in the other
    "token": 0.25,
    "bigram": 0.3,
    "topic": 0.1,  # which token at which place: of the prompt alone
    "residual": 0.15,  # of a single (prompt, response), not shared with any other
}

# optimiser
ADAM_BETAS = (0.9, 0.95)
ADAM_EPS = 1e-6  # of gradients of norm 1: what is rounding alone moves nothing

# pairs and score
PROXY_CORRELATION = 0.8  # of the scores that a loss may read with the reward
HELD_OUT_PAIRS = 512
TIE = 1e-5  # nats; log pi/ref closer than this are equal, as logits are float32
CHECKPOINTS = 4  # evenly spaced, the last at the end
KL_BUDGET = 2.0
OTHER_KL_BUDGETS = (0.5, 5.0)
REWARD_AT_KL = 1.0
GRID_POINTS = 101


@dataclass(frozen=True)
class Regime:
    """How one world's training pairs come about.

    Attributes:
        name: of the world.
        pairs: number of training pairs.
        sharpness: P(a preferred to b) = sigmoid(sharpness * (j(a) - j(b)) + length_bias * (len(a) - len(b))), with j the
            standardised reward as the labeller sees it.
        flip: probability that a label is then turned over.
        judge: correlation of what the labeller sees with the reward that is scored.
        from_reference: responses are drawn from the reference; otherwise from another output layer, drawn independently.
        expertise: responses are drawn with probability ~ that source's * exp(expertise * reward): those of a better model.
        length_bias: per token of difference in length; acts on training labels, not on the reward nor on held-out labels.
        near_copies: the second response is the first with one token, at a random place, replaced by another.
    """

    name: str
    pairs: int = 512
    sharpness: float = 2.0
    flip: float = 0.0
    judge: float = 1.0
    from_reference: bool = True
    expertise: float = 0.0
    length_bias: float = 0.0
    near_copies: bool = False


REGIMES = (
    Regime("base"),
    Regime("few_pairs", pairs=128, expertise=2.0),
    Regime("flips", pairs=256, sharpness=20.0, flip=0.3),
    Regime("judge", pairs=128, sharpness=20.0, flip=0.2, judge=0.6),
    Regime("expert", pairs=256, expertise=2.0),
    Regime("deterministic", pairs=256, sharpness=20.0, expertise=2.0),
    Regime("near_copies", pairs=256, expertise=1.5, near_copies=True),
    Regime("off_policy", pairs=128, sharpness=20.0, flip=0.3, from_reference=False),
    Regime("other_expert", pairs=256, from_reference=False, expertise=2.0),
    Regime("length_bias", pairs=256, length_bias=0.8, expertise=1.0),
)
SCREEN_REGIMES = ("base", "few_pairs", "off_policy", "length_bias")


def generator(seed: int, regime: str, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose in one world: PCG64 seeded with sha256 of ``version/seed/regime/purpose``."""
    digest = hashlib.sha256(f"{VERSION}/{seed}/{regime}/{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def definition() -> Mapping[str, Any]:
    """All constants above as plain JSON values."""
    constants = {k.lower(): v for k, v in globals().items() if k.isupper() and k != "REGIMES"}
    return {**constants, "regimes": [asdict(r) for r in REGIMES]}
