"""Mending against texts that nobody thought of: no crash, no hang, never a new meaning, and nothing allowed by it."""

from __future__ import annotations

import ast
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.mend import MAX_NOTES, read_candidate
from tests.sandbox.test_gate_fuzz import AFTER_A_DOT, LONG, QUICK, SEEDS, SOURCES, dense, mutants, programs
from tests.support.bytecode import leaks
from tests.support.hostile import corpus
from tests.support.idioms import IDIOMS

SOME = settings(QUICK, max_examples=100)
CPU_LIMIT_S = 1.0  # for some eighty readings of a text, each by the gate's own limits

# what people put around a loss; `{}` is the loss
AROUND = [
    "import numpy as np\n{}", "import logging, itertools\n{}", "from dataclasses import dataclass\n{}",
    "from typing import NamedTuple\n{}", "import scipy.stats as stats_\n{}",
    "{}\nif __name__ == '__main__':\n    import numpy as np\n    print(np.pi)\n",
    "{}\n__all__ = ['loss']\n", "{}\nprint('done')\n", "{}\nclass Loss:\n    beta = 0.1\n",
    "{}\ndef main():\n    while True:\n        print(loss)\n", "{}\nx_ = print\nassert True\n",
    "import warnings\nwarnings.filterwarnings('ignore')\n{}", "import logging\nlog_ = logging.getLogger(__name__)\n{}",
    "import torch as torch_\n{}\nseed_ = torch_.manual_seed(0)\n", "{}\nloss = loss\n",
]  # fmt: skip


def examine(source: str) -> None:
    """What must hold for any text."""
    started = time.thread_time()
    candidate = read_candidate(source, PAIRS)
    assert time.thread_time() - started < CPU_LIMIT_S
    assert read_candidate(source, PAIRS).source == candidate.source
    report = check_source(candidate, PAIRS)
    assert report.notes == candidate.notes
    assert len(report.notes) <= MAX_NOTES
    assert all(note.isprintable() and len(note) < 400 for note in report.notes)
    given = Candidate(PAIRS.name, source)
    if check_source(given, PAIRS).accepted:
        assert (candidate, candidate.notes) == (given, ())
    if not candidate.notes:
        assert candidate.source.lstrip("\ufeff") == given.source.lstrip("\ufeff")
    if report.accepted:
        assert leaks(candidate.source, AFTER_A_DOT) == []
        again = read_candidate(candidate.source, PAIRS)
        assert (again, again.notes) == (candidate, ())


@st.composite
def surrounded(draw: st.DrawFn) -> str:
    """A program, or a mutant, with what people put around a loss."""
    source = draw(st.one_of(programs(), mutants()))
    random = Random(draw(SEEDS))
    for around in random.sample(AROUND, random.randint(1, 4)):
        source = around.replace("{}", source)
    return source


@st.composite
def mixed_idioms(draw: st.DrawFn) -> str:
    """The head of one idiom with the tail of another."""
    random = Random(draw(SEEDS))
    one, other = random.choice(IDIOMS).source.split("\n"), random.choice(IDIOMS).source.split("\n")
    return "\n".join([*one[: random.randint(0, len(one))], *other[random.randint(0, len(other)) :]])


@given(st.one_of(surrounded(), mixed_idioms()))
@SOME
def test_any_text_is_mended_to_the_end_or_left_alone(source: str) -> None:
    examine(source)


@given(dense())
@SOME
def test_dense_texts(source: str) -> None:
    examine(source)


@pytest.mark.slow
@given(st.one_of(surrounded(), mixed_idioms(), dense(), st.text(max_size=300)))
@LONG
def test_many_texts(source: str) -> None:
    examine(source)


@given(SEEDS)
@SOME
def test_whatever_people_put_around_a_loss_the_loss_comes_back(seed: int) -> None:
    random = Random(seed)
    honest = random.choice([s for s in SOURCES if "__future__" not in s])  # which must stand first
    source = honest
    for around in random.sample(AROUND, random.randint(1, len(AROUND))):
        source = around.replace("{}", source)
    if random.random() < 0.3:
        source = "\ufeff" + source.replace("\n", "\r\n")
    candidate = read_candidate(source, PAIRS)
    assert check_source(candidate, PAIRS).accepted, source
    assert _without_import_of_torch(candidate.source) == _without_import_of_torch(honest)


def _without_import_of_torch(source: str) -> list[str]:
    """Statements as trees; allowed imports may stay in front of the loss."""
    return [ast.dump(n) for n in ast.parse(source).body if not isinstance(n, ast.Import)]


def test_of_all_attacks_only_those_are_accepted_whose_attack_was_taken_out() -> None:
    """Classes, functions and annotations that nothing uses: what runs is the plain loss around them."""
    defused = {}
    for attack in corpus():
        candidate = read_candidate(attack.source, PAIRS)
        if check_source(candidate, PAIRS).accepted and candidate.notes:
            defused[attack.id] = candidate
    assert set(defused) == {"h039", "x198", "x199"}
    for candidate in defused.values():
        assert leaks(candidate.source, AFTER_A_DOT) == []
        assert not {n.name for n in ast.walk(ast.parse(candidate.source)) if isinstance(n, ast.ClassDef)}
