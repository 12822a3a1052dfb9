"""Candidate sources for tests, written against the pairs contract."""

from __future__ import annotations

from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate

HEAD = f"import math\nimport torch\nimport torch.nn.functional as F\n\n\n{PAIRS.signature()}\n"
MARGIN = "    d = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)\n"
KNOWN = {name: objective.candidate for name, objective in known_objectives(PAIRS.name).items()}


def body(lines: str) -> Candidate:
    """A candidate whose function consists of these lines (4 blanks of indentation are added to each); `d` is the margin."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return Candidate(PAIRS.name, HEAD + MARGIN + indented)


def expression(text: str) -> Candidate:
    """A candidate that returns this expression of the margin `d` and `beta`."""
    return body(f"return {text}")


def rescaled(candidate: Candidate, factor: float) -> Candidate:
    """The same loss at beta * factor."""
    return Candidate(PAIRS.name, candidate.source.replace("beta):\n", f"beta):\n    beta = beta * {factor!r}\n", 1))
