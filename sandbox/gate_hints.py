"""What the gate tells a language model to do instead."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterable

from sandbox.allowlist import ATTRIBUTES, BUILTINS, DOTTED, IDLE_KEYWORDS, MODULES
from sandbox.text import one_line

_SYNTAX: dict[type[ast.AST], tuple[str, str]] = {
    ast.While: ("a `while` loop", "Use `for i in range(N)` with a constant N"),
    ast.Try: ("`try`", "Let errors surface; guard values with torch.where or clamp"),
    ast.TryStar: ("`try`", "Let errors surface; guard values with torch.where or clamp"),
    ast.ClassDef: ("a class", "Use plain functions and module-level constants"),
    ast.AsyncFunctionDef: ("`async def`", "Use a plain `def`"),
    ast.AsyncFor: ("`async for`", "Use a plain `for`"),
    ast.AsyncWith: ("`async with`", "Leave it out"),
    ast.Await: ("`await`", "Return a tensor"),
    ast.Yield: ("`yield`", "Return a tensor"),
    ast.YieldFrom: ("`yield from`", "Return a tensor"),
    ast.Match: ("`match`", "Use if / elif"),
    ast.Global: ("`global`", "Pass values as arguments; a loss keeps no state"),
    ast.Nonlocal: ("`nonlocal`", "Pass values as arguments; a loss keeps no state"),
    ast.Delete: ("`del`", "Leave it out"),
}

_NAMES = {
    "print": "Leave it out: nobody sees the output",
    "np": "Use torch or math",
    "numpy": "Use torch or math",
    "nn": "Add `from torch import nn` at the top",
    "F": "Add `import torch.nn.functional as F` at the top",
    "torch": "Add `import torch` at the top",
    "math": "Add `import math` at the top",
    "Tensor": "Add `from torch import Tensor` at the top",
    "Optional": "Add `from typing import Optional` at the top",
    "Tuple": "Add `from typing import Tuple` at the top",
    "hasattr": "Use values that are certain to be there",
    "getattr": "Write the attribute out",
    "type": "Use isinstance with a constant type",
    "callable": "Use values that are certain to be functions",
    "iter": "Use a `for` loop",
    "next": "Use a `for` loop or an index",
    "object": "Leave it out",
    "__name__": "Leave it out: a candidate is imported, never run by itself",
}

_ATTRIBUTES = {
    "data": "Use .detach()",
    "numpy": "Stay with tensors, or use .tolist()",
    "cuda": "Leave it out: all tensors are on the CPU",
    "backward": "Return the losses; the trainer computes the gradients",
    "grad": "Return the losses; the trainer computes the gradients",
    "requires_grad_": "Use .detach() to stop a gradient; inputs carry theirs already",
    "retain_grad": "Return the losses; the trainer computes the gradients",
    "new_empty": "Use .new_zeros",
    "format": "Use an f-string",
    "join": "Use an f-string",
    "count": "Use a comparison and .sum()",
    "pop": "Build a new list",
    "update": "Build a new dict",
    "copy": "Use list(...), dict(...) or .clone()",
    "index": "Use .index_select or a mask",
    "cdf": "Use `torch.special.ndtr(z)` for the cdf of a normal distribution",
    "log_prob": "Write the log-density out, as in `-0.5 * z**2`",
}

_DOTTED = {
    "torch.empty": "Use torch.zeros",
    "torch.empty_like": "Use torch.zeros_like",
    "torch.vmap": "Write the loss for the whole batch",
    "torch.autograd": "Return the losses; the trainer computes the gradients",
    "torch.nn.Module": "Use plain functions",
    "torch.nn.Parameter": "A loss has no weights of its own; use a constant",
    "torch.cuda": "Leave it out: all tensors are on the CPU",
    "torch.device": "Leave it out: all tensors are on the CPU",
    "torch.distributions.Normal": "Use `torch.special.ndtr(z)` for its cdf, `torch.special.log_ndtr(z)` for the log of it, "
    "`-0.5 * z**2` for a log-density",
    "torch.distributions.Bernoulli": "Use `torch.nn.functional.binary_cross_entropy_with_logits`",
    "torch.distributions.Categorical": "Use `torch.log_softmax`",
    "torch.distributions": "Write the density out with torch functions",
    "torch.inference_mode": "Use torch.no_grad(): a tensor that was made in inference mode has no place in a gradient",
    "torch.autocast": "Leave it out: a loss is computed in the precision of its inputs",
    "torch.amp": "Leave it out: a loss is computed in the precision of its inputs",
    "torch.manual_seed": "Leave it out: a loss is a deterministic function of its inputs",
    "torch.jit": "Leave it out: losses run as plain Python",
    "torch.compile": "Leave it out: losses run as plain Python",
    "torch.utils.checkpoint": "Leave it out: a loss needs little memory",
    "torch.get_default_dtype": "Use the dtype of an input, as in x.dtype",
    "torch.set_default_dtype": "Use the dtype of an input, as in x.dtype",
    "torch.randn_like": "A loss is a deterministic function of its inputs",
}

# other spellings of input, other, dim and keepdim
_ALIASES = frozenset({"x", "a", "x1", "x2", "axis", "keepdims"})
# arguments that no call needs
_OPTIONAL = frozenset({"names", "training", "weight"})

_LEAVES: dict[str, list[str]] = {}
for _name in sorted(DOTTED - MODULES):
    _LEAVES.setdefault(_name.rpartition(".")[2], []).append(_name)


def about_syntax(node: ast.AST) -> tuple[str, str]:
    """Problem and advice for a kind of node that is not allowed."""
    for kind, words in _SYNTAX.items():
        if isinstance(node, kind):
            return f"{words[0]} is not allowed", words[1]
    return f"`{type(node).__name__}` is not allowed", "Leave it out"


def about_name(name: str, known: Iterable[str]) -> str:
    """Advice for an unknown name; `known` are the names that the source binds."""
    if name in _NAMES:
        return _NAMES[name]
    near = nearest(name, [*known, *BUILTINS])
    return f"Did you mean `{near}`?" if near else "Use tensor functions and your own variables only"


def about_attribute(name: str) -> str:
    """Advice for an attribute that is not on the allow-list."""
    if name in _ATTRIBUTES:
        return _ATTRIBUTES[name]
    if name in _LEAVES:
        return f"Use `{_LEAVES[name][0]}(...)`"
    near = nearest(name, ATTRIBUTES)
    return f"Did you mean `.{near}`?" if near else "Use tensor arithmetic"


def about_dotted(dotted: str) -> str:
    """Advice for a function or module that is not on the allow-list."""
    for name, advice in _DOTTED.items():
        if dotted == name or dotted.startswith(f"{name}."):
            return advice
    module, _, leaf = dotted.rpartition(".")
    fresh = leaf.removesuffix("_")
    if fresh != leaf and fresh in _LEAVES:  # changes its argument in place, which a loss has not made
        same = f"{module}.{fresh}"
        return f"Use `{same if same in DOTTED else _LEAVES[fresh][0]}`, which makes a new tensor"
    if leaf in _LEAVES:
        return f"Did you mean `{_LEAVES[leaf][0]}`?"
    if leaf in ATTRIBUTES:
        return f"Did you mean the tensor method `.{leaf}`?"
    near = nearest(leaf, [n.rpartition(".")[2] for n in DOTTED if n.rpartition(".")[0] == module])
    return f"Did you mean `{module}.{near}`?" if near else "Do without"


def about_keyword(keyword: str, function: str, known: Collection[str]) -> str:
    """Advice for an argument that a function lacks or may not be given; leaving it out must not break the call."""
    if keyword in IDLE_KEYWORDS or keyword in _OPTIONAL:
        return "Leave it out"
    near = nearest(keyword, known)
    if near:
        return f"Did you mean `{near}=`?"
    shown = f"`{one_line(function, 80)}`" if function else "It"
    takes = [k for k in known if k not in _ALIASES] if function else []
    if takes:
        return f"{shown} takes {', '.join(takes)}"
    by_position = function.startswith("math.") or function in BUILTINS
    return f"{shown} takes its arguments without names" if by_position else "Leave it out"


def about_place(node: ast.expr) -> str:
    """Advice for what a tensor is cast to."""
    if isinstance(node, ast.Constant):
        return "Write .to(x.dtype), .float() or .double(), or leave it out: all tensors are on the CPU"
    shown = one_line(node.id, 60) if isinstance(node, ast.Name) else "..."
    return f"Write `.type_as({shown})` if it is a tensor, .to(x.dtype) or .float() if not"


def about_with(dotted: str | None) -> str:
    """Advice for a `with` that is not one of the gradient modes."""
    return about_dotted(dotted) if dotted and about_dotted(dotted) != "Do without" else "Use .detach() instead"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The most similar of the choices, if one is similar. Compares with few: similarity is slow, and texts are hostile."""
    if not 2 < len(word) <= 40:
        return None
    likely = [
        c for c in choices if abs(len(c) - len(word)) <= 2 and (c[:1] == word[:1] or c[-2:] == word[-2:]) and c != word
    ]
    near = difflib.get_close_matches(word, sorted(set(likely))[:60], n=1, cutoff=0.75)
    return near[0] if near else None
