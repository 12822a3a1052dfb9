"""Published formulas of all known objectives, written down naively in 50-digit arithmetic, independently of their source.

One function per objective: a batch of examples and beta give a list of losses. Where HALOs, DiscoPOP or other authors' code
is the source, its form is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath as mp

mp.mp.dps = 50
Number = Any  # mpf


@dataclass(frozen=True)
class Pair:
    """Log-probs of the policy (lw, ll) and the reference (rw, rl), and what else comes with a pair."""

    lw: Number
    ll: Number
    rw: Number
    rl: Number
    yw: int
    yl: int
    sw: Number
    sl: Number
    running: Number
    moving: Number

    @property
    def hw(self) -> Number:
        return self.lw - self.rw

    @property
    def hl(self) -> Number:
        return self.ll - self.rl

    @property
    def d(self) -> Number:
        return self.hw - self.hl


@dataclass(frozen=True)
class Single:
    """A labelled response, the trainer's statistics, and a fresh response of the reference to its prompt."""

    logp: Number
    reference: Number
    desirable: bool
    quantile: Number
    sample: Number
    sample_reference: Number
    kl: Number
    running: Number

    @property
    def h(self) -> Number:
        return self.logp - self.reference


Form = Callable[..., list[Number]]  # (batch, beta)
HOLDING = {"kto_pair", "uapo", "beta_dpo"}  # forms that take a third argument, a batch whose statistics are kept
FORMS: dict[str, Form] = {}


def exp(x: Number) -> Number:
    """Arguments beyond a million cost minutes, and no double holds either result."""
    return mp.exp(x) if abs(x) < 1e6 else mp.mpf(0) if x < 0 else mp.inf


def sigmoid(x: Number) -> Number:
    return 1 / (1 + exp(-x))


def ls(x: Number) -> Number:
    """log sigmoid."""
    return -mp.log1p(exp(-x)) if x > -100 else x - mp.log1p(exp(x))


def relu(x: Number) -> Number:
    return max(x, mp.mpf(0))


def mean(values: Sequence[Number]) -> Number:
    return mp.fsum(values) / len(values)


def variance(values: Sequence[Number]) -> Number:
    """With N - 1."""
    middle = mean(values)
    return mp.fsum((v - middle) ** 2 for v in values) / (len(values) - 1)


def each(name: str) -> Callable[[Callable[[Any, Number], Number]], Callable[[Any, Number], Number]]:
    """Registers a formula of one example."""

    def register(formula: Callable[[Any, Number], Number]) -> Callable[[Any, Number], Number]:
        FORMS[name] = lambda batch, beta: [formula(e, beta) for e in batch]
        return formula

    return register


def whole(name: str) -> Callable[[Form], Form]:
    """Registers a formula of a batch."""

    def register(formula: Form) -> Form:
        FORMS[name] = formula
        return formula

    return register


# functions of the margin; HALOs' DPOTrainer, CDPOTrainer (epsilon 0.1), DiscoPOP's plotting code, GPO's table of losses
each("dpo")(lambda e, b: -ls(b * e.hw - b * e.hl))
each("hinge")(lambda e, b: relu(1 - b * e.d))
each("rso")(lambda e, b: relu(1 - b * e.d))
each("ipo")(lambda e, b: (e.d - 1 / (2 * b)) ** 2)
each("cdpo")(lambda e, b: mp.mpf("0.9") * -ls(b * e.d) + mp.mpf("0.1") * -ls(-b * e.d))
each("rdpo")(lambda e, b: (mp.mpf("0.9") * -ls(b * e.d) - mp.mpf("0.1") * -ls(-b * e.d)) / (1 - 2 * mp.mpf("0.1")))
each("exponential")(lambda e, b: exp(-b * e.d))
each("squared")(lambda e, b: (1 - b * e.d) ** 2)
each("truncated_quadratic")(lambda e, b: relu(1 - b * e.d) ** 2)
each("savage")(lambda e, b: 1 / (1 + exp(b * e.d)) ** 2)
each("cell")(lambda e, b: (exp(-b * e.d) - ls(b * e.d)) / 2)
each("padll")(lambda e, b: mp.mpf("0.9") * (1 - (e.d < 0) * mp.mpf("0.5")) * -ls(b * e.d))
each("pfl")(lambda e, b: -ls(b * e.d) / 2 if e.lw > e.ll else relu(1 - b * e.d) * 2)
each("gce_pair")(lambda e, b: (1 - sigmoid(b * e.d) ** mp.mpf("0.7")) / mp.mpf("0.7"))
each("dpo_forward_corrected")(
    lambda e, b: -mp.log(mp.mpf("0.9") * sigmoid(b * e.d) + mp.mpf("0.1") * sigmoid(-b * e.d))
)


@each("lrml")
def lrml(e: Pair, b: Number) -> Number:
    z = b * e.d
    m = sigmoid(z / mp.mpf("0.05"))
    return -ls(z) * (1 - m) + exp(-z) * m


