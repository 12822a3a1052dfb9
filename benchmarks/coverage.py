"""How often the intervals of boards, promotions, regimes and added seeds miss, by simulation.

python -m benchmarks.coverage                 # the tables of docs/statistics.md, in a few minutes
python -m benchmarks.coverage --rounds 20 --json

No loss differs from the baseline in any of it, so an interval that excludes 0 is an error. Losses share half of their noise
with each other, as differences to one baseline do. A share of 5% measured in 400 rounds is within 2.1 points.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.anytime import SPREAD, reach
from discovery.simultaneous import differences
from discovery.statistics import ERROR, STRATIFY_FROM, Difference, estimate, t_quantile

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]

DRAWS = 999  # sign patterns of a board here; the product takes 9,999, which leaves the rate as it is
LOSSES = (1, 5, 50)
DESIGNS = ((2, 10), (3, 10), (4, 10), (10, 10), (4, 1), (12, 1), (20, 1))  # seeds, worlds
PROMOTED = ((2, 1), (4, 1), (4, 10), (20, 10))
LOOKS = (20, 100)
CASES = 50  # anytime cases for each round of a board: they are cheap


@dataclass(frozen=True)
class Kind:
    """How differences scatter.

    Attributes:
        name, noise: what it is drawn by.
        ratio: the largest deviation of a world over the smallest.
        apart: how far the worlds' means lie from 0 at most.
    """

    name: str
    noise: Noise
    ratio: float = 1.0
    apart: float = 0.0

    def draw(self, rng: np.random.Generator, seeds: int, worlds: int, losses: int) -> Floats:
        """(seeds, worlds, losses): differences whose mean over worlds is 0, though no world's has to be."""
        shared, own = (self.noise(rng, (seeds, worlds, n)) for n in (1, losses))
        deviations = np.geomspace(1, self.ratio, worlds)[:, None]
        means = self.apart * np.linspace(-1, 1, worlds)[:, None] if worlds > 1 else 0.0
        return means + deviations * (shared + own) / np.sqrt(2)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_normal(shape)


def _skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_exponential(shape) - 1  # skewness 2


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_t(3, shape) / np.sqrt(3)


KINDS = (
    Kind("normal", _normal),
    Kind("unequal regimes", _normal, 8.0, 3.0),
    Kind("skewed", _skewed),
    Kind("skewed, unequal", _skewed, 8.0, 3.0),
    Kind("heavy tails", _heavy),
)


@dataclass(frozen=True)
class BoardRow:
    """Shares of boards on which at least one interval misses, by the number of losses.

    `one_by_one`: the same of intervals that each speak for themselves. `wider`: how much wider the joint ones are.
    """

    noise: str
    seeds: int
    worlds: int
    method: str
    together: Mapping[int, float]
    one_by_one: Mapping[int, float]
    wider: Mapping[int, float]


@dataclass(frozen=True)
class PromotionRow:
    """Shares of promotions with a miss: of any interval, by Holm's test, and by that where two others of five differ."""

    noise: str
    seeds: int
    worlds: int
    intervals: Mapping[int, float]
    holm: Mapping[int, float]
    holm_beside_real: float


@dataclass(frozen=True)
class AnytimeRow:
    """Shares of cases in which a look after some seed, from the second to the last, says that nothing is something."""

    noise: str
    looks: int
    at_any_time: float
    each_its_own: float


@dataclass(frozen=True)
class RegimeRow:
    """Shares of single regimes' intervals that miss, and of tables of ten regimes with at least one that does."""

    noise: str
    seeds: int
    each: float
    any_of_ten: float


@dataclass(frozen=True)
class SpreadRow:
    """Half the width of an interval at any time, in deviations of one seed's difference, by the number of seeds."""

    spread: float
    half_width: Mapping[int, float]


def columns_of(values: Floats) -> list[dict[tuple[int, int], float]]:
    """(seeds, worlds, losses) as the paired differences of each loss by seed and world."""
    seeds, worlds, losses = values.shape
    keys = [(s, w) for s in range(seeds) for w in range(worlds)]
    return [dict(zip(keys, values[:, :, loss].ravel().tolist(), strict=True)) for loss in range(losses)]


