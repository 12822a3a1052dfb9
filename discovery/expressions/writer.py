"""Expression trees into readable candidate source: named intermediate values, short lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from discovery.expressions.trees import BETA, CHOSEN, FEATURES, INFIX, MARGIN, OPS, REJECTED, Node
from sandbox.contract import Contract

_LONG = 64  # an expression longer than this gets a name of its own
_PRECEDENCE = {"add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3, "pow": 4}
_ATOM = 5
_SCALED = {"margin": "z", "chosen_ratio": "z_chosen", "rejected_ratio": "z_rejected", "policy_margin": "z_policy"}
_NOUNS = {
    "sigmoid": "gate", "logsigmoid": "log_sigmoid", "softplus": "soft", "relu": "hinge", "exp": "exponential",
    "square": "squared", "tanh": "bounded", "mean": "batch_mean", "detach": "fixed", "sqrt": "root", "atan": "angle",
    "clamp_min": "clamped", "clamp_max": "clamped", "abs": "distance",
}  # fmt: skip


def write_source(tree: Node, contract: Contract, docstring: str) -> str:
    """One module that defines the contract's function as this tree.

    `docstring` must be free of quotes and backslashes. The parameters are the required ones, and the optional inputs that
    the tree reads.
    """
    used = {n.name for n in tree.walk() if n.op == "input"}
    parameters = [i.name for i in contract.inputs if not i.optional or i.name in used]
    writer = _Writer(tree, {*parameters, contract.function, "torch", "F"})
    result = writer.text(tree, top=True)
    body = "\n".join(f"    {line}" for line in [*writer.lines, f"return {result}"])
    imports = [
        text for text, mark in (("import torch", "torch."), ("import torch.nn.functional as F", "F.")) if mark in body
    ]
    head = f'"""{docstring}\n"""\n\n' + "".join(f"{i}\n" for i in imports) + ("\n\n" if imports else "\n")
    return f"{head}def {contract.function}({', '.join(parameters)}):\n{body}\n"


def number(value: float) -> str:
    """A constant as it is written: four significant digits."""
    return f"{value:.4g}"


class _Writer:
    """Writes each shared or long subtree once, as an assignment before its first use."""

    def __init__(self, tree: Node, taken: set[str]) -> None:
        self.taken = set(taken)
        self.lines: list[str] = []
        self.names: dict[Node, str] = {}
        self.uses = Counter(_edges(tree))

    def text(self, node: Node, top: bool = False) -> str:
        if node in self.names:
            return self.names[node]
        text = self._plain(node)
        if top or not self._deserves_name(node, text):
            return text
        name = self._name(node)
        self.lines.append(f"{name} = {text}")
        self.names[node] = name
        return name

    def _deserves_name(self, node: Node, text: str) -> bool:
        if not node.args:
            return False
        feature = node in FEATURES or _scaled_feature(node) is not None
        return feature or (self.uses[node] > 1 and node.size > 2) or len(text) > _LONG

    def _name(self, node: Node) -> str:
        scaled = _scaled_feature(node)
        base = FEATURES.get(node) or (
            _SCALED.get(scaled, f"scaled_{scaled}") if scaled else _NOUNS.get(node.op, "term")
        )
        name, count = base, 2
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name

    def _plain(self, node: Node) -> str:
        if node.op == "const":
            return number(node.value)
        if node.op == "input":
            return node.name
        if node == MARGIN and self.uses[CHOSEN] + self.uses[REJECTED] == 2:  # its halves are used nowhere else
            return f"({self._plain(CHOSEN)}) - ({self._plain(REJECTED)})"
        if node.op == "add" and node.args[1].op == "const" and node.args[1].value < 0:
            return f"{self._operand(node.args[0], 1)} - {number(-node.args[1].value)}"
        if node.op in INFIX:
            own = _PRECEDENCE[node.op]
            left = self._operand(node.args[0], own + (node.op == "pow"))
            right = self._operand(node.args[1], own + 1)
            return f"{left} {INFIX[node.op].source} {right}"
        if node.op == "neg":
            return "-" + self._operand(node.args[0], 3)
        if node.op in ("mean", "detach"):
            return OPS[node.op].source.format(self._operand(node.args[0], _ATOM))
        return OPS[node.op].source.format(*(self.text(a) for a in node.args))

    def _operand(self, node: Node, least: int) -> str:
        text = self.text(node)
        return f"({text})" if node not in self.names and _precedence(node) < least else text


def _precedence(node: Node) -> int:
    if node.op == "const":
        return 3 if node.value < 0 else _ATOM
    return _PRECEDENCE.get(node.op, _ATOM)


def _scaled_feature(node: Node) -> str | None:
    """The feature that is multiplied by beta here, if that is all this node is."""
    if node.op == "mul" and BETA in node.args:
        other = node.args[1] if node.args[0] == BETA else node.args[0]
        return FEATURES.get(other)
    return None


def _edges(tree: Node) -> Iterator[Node]:
    """Arguments of each distinct node, once per use."""
    seen: set[Node] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield from node.args
            waiting.extend(node.args)
