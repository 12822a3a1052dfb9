"""Candidate sources for tests, written against the pairs contract."""

from __future__ import annotations

import ast

from evaluators.objectives import default_baselines, known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate

HEAD = f"import math\nimport torch\nimport torch.nn.functional as F\n\n\n{PAIRS.signature()}\n"
MARGIN = "    d = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)\n"
KNOWN = {name: known_objective(PAIRS.name, name).candidate for name in default_baselines(PAIRS.name)}


def body(lines: str, *optional: str) -> Candidate:
    """A candidate whose function consists of these lines (4 blanks of indentation are added to each); `d` is the margin.

    `optional` are names of optional inputs that it reads.
    """
    head = HEAD.replace(") ->", "".join(f", {name}" for name in optional) + ") ->")
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return Candidate(PAIRS.name, head + MARGIN + indented)


def expression(text: str) -> Candidate:
    """A candidate that returns this expression of the margin `d` and `beta`."""
    return body(f"return {text}")


def rescaled(candidate: Candidate, factor: float) -> Candidate:
    """The same loss at beta * factor."""
    functions = [n for n in ast.parse(candidate.source).body if isinstance(n, ast.FunctionDef) and n.name == "loss"]
    lines = candidate.source.split("\n")
    lines.insert(functions[0].body[0].lineno - 1, f"    beta = beta * {factor!r}")
    return Candidate(candidate.contract, "\n".join(lines))