def _designs(kind: Kind, designs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those in which a kind is not the same as another one: regimes are unequal where there are several."""
    return [(seeds, worlds) for seeds, worlds in designs if worlds > 1 or kind.ratio == 1]


def boards(rounds: int) -> Iterator[BoardRow]:
    for kind in KINDS:
        for seeds, worlds in _designs(kind, DESIGNS):
            found = {n: _board(kind, seeds, worlds, n, rounds) for n in LOSSES}
            method = found[LOSSES[-1]][3]
            together, alone, wider = ({n: float(f[i]) for n, f in found.items()} for i in range(3))
            yield BoardRow(kind.name, seeds, worlds, method, together, alone, wider)


def _board(kind: Kind, seeds: int, worlds: int, losses: int, rounds: int) -> tuple[float, float, float, str]:
    rng, together, alone, wider, method = np.random.default_rng((seeds, worlds, losses)), 0, 0, [], ""
    for _ in range(rounds):
        columns = columns_of(kind.draw(rng, seeds, worlds, losses))
        found = differences(columns, True, 0.0, draws=DRAWS)
        ends = [e for column in columns if (e := estimate(column).interval()) is not None]
        together += any(map(_misses, found))
        alone += any(low > 0 or high < 0 for low, high in ends)
        wider.append(_width(found[0]) / (ends[0][1] - ends[0][0]))
        method = found[0].family.method
    return together / rounds, alone / rounds, float(np.mean(wider)), method


def _misses(difference: Difference) -> bool:
    return difference.low is not None and difference.high is not None and (difference.low > 0 or difference.high < 0)


def _width(difference: Difference) -> float:
    return 0.0 if difference.low is None or difference.high is None else difference.high - difference.low


def promotions(rounds: int) -> Iterator[PromotionRow]:
    for kind in KINDS:
        for seeds, worlds in _designs(kind, PROMOTED):
            rng = np.random.default_rng((seeds, worlds))
            intervals, holm, real = dict.fromkeys((1, 2, 5), 0), dict.fromkeys((1, 2, 5), 0), 0
            for losses in intervals:
                for _ in range(rounds):
                    values = kind.draw(rng, seeds, worlds, losses)
                    found = differences(columns_of(values), True, 0.0, joint=False)
                    intervals[losses] += any(map(_misses, found))
                    holm[losses] += any(d.p is not None and d.p <= ERROR for d in found)
            for _ in range(rounds):
                values = kind.draw(rng, seeds, worlds, 5)
                values[:, :, :2] += 1_000 * kind.ratio
                found = differences(columns_of(values), True, 0.0, joint=False)[2:]
                real += any(d.p is not None and d.p <= ERROR for d in found)
            shares = ({n: count / rounds for n, count in counts.items()} for counts in (intervals, holm))
            yield PromotionRow(kind.name, seeds, worlds, *shares, real / rounds)


def anytime(rounds: int) -> Iterator[AnytimeRow]:
    """The unit is a seed: the mean of ten worlds, and by itself where there are none."""
    for kind in KINDS:
        for _, worlds in _designs(kind, ((0, 10), (0, 1))):
            rng = np.random.default_rng(worlds)
            for looks in LOOKS:
                values = kind.draw(rng, rounds * CASES * looks, worlds, 1).mean((1, 2)).reshape(-1, looks)
                name = f"{kind.name}, {worlds} world{'s' if worlds > 1 else ''}"
                yield AnytimeRow(name, looks, *_looked_at(values))


def _looked_at(values: Floats) -> tuple[float, float]:
    n = np.arange(1, values.shape[1] + 1)
    mean = np.cumsum(values, 1) / n
    variance = (np.cumsum(values**2, 1) - n * mean**2)[:, 1:] / (n - 1)[1:]
    distance = np.abs(mean[:, 1:]) / np.sqrt(variance / n[1:])
    at_any_time, each = np.array([reach(k) for k in n[1:]]), np.array([t_quantile(k - 1) for k in n[1:]])
    return float((distance > at_any_time).any(1).mean()), float((distance > each).any(1).mean())


def regimes(rounds: int) -> Iterator[RegimeRow]:
    for kind in KINDS:
        for seeds, _ in _designs(kind, ((2, 1), (4, 1), (20, 1))):
            values = kind.draw(np.random.default_rng(seeds), seeds, 10 * rounds, 1)[:, :, 0]
            error = values.std(0, ddof=1) / np.sqrt(seeds)
            misses = np.abs(values.mean(0)) > t_quantile(seeds - 1) * error
            any_of_ten = misses.reshape(-1, rounds).any(0).mean()
            yield RegimeRow(kind.name, seeds, float(misses.mean()), float(any_of_ten))


def spreads() -> Iterator[SpreadRow]:
    for spread in (0.5, 1.0, SPREAD, 4.0):
        yield SpreadRow(spread, {n: reach(n, spread=spread) / np.sqrt(n) for n in (4, 5, 7, 10, 20, 50)})


def markdown(found: Mapping[str, Sequence[object]]) -> str:
    """All tables, as docs/statistics.md has them."""
    lines = []
    for title, rows in found.items():
        cells = [_cells(asdict(row)) for row in rows]  # type: ignore[call-overload]
        header = list(cells[0])
        lines += [f"**{title}**", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(row.values())} |" for row in cells]
        lines.append("")
    return "\n".join(lines).rstrip()


def _cells(row: Mapping[str, object]) -> dict[str, str]:
    return {name.replace("_", " "): _cell(name, value) for name, value in row.items()}


def _cell(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return " / ".join(_cell(name, v) for v in value.values())
    if name in ("wider", "half_width"):
        return "none" if value == float("inf") else f"{value:.2f}"
    return f"{100 * value:.1f}" if isinstance(value, float) and name != "spread" else f"{value}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="boards, and promotions, in each row")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    wanted = parser.parse_args(arguments)
    found = {
        f"Boards: misses in %, of {' / '.join(map(str, LOSSES))} losses": list(boards(wanted.rounds)),
        "Promotions: misses in %, of 1 / 2 / 5 losses": list(promotions(wanted.rounds)),
        "Looking after every seed from the second on: misses in %": list(anytime(wanted.rounds)),
        "Regimes one by one: misses in %": list(regimes(wanted.rounds)),
        "Half the width at any time, after 4 / 5 / 7 / 10 / 20 / 50 seeds": list(spreads()),
    }
    if wanted.json:
        plain = {title: [asdict(row) for row in rows] for title, rows in found.items()}
        print(json.dumps(plain, indent=2).replace("Infinity", "null"))
    else:
        print(f"{wanted.rounds} rounds a row; worlds have variances of their own from {STRATIFY_FROM} seeds on.\n")
        print(markdown(found))


if __name__ == "__main__":
    main()
