"""Variation of loss trees: constants, subtrees, crossover, wrapping, mixing, other margins. Every draw comes from `rng`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from discovery.expressions.behaviour import copies, defect
from discovery.expressions.trees import (
    BETA,
    CHOSEN,
    FEATURES,
    MARGIN,
    POLICY_MARGIN,
    REJECTED,
    Node,
    TreeError,
    const,
    make,
    replace,
    subtrees,
)  # fmt: skip

MAX_OFFSPRING_SIZE = 90
TRIES = 60


@dataclass(frozen=True)
class Parent:
    """A loss to breed from."""

    name: str
    tree: Node


@dataclass(frozen=True)
class Offspring:
    """A new loss: its tree, the operator's short name, one sentence on how it was made, and whose parts it has."""

    tree: Node
    operator: str
    account: str
    parents: tuple[str, ...]


_Draft = tuple[Node, str]  # a tree and how it was made
Z = make("mul", BETA, MARGIN)
_UNARY = ("sigmoid", "softplus", "tanh", "relu", "logsigmoid", "exp", "square", "atan", "abs", "expm1")


def _about(rng: random.Random, value: float, spread: float) -> Node:
    return const(value * 2.0 ** rng.gauss(0.0, spread))


def _signal(rng: random.Random) -> Node:
    """Something that grows as training succeeds: the scaled margin, mostly."""
    feature = rng.choices((MARGIN, CHOSEN, make("neg", REJECTED), POLICY_MARGIN), (7, 1, 1, 1))[0]
    return make("mul", BETA, feature)


def _shape(rng: random.Random) -> tuple[Node, str]:
    """A falling function of a signal, from the families that margin losses are made of."""
    z = _signal(rng)
    k = const(rng.choice((0.0, 0.25, 0.5, 1.0, 2.0)))
    short = make("sub", k, z)
    shapes: list[tuple[str, Callable[[], Node]]] = [
        ("a soft hinge", lambda: make("softplus", short)),
        ("a squared soft hinge", lambda: make("square", make("softplus", short))),
        ("a squared hinge", lambda: make("square", make("relu", make("add", short, 0.5)))),
        ("an exponential", lambda: make("exp", make("mul", short, _about(rng, 0.5, 0.5)))),
        ("a sigmoid", lambda: make("sigmoid", make("mul", short, _about(rng, 1.0, 1.0)))),
        ("a square around a target", lambda: make("square", make("sub", z, _about(rng, 1.5, 0.5)))),
        ("a smooth absolute value", lambda: make("sqrt", make("add", make("square", make("sub", z, 1.5)), 0.1))),
        ("an arc tangent", lambda: make("neg", make("atan", make("mul", z, _about(rng, 1.0, 0.7))))),
        ("a logistic loss", lambda: make("neg", make("logsigmoid", z))),
    ]
    name, build = rng.choice(shapes)
    return build(), name


def _points(tree: Node, only: Callable[[Node], bool]) -> list[tuple[tuple[int, ...], Node]]:
    return [(path, node) for path, node in subtrees(tree) if only(node)]


def _constants(rng: random.Random, tree: Node, _: Node) -> _Draft:
    """Move up to two constants; give a loss without any a shift inside one of its functions."""
    found = _points(tree, lambda n: n.op == "const")
    found = [(path, node) for path, node in found if node.value not in (0.0,)]
    functions = _points(tree, lambda n: n.op in _UNARY and n.batched)
    if functions and (not found or rng.random() < 0.4):
        path, node = rng.choice(functions)
        shift = const(rng.choice((-1, 1)) * abs(_about(rng, 0.5, 0.7).value))
        return replace(tree, (*path, 0), make("add", node.args[0], shift)), f"argument of {node.op} shifted"
    if not found:
        raise TreeError("no constant to move")
    for path, node in rng.sample(found, min(len(found), rng.choice((1, 2)))):
        tree = replace(tree, path, const(node.value * 2.0 ** rng.gauss(0.0, 0.6)))
    return tree, "constants moved"


