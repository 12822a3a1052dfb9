"""Formulas as LaTeX for a paper and as plain text for a docstring."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from discovery.formulas.tree import COMPARISONS, Expr, Formula
from sandbox.allowlist import names

# how tightly an operation binds; an operand that binds less is put in parentheses
_LOOSE, _SUM, _SIGN, _PRODUCT, _APPLIED, _POWER, _ATOM = range(7)
_BINDING = {"add": _SUM, "sub": _SUM, "neg": _SIGN, "mul": _PRODUCT, "div": _PRODUCT, "pow": _POWER}

LATEX_INPUTS = {
    "policy_chosen_logps": r"\log\pi_\theta(y_w \mid x)",
    "policy_rejected_logps": r"\log\pi_\theta(y_l \mid x)",
    "reference_chosen_logps": r"\log\pi_{\mathrm{ref}}(y_w \mid x)",
    "reference_rejected_logps": r"\log\pi_{\mathrm{ref}}(y_l \mid x)",
    "policy_logps": r"\log\pi_\theta(y \mid x)",
    "reference_logps": r"\log\pi_{\mathrm{ref}}(y \mid x)",
    "progress": "t",
}
TEXT_INPUTS = {
    "policy_chosen_logps": "lw",
    "policy_rejected_logps": "ll",
    "reference_chosen_logps": "rw",
    "reference_rejected_logps": "rl",
}
_GREEK = names("""
    alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi chi psi omega
    Gamma Delta Theta Lambda Sigma Phi Psi Omega
