"""What counts as elementwise may be called once for many runs, so nothing that couples examples may count."""

from __future__ import annotations

import pytest

from evaluators.preference.contract import PAIRS
from sandbox.elementwise import is_elementwise
from tests.support.losses import HEAD, KNOWN, MARGIN, body, expression


@pytest.mark.parametrize("name", ["dpo", "hinge", "ipo", "lrml"])
def test_margin_losses_are_elementwise(name: str) -> None:
    assert is_elementwise(KNOWN[name].source, PAIRS)


@pytest.mark.parametrize(
    "lines",
    [
        "from __future__ import annotations\n",
        "from typing import Optional, Tuple\n",
        "from torch import Tensor\nfrom torch.nn import functional as G\n",
        "def soft(x, k=2.0):\n    return F.softplus(-k * x)\n",
    ],
)
def test_types_and_helpers_do_not_couple(lines: str) -> None:
    assert is_elementwise(lines + HEAD.replace("\n\n\n", "\n") + MARGIN + "    return F.softplus(-d)\n", PAIRS)


@pytest.mark.parametrize(
    "expression_text",
    [
        "d - d.mean()",
        "d.cumsum(0)",
        "d.flip(0)",
        "d[0] * d",
        "d @ d * d",
        "torch.softmax(d, 0)",
        "sum(d) * d",
        "d * len(d)",
    ],
)
def test_statistics_of_the_batch_couple(expression_text: str) -> None:
    assert not is_elementwise(expression(expression_text).source, PAIRS)


@pytest.mark.parametrize(
    "lines",
    [
        "abs = sum\nreturn d * abs(d)",
        "pow = max\nreturn d * pow(d)",
        "def h(x):\n    return x\nh = max\nreturn d * h(d)",
        "def g(float):\n    return d * float(d)\nreturn g(max)",
        "for abs in range(3):\n    d = d * abs(d)\nreturn d",
        "from torch import mean as abs\nreturn d * abs(d)",
        "from torch import cumsum as float\nreturn float(d)",
        "from torch import mean\nreturn d * mean(d)",
        "import math as pow\nreturn d",
    ],
)
def test_a_renamed_function_is_not_taken_for_what_it_is_called(lines: str) -> None:
    assert not is_elementwise(body(lines).source, PAIRS)


def test_text_that_is_not_python_is_not_elementwise() -> None:
    assert not is_elementwise("def loss(", PAIRS)
    assert not is_elementwise("x = 1\n", PAIRS)