@each("exo_pair")
def exo_pair(e: Pair, b: Number) -> Number:
    q, eps = sigmoid(b * e.d), mp.mpf("0.001")
    rest = sigmoid(-b * e.d)
    return q * (ls(b * e.d) - mp.log(1 - eps)) + rest * (ls(-b * e.d) - mp.log(eps))


# functions of both log-ratios
each("nca_pair")(lambda e, b: -ls(b * e.hw) - ls(-b * e.hw) / 2 - ls(-b * e.hl) / 2)
each("bco_pair")(lambda e, b: -ls(b * e.hw - b * e.running) - ls(-(b * e.hl - b * e.running)))
each("sppo_hard")(lambda e, b: (e.hw - 1 / (2 * b)) ** 2 + (e.hl + 1 / (2 * b)) ** 2)
each("apo_zero")(lambda e, b: 1 - sigmoid(b * e.hw) + sigmoid(b * e.hl))
each("apo_down")(lambda e, b: sigmoid(b * e.hw) + 1 - sigmoid(b * e.d))
each("vpo")(lambda e, b: -ls(b * e.d) - mp.mpf("0.01") * b * e.hw)
each("dpop")(lambda e, b: -ls(b * (e.d - 50 * relu(-e.hw))))
each("chi_po")(lambda e, b: -ls(b * (exp(min(e.hw, mp.mpf(20))) + e.hw - exp(min(e.hl, mp.mpf(20))) - e.hl)))
each("cal_dpo")(lambda e, b: -ls(e.hw - e.hl) + ((e.hw - 1 / (2 * b)) ** 2 + (e.hl + 1 / (2 * b)) ** 2) / 2)
each("fdpo_forward_kl")(lambda e, b: -ls(b * ((1 - exp(-e.hw)) - (1 - exp(-e.hl)))))
each("fdpo_js")(lambda e, b: -ls(b * (log_share(e.hw) - log_share(e.hl))))
each("fdpo_alpha")(lambda e, b: -ls(b * ((1 - exp(-e.hw / 2)) - (1 - exp(-e.hl / 2))) * 2))


def log_share(h: Number) -> Number:
    """log(2u / (1 + u)) at u = exp(h)."""
    return mp.log(2) + h - mp.log1p(exp(h))


# with lengths; SimPO as in HALOs: beta * (average margin - gamma / beta)
each("simpo")(lambda e, b: -ls(b * (e.lw / e.yw - e.ll / e.yl - mp.mpf("0.25"))))
each("sigmoid_norm")(lambda e, b: -ls(b * (e.hw / e.yw - e.hl / e.yl)))
each("r_dpo_length")(lambda e, b: -ls(b * e.d + mp.mpf("0.05") * (e.yw - e.yl)))


@each("alphapo")
def alphapo(e: Pair, b: Number) -> Number:
    a = mp.mpf("0.25")
    reward_w, reward_l = (b * (1 - exp(-a * avg)) / a for avg in (e.lw / e.yw, e.ll / e.yl))
    return -ls(reward_w - reward_l - b * mp.mpf("0.25"))


@each("asft")
def asft(e: Pair, b: Number) -> Number:
    pw, pl = exp(e.lw / e.yw), exp(e.ll / e.yl)
    return -mp.log(pw) - ls(mp.log(pw / (1 - pw))) - ls(-mp.log(pl / (1 - pl)))


def per_token(batch: Sequence[Pair]) -> list[Number]:
    """Losses whose mean is the negative log-likelihood per token of the chosen responses."""
    return [-e.lw * len(batch) / sum(e.yw for e in batch) for e in batch]


@whole("sft")
def sft(batch: Sequence[Pair], b: Number) -> list[Number]:
    return per_token(batch)


@whole("cpo")
def cpo(batch: Sequence[Pair], b: Number) -> list[Number]:
    return [-ls(b * (e.lw - e.ll)) + nll for e, nll in zip(batch, per_token(batch), strict=True)]


@whole("orpo")
def orpo(batch: Sequence[Pair], b: Number) -> list[Number]:
    found = []
    for e, nll in zip(batch, per_token(batch), strict=True):
        odds_w, odds_l = (p / (1 - p) for p in (exp(e.lw / e.yw), exp(e.ll / e.yl)))
        found.append(nll - b * ls(mp.log(odds_w / odds_l)))
    return found


# with scores
each("mappo")(lambda e, b: -ls(b * e.hw - min(max(e.sw - e.sl, mp.mpf(0)), mp.mpf(1)) * b * e.hl))
each("odpo")(lambda e, b: -ls(b * e.d - mp.log(max(e.sw - e.sl, mp.mpf("0.001")))))


# of a whole batch
@whole("kto_pair")
def kto_pair(batch: Sequence[Pair], b: Number, held: Sequence[Pair] = ()) -> list[Number]:
    """The other half's mean, clamped at 0; the two halves of 2B values averaged per pair.

    The means carry no gradient: a derivative keeps those of the batch `held`.
    """
    of = held or batch
    chosen_kl, rejected_kl = relu(mean([e.hw for e in of])), relu(mean([e.hl for e in of]))
    return [(1 - sigmoid(b * (e.hw - rejected_kl)) + 1 - sigmoid(b * (chosen_kl - e.hl))) / 2 for e in batch]