""")
_LATEX_CALLS = {
    "log": r"\log", "sigmoid": r"\sigma", "logsigmoid": r"\log\sigma", "exp": r"\exp", "tanh": r"\tanh", "sinh": r"\sinh",
    "cosh": r"\cosh", "sin": r"\sin", "cos": r"\cos", "atan": r"\arctan", "log2": r"\log_2", "log10": r"\log_{10}",
    "erf": r"\operatorname{erf}", "sign": r"\operatorname{sign}", "relu": r"\operatorname{relu}",
    "softplus": r"\operatorname{softplus}", "mean": r"\operatorname{mean}", "sum": r"\operatorname{sum}",
    "std": r"\operatorname{std}", "var": r"\operatorname{var}", "std_0": r"\operatorname{std}_0",
    "var_0": r"\operatorname{var}_0", "max": r"\max", "min": r"\min",
    "detach": r"\operatorname{sg}",
}  # fmt: skip
_LATEX_COMPARISONS = {"gt": ">", "ge": r"\ge", "lt": "<", "le": r"\le"}
_NOTES = {
    "detach": "sg(x) is x without a gradient",
    "mean": "mean, sum, std and var are over the batch",
    "std_0": "std_0 and var_0 divide by the batch size, std and var by one less",
    "count": "B is the batch size",
    "softplus": "softplus(x) = log(1 + exp(x))",
    "relu": "relu(x) = max(x, 0)",
    "indicator": "1[c] is 1 where c holds, else 0",
}
_RATIOS = frozenset((name, name.replace("policy", "reference")) for name in LATEX_INPUTS if name.startswith("policy"))
_SAME_NOTE = {"sum": "mean", "std": "mean", "var": "mean", "var_0": "std_0"}


def operations(formula: Formula) -> set[str]:
    """Every operation that occurs."""
    waiting = [formula.result, *(e for _, e in formula.definitions)]
    found: set[str] = set()
    while waiting:
        expression = waiting.pop()
        found.add(expression.op)
        waiting.extend(expression.args)
    return found


def notes(formula: Formula) -> list[str]:
    """What the notation means, as far as it occurs."""
    used = {_SAME_NOTE.get(op, op) for op in operations(formula)}
    return [text for op, text in _NOTES.items() if op in used]


def latex(formula: Formula) -> str:
    """An `aligned` block: each definition on a line, then the loss."""
    lines = [rf"{latex_symbol(name)} &= {_latex(e)}" for name, e in formula.definitions]
    lines.append(rf"\mathcal{{L}} &= {_latex(formula.result)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def text(formula: Formula) -> list[str]:
    """The same, a line each, as a docstring shows it."""
    return [*(f"{name} = {_text(e)}" for name, e in formula.definitions), f"L = {_text(formula.result)}"]


def latex_symbol(name: str) -> str:
    """A name of the source as a symbol: greek letters as such, one letter in italics, words upright."""
    if name in LATEX_INPUTS:
        return LATEX_INPUTS[name]
    base, _, index = name.rpartition("_")
    if base and index.isdigit() and (base in _GREEK or len(base) == 1):
        return f"{latex_symbol(base)}_{{{index}}}"
    if name in _GREEK or (name.lower() in _GREEK and name.isupper()):
        return "\\" + (name if name in _GREEK else name.lower())
    if len(name) == 1:
        return name
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}"


@dataclass(frozen=True)
class _Style:
    """What differs between the two ways of writing."""

    symbol: Callable[[str], str]
    number: Callable[[str], tuple[str, int]]
    wrap: Callable[[str], str]
    special: Mapping[str, Callable[..., tuple[str, int]]]


def _write(expression: Expr, style: _Style) -> tuple[str, int]:
    """Text and how tightly it binds."""
    if expression.op == "number":
        return style.number(expression.name)
    if expression.op == "symbol":
        return style.symbol(expression.name), _ATOM
    return style.special[expression.op](*expression.args)


def _operand(expression: Expr, least: int, style: _Style) -> str:
    written, binding = _write(expression, style)
    return written if binding >= least else style.wrap(written)


def _plain_number(digits: str) -> tuple[str, int]:
    value = digits.removesuffix(".0") if digits.endswith(".0") and "e" not in digits else digits
    return value, _SIGN if value.startswith("-") else _ATOM


def _latex_number(digits: str) -> tuple[str, int]:
    value, binding = _plain_number(digits)
    if "e" not in value:
        return {"inf": r"\infty", "-inf": r"-\infty"}.get(value, value), binding
    mantissa, exponent = value.split("e")
    return rf"{mantissa.removesuffix('.0')} \times 10^{{{int(exponent)}}}", _SIGN if binding == _SIGN else _PRODUCT


def _infix(style: Callable[[], _Style], op: str, sign: str) -> Callable[..., tuple[str, int]]:
    own = _BINDING[op]

    def write(left: Expr, right: Expr) -> tuple[str, int]:
        # a sign never follows an operator without parentheses, and a - (b + c) needs them
        tighter = own + 1 if op in ("sub", "div", "pow") or own == _SUM else own
        right_least = max(tighter, _PRODUCT)
        signed = op in ("mul", "div") and left.op == "neg"  # (-a) b is -(a b)
        first = _operand(left, _SIGN if signed else own, style())
        return f"{first}{sign}{_operand(right, right_least, style())}", _SIGN if signed else own

    return write


def _comparison(style: Callable[[], _Style], sign: str) -> Callable[..., tuple[str, int]]:
    return lambda a, b: (f"{_operand(a, _SUM, style())} {sign} {_operand(b, _SUM, style())}", _LOOSE)


def _latex(expression: Expr) -> str:
    return _write(expression, _LATEX)[0]


def _text(expression: Expr) -> str:
    return _write(expression, _TEXT)[0]


def _latex_difference(left: Expr, right: Expr) -> tuple[str, int]:
    """A log-ratio of the same response as one logarithm of a fraction, as papers write it."""
    pair = (left.name, right.name) if left.op == right.op == "symbol" else ("", "")
    if pair in _RATIOS:
        policy, reference = (LATEX_INPUTS[name].removeprefix(r"\log") for name in pair)
        return rf"\log\frac{{{policy}}}{{{reference}}}", _APPLIED
    return _infix(lambda: _LATEX, "sub", " - ")(left, right)


def _latex_product(left: Expr, right: Expr) -> tuple[str, int]:
    second = _operand(right, _PRODUCT, _LATEX)
    least = _SIGN if left.op == "neg" else _PRODUCT  # (-a) b is -(a b)
    return f"{_operand(left, least, _LATEX)}{_between(second)}{second}", least


def _between(second: str) -> str:
    """A thin space, or a dot where the digits would run together."""
    return r" \cdot " if re.match(r"[\d-]", second) else r"\,"


def _latex_special() -> dict[str, Callable[..., tuple[str, int]]]:
    def style() -> _Style:
        return _LATEX

    def listed(args: tuple[Expr, ...]) -> str:
        return ", ".join(_latex(a) for a in args)

    def called(name: str) -> Callable[..., tuple[str, int]]:
        left, right = ("[", "]") if name == r"\operatorname{sg}" else ("(", ")")
        return lambda *args: (rf"{name}\left{left}{listed(args)}\right{right}", _APPLIED)

    special = {op: called(name) for op, name in _LATEX_CALLS.items()}
    special |= {op: _comparison(style, sign) for op, sign in _LATEX_COMPARISONS.items()}
    return special | {
        "add": _infix(style, "add", " + "),
        "sub": _latex_difference,
        "neg": lambda a: (f"-{_operand(a, _PRODUCT, _LATEX)}", _SIGN),
        "mul": _latex_product,
        "div": lambda a, b: (rf"\frac{{{_latex(a)}}}{{{_latex(b)}}}", _APPLIED),
        "pow": lambda a, b: (rf"{_operand(a, _ATOM, _LATEX)}^{{{_latex(b)}}}", _POWER),
        "sqrt": lambda a: (rf"\sqrt{{{_latex(a)}}}", _APPLIED),
        "abs": lambda a: (rf"\left|{_latex(a)}\right|", _ATOM),
        "indicator": lambda c: (rf"\mathbb{{1}}\left[{_latex(c)}\right]", _ATOM),
        "where": lambda c, a, b: (
            rf"\begin{{cases}} {_latex(a)} & \text{{if }} {_latex(c)} \\ {_latex(b)} & \text{{otherwise}} \end{{cases}}",
            _LOOSE,
        ),
        "and": lambda a, b: (rf"{_operand(a, _ATOM, _LATEX)} \wedge {_operand(b, _ATOM, _LATEX)}", _LOOSE),
        "or": lambda a, b: (rf"{_operand(a, _ATOM, _LATEX)} \vee {_operand(b, _ATOM, _LATEX)}", _LOOSE),
        "not": lambda a: (rf"\neg {_operand(a, _ATOM, _LATEX)}", _LOOSE),
        "holds": lambda a: (_latex(a), _ATOM),
        "count": lambda a: ("B", _ATOM),
    }


def _text_special() -> dict[str, Callable[..., tuple[str, int]]]:
    def style() -> _Style:
        return _TEXT

    def called(name: str) -> Callable[..., tuple[str, int]]:
        return lambda *args: (f"{name}({', '.join(_text(a) for a in args)})", _ATOM)

    special = {op: called(op) for op in (*_LATEX_CALLS, "sqrt", "abs")}
    special["detach"] = called("sg")
    special |= {op: _comparison(style, sign) for op, sign in COMPARISONS.items()}
    return special | {
        "add": _infix(style, "add", " + "),
        "sub": _infix(style, "sub", " - "),
        "neg": lambda a: (f"-{_operand(a, _PRODUCT, _TEXT)}", _SIGN),
        "mul": _infix(style, "mul", " * "),
        "div": _infix(style, "div", " / "),
        "pow": lambda a, b: (f"{_operand(a, _ATOM, _TEXT)}**{_operand(b, _ATOM, _TEXT)}", _POWER),
        "indicator": lambda c: (f"1[{_text(c)}]", _ATOM),
        "where": lambda c, a, b: (
            f"{_operand(a, _SUM, _TEXT)} if {_text(c)} else {_operand(b, _SUM, _TEXT)}",
            _LOOSE,
        ),
        "and": lambda a, b: (f"{_operand(a, _ATOM, _TEXT)} and {_operand(b, _ATOM, _TEXT)}", _LOOSE),
        "or": lambda a, b: (f"{_operand(a, _ATOM, _TEXT)} or {_operand(b, _ATOM, _TEXT)}", _LOOSE),
        "not": lambda a: (f"not {_operand(a, _ATOM, _TEXT)}", _LOOSE),
        "holds": lambda a: (_text(a), _ATOM),
        "count": lambda a: ("B", _ATOM),
    }


_LATEX = _Style(latex_symbol, _latex_number, lambda t: rf"\left({t}\right)", _latex_special())
_TEXT = _Style(lambda n: TEXT_INPUTS.get(n, n), _plain_number, lambda t: f"({t})", _text_special())