def _function(rng: random.Random, tree: Node, _: Node) -> _Draft:
    """Another function in place of one."""
    path, node = rng.choice(_points(tree, lambda n: n.op in _UNARY) or _raise("no function to change"))
    other = rng.choice([f for f in _UNARY if f != node.op])
    return replace(tree, path, make(other, *node.args)), f"{node.op} became {other}"


def _subtree(rng: random.Random, tree: Node, _: Node) -> _Draft:
    """A fresh shape in place of a part, or multiplied onto it."""
    path, node = rng.choice(_points(tree, lambda n: n.batched and n.size > 1))
    fresh, name = _shape(rng)
    if rng.random() < 0.5 and path:
        return replace(tree, path, fresh), f"a part replaced by {name}"
    weight = _about(rng, 0.3, 0.7)
    return replace(tree, path, make("add", node, make("mul", weight, fresh))), f"{name} added to a part"


def _crossover(rng: random.Random, tree: Node, other: Node) -> _Draft:
    """A part of one parent in place of a part of the other."""
    path, _ = rng.choice(_points(tree, lambda n: n.batched and n.size > 1))
    _, part = rng.choice(_points(other, lambda n: n.batched and n.size > 1))
    return replace(tree, path, part), "a part of one in place of a part of the other"


def _wrap(rng: random.Random, tree: Node, _: Node) -> _Draft:
    """A function around the loss, or a weight that depends on the margin in front of it."""
    k = _about(rng, 1.0, 0.7)
    wraps: list[tuple[str, Callable[[], Node]]] = [
        ("softplus around it", lambda: make("softplus", make("sub", tree, k))),
        ("tanh around it", lambda: make("tanh", make("mul", tree, _about(rng, 0.5, 0.5)))),
        ("log(1 + .) around it", lambda: make("log1p", make("clamp_min", make("mul", k, tree), 0.0))),
        ("square root around it", lambda: make("sqrt", make("add", make("clamp_min", tree, 0.0), 0.1))),
        ("square around it", lambda: make("square", make("add", tree, _about(rng, 0.2, 0.7)))),
        ("a saturating power around it", lambda: make("sub", 1.0, make("exp", make("neg", make("mul", k, tree))))),
        ("a detached focus on hard pairs in front", lambda: make("mul", _focus(rng), tree)),
    ]
    name, build = rng.choice(wraps)
    return build(), name


def _focus(rng: random.Random) -> Node:
    gate = make("sigmoid", make("mul", make("sub", _about(rng, 0.5, 0.7), Z), _about(rng, 1.0, 1.0)))
    return make("add", make("detach", gate), _about(rng, 0.3, 0.7))


def _mix(rng: random.Random, tree: Node, other: Node) -> _Draft:
    """Two losses weighted by a constant, or by a gate that opens with the margin."""
    if rng.random() < 0.4:
        weight = const(rng.uniform(0.15, 0.85))
        return _blend(weight, tree, other), f"weighted {weight.value:g} to {1 - weight.value:.3g}"
    inner = make("mul", make("sub", Z, const(rng.choice((0.0, 0.0, rng.gauss(0.0, 0.7))))), _about(rng, 3.0, 1.2))
    gate = make("sigmoid", inner)
    if rng.random() < 0.5:
        return _blend(make("detach", gate), tree, other), "weighted by a detached gate of the margin"
    return _blend(gate, tree, other), "weighted by a gate of the margin"


def _blend(weight: Node, one: Node, two: Node) -> Node:
    return make("add", make("mul", weight, one), make("mul", make("sub", 1.0, weight), two))