@whole("kto_pair_discopop")
def kto_pair_discopop(batch: Sequence[Pair], b: Number) -> list[Number]:
    """DiscoPOP's seed: the means are differentiated too."""
    return kto_pair(batch, b)


@whole("beta_dpo")
def beta_dpo(batch: Sequence[Pair], b: Number, held: Sequence[Pair] = ()) -> list[Number]:
    """The batch's beta carries no gradient: a derivative keeps that of the batch `held`."""
    of = held or batch
    ahead = mean([e.lw - e.ll - (e.rw - e.rl) for e in of]) - of[0].moving
    used = max(b + b * mp.mpf("0.6") * ahead, mp.mpf("0.001"))
    return [-ls(used * e.d) for e in batch]


@whole("aot")
def aot(batch: Sequence[Pair], b: Number) -> list[Number]:
    ours, theirs = sorted(e.lw - e.ll for e in batch), sorted(e.rw - e.rl for e in batch)
    return [-ls(b * (s - t)) for s, t in zip(ours, theirs, strict=True)]


@whole("aot_unpaired")
def aot_unpaired(batch: Sequence[Pair], b: Number) -> list[Number]:
    chosen, rejected = sorted(e.hw for e in batch), sorted(e.hl for e in batch)
    return [-ls(b * (s - t)) for s, t in zip(chosen, rejected, strict=True)]


@whole("aql")
def aql(batch: Sequence[Pair], b: Number) -> list[Number]:
    q = mp.mpf("0.5") + mp.mpf("0.01") * (sigmoid(mean([b * e.d / mp.mpf("0.05") for e in batch])) - mp.mpf("0.5"))
    found = []
    for e in batch:
        w = sigmoid(-(b * e.d / mp.mpf("0.05") - q))
        found.append(w * -ls(b * e.d) + (1 - w) * relu(1 - b * e.d))
    return found


@whole("aqfl")
def aqfl(batch: Sequence[Pair], b: Number) -> list[Number]:
    logits = [b * e.d for e in batch]
    scaled = [z / mp.mpf("0.05") for z in logits]
    q = mp.sqrt(variance(scaled)) * mean([sigmoid(-u) for u in scaled])
    q += mp.mpf("0.05") * (sigmoid(mean(scaled)) - q)
    found = []
    for z, u in zip(logits, scaled, strict=True):
        w = sigmoid(mp.mpf("0.1") * abs(u - q))
        found.append(w * -ls(z) + (1 - w) * relu(1 - z))
    return found


@whole("dbaql")
def dbaql(batch: Sequence[Pair], b: Number) -> list[Number]:
    v, t = sigmoid(variance([e.d for e in batch])), mp.mpf("0.9")
    rest = sigmoid(-variance([e.d for e in batch]))
    return [v * -ls(b * e.d / t) + rest * exp(-b * e.d * t) for e in batch]


# single responses; KTO as in HALOs' KTOTrainer with weights 1
@each("kto")
def kto(e: Single, b: Number) -> Number:
    z0 = relu(e.kl)
    return 1 - sigmoid(b * (e.h - z0)) if e.desirable else 1 - sigmoid(b * (z0 - e.h))


each("apo_zero_unpaired")(lambda e, b: 1 - sigmoid(b * e.h) if e.desirable else sigmoid(b * e.h))
each("bco")(lambda e, b: -ls(b * e.h - b * e.running) if e.desirable else -ls(-(b * e.h - b * e.running)))


@each("qrpo")
def qrpo(e: Single, b: Number) -> Number:
    partition = b * (exp(1 / b) - 1)
    return (e.quantile - b * mp.log(partition) - b * e.h) ** 2


@whole("uapo")
def uapo(batch: Sequence[Single], b: Number, held: Sequence[Single] = ()) -> list[Number]:
    """The anchor carries no gradient: a derivative keeps that of the batch `held`."""
    rewards, of = [b * e.h for e in batch], [b * e.h for e in held or batch]
    spread = mp.sqrt(mean([(r - mean(of)) ** 2 for r in of]))
    anchor = mean(of) + mp.mpf("0.1") * spread
    return [-ls(r - anchor) if e.desirable else -ls(anchor - r) for e, r in zip(batch, rewards, strict=True)]


@whole("pmpo")
def pmpo(batch: Sequence[Single], b: Number) -> list[Number]:
    """Per example so that the mean is -a E_acc + (1 - a) E_rej + beta KL, a = 1/2."""
    accepted, rejected = (max(sum(e.desirable == label for e in batch), 1) for label in (True, False))
    found = []
    for e in batch:
        own = -e.logp * len(batch) / accepted / 2 if e.desirable else e.logp * len(batch) / rejected / 2
        found.append(own + b * (e.sample_reference - e.sample))
    return found
