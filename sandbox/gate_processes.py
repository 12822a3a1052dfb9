"""What a loss could tell one process from another by: the text of an object, and the order of a set.

The text of a function or an iterator holds its address, and a set is ordered by addresses and by the seed that texts are
hashed with. Both are the same in all forks of one process and differ from the next one, so a loss that looks at them is
another loss on another day. A NaN, too, is put into a set by its address. Text is therefore made of numbers and texts only,
except in an error's message: nothing can catch an error, so no value ever comes of that.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias

from sandbox.allowlist import KEEPERS
from sandbox.allowlist import names as words
from sandbox.gate_names import COMPREHENSIONS, Names, Scope
from sandbox.gate_purity import Purity
from sandbox.reports import Violation
from sandbox.text import one_line

_PLAIN_CALLS = words(
    "bool float int isinstance len str"
)  # whatever they are given, they give a number or a checked text
_ARITHMETIC_CALLS = words("abs divmod max min pow round sum")
_WHOLE_CALLS = words("bool int isinstance len")
_OF_THE_SAME_KIND = words("abs max min round")
_WHOLE_OF_MATH = words("ceil comb factorial floor gcd isclose isfinite isinf isnan isqrt lcm perm trunc")
_PLAIN_METHODS = words("dim element_size is_floating_point item ndimension nelement numel size")
_WHOLE_METHODS = words("dim element_size is_floating_point ndimension nelement numel")
_WHOLE_CASTS = words("bool int long")
_WHOLE_ATTRIBUTES = words("bits ndim")
_MAY_LEAVE_WHOLE = (ast.Div, ast.Pow)
_PLAIN_ATTRIBUTES = words("bits device dtype eps ndim resolution shape smallest_normal tiny")
_VIEWS = words("items keys")  # of a dictionary: sets, as far as operators are concerned
_READERS = words("all any dict enumerate len list max min reversed sorted sum tuple zip")  # read a view to its end
_SETS = words("frozenset set")
_UNORDERED = ("a set of something else than whole numbers, in no fixed order", "Use a tuple, or a list")
_ADDS = ("`.add` beside a set, of something else than whole numbers", "Write x + y for tensors; use a list for others")
_SAY = "In text outside an error message only numbers and texts stand"


_FIXED = words("math.pi math.e math.tau math.inf math.nan torch.pi torch.e torch.inf torch.nan")
_NAN = words("math.nan torch.nan")
_DTYPES = words("""
torch.bfloat16 torch.bool torch.double torch.float torch.float16 torch.float32 torch.float64 torch.half torch.int torch.int32
torch.int64 torch.long
""")

# what a value must be: a number, a text, a shape or a dtype; a number that is no NaN; a number that no sum makes a NaN of
_Kind: TypeAlias = Literal["plain", "number", "whole"]
_Part: TypeAlias = tuple[ast.AST, Scope, _Kind]


class Processes:
    """Finds text of anything but numbers and texts, and sets whose order is seen, in a module."""

    def __init__(self, names: Names, purity: Purity) -> None:
        self.names, self.purity = names, purity
        self._messages: set[int] = set()  # ids of nodes in `raise` and in the message of `assert`
        self._harmless: set[int] = set()  # ids of sets and views where no order shows, and of texts that are not used
        self._made_by: dict[int, int] = {}  # the comprehension that an element of a set is made by, as ids
        self._inside: dict[int, Scope] = {}  # of such a comprehension
        self._settled: set[object] = set()  # what is certain
        self._holds_sets = False  # others than those where no order shows
        self._adds: set[int] = set()  # ids of methods `.add` that are called with a whole number
        self._templates: dict[int, tuple[ast.expr, Scope]] = {}  # texts left of %, with what goes into them

    def violations(self) -> Iterator[Violation]:
        if not any(_concerns(node) for node, _ in self.names.nodes):  # most losses: arithmetic on names
            return
        for node, scope in self.names.nodes:
            self._note(node, scope)
        self._holds_sets = any(self._is_held_set(node, scope) for node, scope in self.names.nodes)
        for node, scope in self.names.nodes:
            problem = self._keeper_problem(node, scope)
            if problem is None and id(node) not in self._messages:
                problem = self._problem(node, scope)
            if problem is not None:
                yield Violation(getattr(node, "lineno", 0), *problem)

    def _note(self, node: ast.AST, scope: Scope) -> None:
        """Parents come before what they are made of: remember what a parent says of its parts."""
        if id(node) in self._made_by:
            self._inside[self._made_by[id(node)]] = scope
        if isinstance(node, ast.Raise):
            self._messages |= {id(n) for n in ast.walk(node)}
        elif isinstance(node, ast.Assert) and node.msg is not None:
            self._messages |= {id(n) for n in ast.walk(node.msg)}
        elif isinstance(node, ast.Expr):
            self._harmless.add(id(node.value))
        elif isinstance(node, ast.For):
            self._harmless |= self._views((node.iter,))
        elif isinstance(node, COMPREHENSIONS):
            if isinstance(node, ast.SetComp):
                self._made_by[id(node.elt)] = id(node)
            self._harmless |= self._views([g.iter for g in node.generators])
        elif isinstance(node, ast.Starred):
            self._harmless |= self._views((node.value,))
        elif isinstance(node, ast.Compare) and all(isinstance(op, (ast.In, ast.NotIn)) for op in node.ops):
            self._harmless |= {id(c) for c in node.comparators}
        elif isinstance(node, ast.Call):
            self._harmless.add(id(node.func))
            if isinstance(node.func, ast.Name):
                self._note_call(node, node.func, scope)
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "add" and len(node.args) == 1:
                self._adds |= {id(node.func)} if self.is_number(node.args[0], scope) else set()
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            self._templates[id(node.left)] = (node.right, scope)

    def _note_call(self, node: ast.Call, function: ast.Name, scope: Scope) -> None:
        if self.names.find(function.id, scope) is None:
            gives_back = function.id in ("max", "min") and len(node.args) > 1  # one of several
            if function.id in _READERS and not gives_back:
                self._harmless |= self._views(node.args)
            if function.id == "len":
                self._harmless |= {id(a) for a in node.args}
            elif function.id == "isinstance":
                self._harmless |= {id(n) for a in node.args[1:] for n in ast.walk(a)}

    def _views(self, nodes: Iterable[ast.expr]) -> set[int]:
        """Ids of those that are views of a dictionary: its own order is the one that it was filled in."""
        return {id(n) for n in nodes if _is_view(n)}

    def _is_held_set(self, node: ast.AST, scope: Scope) -> bool:
        """Whether this makes a set that something can be added to later."""
        if id(node) in self._harmless:
            return False
        made = isinstance(node, ast.Call) and self.names.is_builtin(node.func, scope, "set")
        return made or isinstance(node, (ast.Set, ast.SetComp))

    def _keeper_problem(self, node: ast.AST, scope: Scope) -> tuple[str, str] | None:
        """A module gives back under a method's or a number's name what it was given: `Softmax(dim=f).dim()` calls f."""
        dotted = self.names.dotted(node.func, scope) if isinstance(node, ast.Call) else None
        if dotted not in KEEPERS or not isinstance(node, ast.Call):
            return None
        if all(self.is_plain(a, scope) for a in (*node.args, *(k.value for k in node.keywords))):
            return None
        return f"`{dotted}` of something else than numbers", "Write numbers, or use torch.nn.functional"

    def _problem(self, node: ast.AST, scope: Scope) -> tuple[str, str] | None:
        if isinstance(node, ast.FormattedValue):
            if not self.is_plain(node.value, scope):
                return f"text of {_shown(node.value)}, which may hold an address in memory", _SAY
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "%" in node.value:
            return self._template_problem(node)
        elif isinstance(node, (ast.Set, ast.SetComp)):
            elements = node.elts if isinstance(node, ast.Set) else [node.elt]
            inside = self._inside.get(id(node), scope)
            if id(node) not in self._harmless and not all(self.is_number(e, inside) for e in elements):
                return _UNORDERED
        elif _is_view(node) and id(node) not in self._harmless:
            return "a view of a dictionary as a value", "Loop over it directly, or wrap it in tuple(...)"
        elif isinstance(node, ast.Call):
            return self._call_problem(node, scope)
        elif isinstance(node, ast.Attribute) and node.attr in _VIEWS and id(node) not in self._harmless:
            return f"the method `.{node.attr}` as a value", "Call it directly"
        elif isinstance(node, ast.Attribute) and node.attr == "add" and self._holds_sets:
            return None if id(node) in self._adds or self.names.dotted(node, scope) is not None else _ADDS
        elif id(node) not in self._harmless and any(self.names.is_builtin(node, scope, name) for name in _SETS):
            return "the type of a set as a value", "Call it directly"
        return None

    def _template_problem(self, node: ast.Constant) -> tuple[str, str] | None:
        if id(node) in self._harmless:
            return None
        right, scope = self._templates.get(id(node), (None, None))
        values = right.elts if isinstance(right, ast.Tuple) else [right]
        if scope is None or not all(v is not None and self.is_plain(v, scope) for v in values):
            return "a text with % in it", "Format with an f-string, of numbers and texts"
        return None

    def _call_problem(self, node: ast.Call, scope: Scope) -> tuple[str, str] | None:
        if self.names.is_builtin(node.func, scope, "str"):
            if not all(self.is_plain(a, scope) for a in node.args):
                return f"text of {_shown(node.args[0])}, which may hold an address in memory", _SAY
        elif any(self.names.is_builtin(node.func, scope, name) for name in _SETS) and id(node) not in self._harmless:
            return None if all(self._gives_numbers(a, scope) for a in node.args) else _UNORDERED
        return None

    def _gives_numbers(self, node: ast.expr, scope: Scope) -> bool:
        """Whether a loop over this gives numbers that are no NaN and nothing else."""
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return all(self.is_number(e, scope) for e in node.elts)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            cast = node.func.value.func if isinstance(node.func.value, ast.Call) else None
            return node.func.attr == "tolist" and isinstance(cast, ast.Attribute) and cast.attr in _WHOLE_CASTS
        return isinstance(node, ast.Call) and self.names.is_builtin(node.func, scope, "range")

    # what a value certainly is

    def is_number(self, node: ast.AST, scope: Scope) -> bool:
        """Whether this is certainly a number and no NaN: its hash is the same in every process."""
        return self._is_certain((node, scope, "number"))

    def is_plain(self, node: ast.AST, scope: Scope) -> bool:
        """Whether this is certainly a number, a text, a shape or a dtype: its text is the same in every process."""
        return self._is_certain((node, scope, "plain"))

    def _is_certain(self, part: _Part) -> bool:
        pending = [part]
        seen: set[object] = set()
        while pending:
            node, scope, kind = pending.pop()
            name = (node.id, self.names.find(node.id, scope)) if isinstance(node, ast.Name) else id(node)
            if (name, kind) in seen or (name, kind) in self._settled:
                continue
            seen.add((name, kind))
            parts = self._parts(node, scope, kind)
            if parts is None:
                return False
            pending += parts
        self._settled |= seen
        return True

    def _parts(self, node: ast.AST, scope: Scope, kind: _Kind) -> list[_Part] | None:
        """What must be plain, or a number, for this to be so; None if it may be anything."""
        if isinstance(node, ast.Constant):
            whole = type(node.value) in (int, bool)
            return [] if kind == "plain" or whole or (kind == "number" and type(node.value) is float) else None
        if isinstance(node, ast.JoinedStr):  # its own parts are looked at by themselves
            return [] if kind == "plain" else None
        if isinstance(node, ast.Name):
            return self._parts_of_name(node.id, scope, kind)
        if isinstance(node, ast.UnaryOp):
            return [] if isinstance(node.op, ast.Not) else [(node.operand, scope, kind)]
        if isinstance(node, ast.BinOp):
            if kind != "plain" and isinstance(node.op, _MAY_LEAVE_WHOLE):
                return None
            of: _Kind = "plain" if kind == "plain" else "whole"
            return [(node.left, scope, of), (node.right, scope, of)]
        if isinstance(node, ast.BoolOp):
            return [(value, scope, kind) for value in node.values]
        if isinstance(node, ast.IfExp):
            return [(node.body, scope, kind), (node.orelse, scope, kind)]
        if isinstance(node, ast.NamedExpr):
            return [(node.value, scope, kind)]
        if isinstance(node, ast.Compare):
            return [(part, scope, "plain") for part in (node.left, *node.comparators)]
        if isinstance(node, ast.Subscript):
            shape = isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
            return [] if shape and not isinstance(node.slice, ast.Slice) else [(node.value, scope, kind)]
        if isinstance(node, ast.Attribute):
            return self._parts_of_attribute(node, scope, kind)
        return self._parts_of_call(node, scope, kind) if isinstance(node, ast.Call) else None

    def _parts_of_attribute(self, node: ast.Attribute, scope: Scope, kind: _Kind) -> list[_Part] | None:
        dotted = self.names.dotted(node, scope)
        if dotted is not None:
            fixed = dotted in (_FIXED | _DTYPES if kind == "plain" else _FIXED - _NAN)
            return [] if fixed and kind != "whole" else None
        return [] if node.attr in (_PLAIN_ATTRIBUTES if kind == "plain" else _WHOLE_ATTRIBUTES) else None

    def _parts_of_call(self, node: ast.Call, scope: Scope, kind: _Kind) -> list[_Part] | None:
        function = node.func
        dotted = self.names.dotted(function, scope)
        if dotted is not None:
            module, _, leaf = dotted.rpartition(".")
            return [] if module == "math" and (kind == "plain" or leaf in _WHOLE_OF_MATH) else None
        if isinstance(function, ast.Attribute):
            return [] if function.attr in (_PLAIN_METHODS if kind == "plain" else _WHOLE_METHODS) else None
        if not isinstance(function, ast.Name) or self.names.find(function.id, scope) is not None:
            return None
        if function.id in (_PLAIN_CALLS if kind == "plain" else _WHOLE_CALLS):
            return []
        arithmetic = function.id in (_ARITHMETIC_CALLS if kind == "plain" else _OF_THE_SAME_KIND)
        return [(a, scope, kind) for a in node.args] if arithmetic and not node.keywords else None

    def _parts_of_name(self, name: str, scope: Scope, kind: _Kind) -> list[_Part] | None:
        home = self.names.find(name, scope)
        parts: list[_Part] = []
        for binding in home.bound[name] if home is not None else ():
            value = binding.value
            if binding.kind == "value" and value is not None:
                parts.append((value, binding.scope, kind))
            elif binding.kind == "parameter" and home is not None and self.purity.is_number(name, home, value):
                if value is None and kind == "whole":  # the contract's scalars are finite, their sums need not be
                    return None
                parts += [] if value is None else [(value, binding.scope, kind)]
            elif binding.kind == "item" and self.purity.are_numbers(value, binding.scope):
                parts += [(e, binding.scope, kind) for e in getattr(value, "elts", ())]
            else:
                return None
        return parts if home is not None else None


def _concerns(node: ast.AST) -> bool:
    """Whether a source without such nodes can hold nothing that is looked for here."""
    sign = _SIGNS.get(type(node))
    return sign is not None and sign(node)


# each is spelled where it is used: a built-in by its name, a module by its import or as an attribute
_SPELLED = words("frozenset items keys set str") | {k.rpartition(".")[2] for k in KEEPERS}
_SIGNS: dict[type[ast.AST], Callable[[Any], bool]] = {
    ast.Set: lambda node: True,
    ast.SetComp: lambda node: True,
    ast.FormattedValue: lambda node: True,
    ast.Constant: lambda node: isinstance(node.value, str) and "%" in node.value,
    ast.Name: lambda node: node.id in _SPELLED,
    ast.Attribute: lambda node: node.attr in _SPELLED,
    ast.ImportFrom: lambda node: any(alias.name in _SPELLED for alias in node.names),
}


def _is_view(node: object) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS


def _shown(node: ast.AST) -> str:
    return f"`{one_line(node.id, 40)}`" if isinstance(node, ast.Name) else "a value"