def _margins(rng: random.Random, tree: Node, _: Node) -> _Draft:
    """Another log-ratio in place of one: reference-free, chosen only, or the margin less its batch mean."""
    path, node = rng.choice(_points(tree, lambda n: n in FEATURES) or _raise("no margin"))
    share = _about(rng, 0.3, 0.7)
    options: list[tuple[str, Node]] = [
        ("the margin", MARGIN),
        ("the reference-free margin", POLICY_MARGIN),
        ("the chosen ratio", CHOSEN),
        ("the rejected ratio with its sign turned", make("neg", REJECTED)),
        ("the margin with the chosen ratio weighted up", make("add", MARGIN, make("mul", share, CHOSEN))),
        ("the margin with the rejected ratio weighted up", make("sub", MARGIN, make("mul", share, REJECTED))),
        ("the margin less a share of its batch mean",
         make("sub", MARGIN, make("mul", share, make("detach", make("mean", MARGIN))))),
        ("the margin less a penalty on a falling chosen ratio",
         make("sub", MARGIN, make("mul", share, make("relu", make("neg", CHOSEN))))),
    ]  # fmt: skip
    name, new = rng.choice([o for o in options if o[1] != node])
    return replace(tree, path, new), f"{FEATURES[node]} became {name}"


def _raise(message: str) -> list[tuple[tuple[int, ...], Node]]:
    raise TreeError(message)


Operator = Callable[[random.Random, Node, Node], _Draft]
OPERATORS: dict[str, tuple[Operator, int]] = {  # name -> how, and how often
    "constants": (_constants, 2),
    "function": (_function, 1),
    "subtree": (_subtree, 3),
    "crossover": (_crossover, 2),
    "wrap": (_wrap, 3),
    "mix": (_mix, 4),
    "margins": (_margins, 3),
}
_GUARDS = {
    "exp": ("clamp_max", 20.0),
    "expm1": ("clamp_max", 20.0),
    "log": ("clamp_min", 1e-6),
    "log1p": ("clamp_min", -0.999),
    "sqrt": ("clamp_min", 1e-6),
}
_TWO_PARENTS = {"crossover", "mix"}


def breed(rng: random.Random, parents: Sequence[Parent], avoid: Sequence[Node]) -> Offspring:
    """One new loss that passes `defect` and behaves like none of `avoid` at any multiple of beta.

    Args:
        rng: the only source of chance.
        parents: best first; earlier ones are drawn more often.
        avoid: trees that would be duplicates.

    Raises:
        TreeError: none was found in `TRIES` draws.
    """
    weights = [1.0 / (1.0 + 0.5 * i) for i in range(len(parents))]
    names = list(OPERATORS)
    for _ in range(TRIES):
        one, two = rng.choices(parents, weights, k=2)
        operator = rng.choices(names, [OPERATORS[n][1] for n in names])[0]
        if operator in _TWO_PARENTS and one.tree == two.tree:
            continue
        try:
            drawn, account = OPERATORS[operator][0](rng, one.tree, two.tree)
            tree = _protect(drawn)
        except TreeError:
            continue
        if tree.size > MAX_OFFSPRING_SIZE or defect(tree) or copies(tree, avoid):
            continue
        used = (one.name, two.name) if operator in _TWO_PARENTS else (one.name,)
        return Offspring(tree, operator, account, used)
    raise TreeError(f"no usable offspring in {TRIES} draws")


def _protect(tree: Node) -> Node:
    """The tree with exponentials, logarithms, roots and powers kept away from where they overflow or end.

    Raises:
        TreeError: the result is too large.
    """
    if not tree.args or tree in FEATURES:
        return tree
    args = [_protect(a) for a in tree.args]
    guard = _GUARDS.get(tree.op)
    if tree.op == "pow" and args[1].value != round(args[1].value):
        guard = ("clamp_min", 1e-6)
    if guard and args[0].tensor and args[0].op not in ("clamp_min", "clamp_max"):
        args[0] = make(guard[0], args[0], guard[1])
    if tree.op == "div" and args[1].tensor and args[1].op not in ("add", "clamp_min", "exp", "detach"):
        raise TreeError("a division by something that may be zero")
    return make(tree.op, *args)
