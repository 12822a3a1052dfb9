"""Random programs from a grammar of Python, honest and hostile pieces mixed, for fuzzing what reads them."""

from __future__ import annotations

import re
from random import Random

# nonterminal: what honest losses hold, and what they do not; one alternative a line, `<name>` is expanded in turn
_GRAMMAR = """
program: <head>CONST = (0.5, 1.0)\\nTABLE = {'a': 1.0}\\n<function><loss>
program: <head>CONST = (0.5, 1.0)\\nTABLE = dict(a=[1.0])\\n<loss><function>
program! <head><statement><statement><function><loss><statement>
head: import math\\nimport torch\\nimport torch.nn.functional as F\\nfrom typing import Optional\\n
head! import os\\nimport torch\\n|import torch as os\\n|from torch import *\\n|# coding: utf-7\\n|
function: |def helper(y, k=1.0):\\n    return y * k\\n|helper = lambda y, k=2: y - k\\n
function: @torch.no_grad()\\ndef helper(y, k=1.0):\\n    return y * k\\n
function: @torch.enable_grad\\ndef helper(y, k=2):\\n    return y.to(k)\\n
function! def open(y):\\n    return y\\n|def helper(y, out):\\n    return y\\n|def helper(*y, **k):\\n    return y\\n
function! @<name>\\ndef helper(y, k=<expression>):\\n    return open\\n
loss: def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta<extra>):
    \\n    x = a = policy_chosen_logps - reference_chosen_logps\\n    z, d, total = x * beta, -x, 0.0\\n    terms = []
    \\n<body>    return <expression>\\n
extra: |||, y=1|, *, y=None
extra! , *y|, **y|, y=<expression>|, /|, open=1|, y: <type>=[]|, y
body: |<indented>|<indented><indented>|<indented><indented><indented>
expression: <name>|<constant>|<name> <operator> <expression>|(<expression> - <expression>)|<call>|<call>|<call>
expression: (<expression> if <expression> else <expression>)|[<expression>, <name>]|(<name>, <expression>)
expression: (-<expression>)
expression: <name>[<index>]|[<expression> for <name> in <expression>]|(lambda <parameters>: <expression>)|(not <name>)
expression: {<name>: <expression>}|sum(<expression> for <name> in CONST)|(<name> := <expression>)|f'{<format>} text'
expression: <name>.<field>|<name> <operator> <name>
expression! torch.<attribute>|<expression>.<attribute>|(await <name>)|(yield <name>)|[*<name>]|{**<name>}
expression! {<expression>}
expression! '%s' % <expression>|(x for <target> in <name>)|{<name>: x for <target> in <name>}
expression! [x async for x in <name>]|~<name>
expression! f'{<expression>}'|((((((((<expression>))))))))|<name> @ <name> & <name>|<name> in <name>
expression! [open for open in [<name>]]
index: <constant>|:|0|..., 0|<name> > 0
index! <expression>:<expression>|'__class__'|<name>:
call: <name>.<method>(<arguments>)|<torch>(<arguments>)|<torch>(<arguments>)|<builtin>(<arguments>)
call: helper(<expression>, k=2)|<name>.to(<expression>)|<name>.to(<name>)|torch.tensor(0.5).to(<name> <operator> <name>)
call! <name>(<arguments>)|(<expression>)(<arguments>)|torch.<attribute>(<arguments>)|<name>.<attribute>(<arguments>)
arguments: |<expression>|<expression>|<name>, <expression>|<name>, <keyword>=<constant>|<name>, <name>, <expression>
arguments: <name>, <idle>|<named>=<name>, <named>=<name>|<named>=<expression>
arguments! *<name>|**<name>|<name>, <bad_keyword>=<expression>|<name>, <name>, <name>, 0.1, <name>|'cuda'|b'x', 'idna'
parameters: |y|y, k=<constant>
parameters! y, open=1|y=<expression>|*y|**y|y, /|torch|__y
target: x|a|y|w|a, w|(x, *w)
target! <name>|x[0]|x.y|CONST[0]|TABLE['a']|[x, a.b]|torch|open|__x
indented: ____<statement>
statement: <target> = <expression>\\n|<target> = <expression>\\n|total += <expression>\\n|<expression>\\n|pass\\n
statement: w: <type> = <expression>\\n|assert <expression>, <expression>\\n|raise ValueError(<expression>)\\n
statement: terms.append(<expression>)\\n|<name> = <expression>\\n|return <expression>\\n
statement: if <expression>: x = <expression>\\n
statement: for w in CONST: total = total + <expression>\\n|for w in range(3): <target> = <expression>\\n
statement: with torch.no_grad(): w = <expression>\\n|def g(y, k=<constant>): return <expression>\\n
statement: def helper(y: <type>, k=None) -> <type>: return <expression>\\n
statement! import <module>\\n|import <module> as <name>\\n|from <module> import <attribute> as <name>\\n
statement! from torch import <method>\\n
statement! global <name>\\n|nonlocal x\\n|break\\n|continue\\n|del <name>\\n|raise <name> from <name>\\n
statement! raise <expression>\\n
statement! <name>[<expression>] = <expression>\\n|<name> *= <expression>\\n|<name>[0] += <expression>\\n
statement! return *<name>, 1\\n
statement! while <expression>: pass\\n|with <expression> as <target>: pass\\n|class <name>: x = <expression>\\n
statement!   x = 1\\n
statement! async def <name>(): await x\\n|for <target> in <expression>: pass\\n|async with x: pass\\n|@<name>\\n
statement! '''<expression>'''\\n
statement! def <name>(<parameters>) -> <type>: return <expression>\\n|x: <type>\\n|<target>: <type> = <expression>\\n
type: torch.Tensor|float|int|'x'|Optional[float]|list[int]|None|float OR None|torch.FloatTensor
type! print(1)|(lambda: 1)|torch.zeros(3)|x|open|torch|b'x'|[y for y in x]|(y := 3)
name: x|a|z|d|total|terms|beta|policy_chosen_logps|reference_chosen_logps|CONST|TABLE|x|a
name! helper|torch|F|math|open|eval|exec|getattr|print|type|object|vars|input|iter|next|globals|__import__
name! __builtins__|__x|os
name! np|SystemExit|unbound|loss|é|T|Optional|isinstance|str|map|len|_helper|ValueError|sorted|dict|__name__
builtin: abs|len|sum|max|min|range|list|dict|map|sorted|float|int|zip|enumerate|isinstance|str|tuple
method: exp|log|abs|mean|sum|clamp|detach|mul_|add_|zero_|clone|view|append|extend|sort|items|get|float|square
method: tanh|squeeze
method! to|relu_|update|pop|index|count|format|cuda|numpy|backward|requires_grad_
torch: torch.exp|torch.where|torch.clamp|torch.stack|torch.zeros_like|torch.relu|torch.abs|torch.mean
torch: torch.tensor|torch.sort
torch: torch.reshape|F.softplus|F.logsigmoid|torch.nn.functional.gelu|torch.special.expit|math.log|math.sqrt|math.exp
torch! F.relu|F.normalize|torch.norm|torch.Tensor|torch.no_grad|torch.load|torch.os.system|torch.empty_like
torch! torch.randn
field: shape|dtype|device|T|real|ndim|values
attribute: os|sys|__class__|__globals__|gi_frame|f_back|grad_fn|data|numpy|format|cuda|backward|nn|functional
attribute: special|Tensor
attribute: no_grad|save|load|empty_like|rand|_base|to|hub|ops|jit|__dict__|type|__enter__|exp|mean|shape
named: input|other|condition|min|max|dim|end|weight|exponent|tensors|data|value
idle: inplace=False|out=None|size_average=None
keyword: dim|min|max|dtype|reduction|keepdim|key|reverse|eps|p
bad_keyword: out|device|inplace|generator|sharp|weight|__x
operator: +|-|*|/|//|%|**|==|!=|<|<=|>|>=
constant: 0|1|2.5|1e-3|3|None|True|'none'|0.5|-1
constant! 1e400|10**9|1j|b's'|'cuda'|...|''|0x10|1_000|'\\\\N{DIGIT ONE}'|'\\\\x'
module: torch|math|os|sys|torch.nn|torch.os|numpy|collections.abc|torch.hub|.|.typing|__future__|builtins|typing
format: x|x:.3f|x!r|TABLE['a']|(x)|x=|len(terms)
format! x:{x}|x.__class__|torch.os|{1: 2}[1]|f"{x}"|open|lambda: 1|x:{open('a')}
"""
_SMALLEST = {"expression": "x", "body": "", "indented": "", "statement": "pass\n", "call": "x", "arguments": "x"}
_PLACE = re.compile(r"<(\w+)>|____")


def _alternatives(mark: str) -> dict[str, list[str]]:
    text = re.sub(r"\n    ", "", _GRAMMAR)
    found: dict[str, list[str]] = {}
    for name, kind, rest in re.findall(r"^(\w+)([:!]) ?(.*)$", text, re.MULTILINE):
        if kind == mark:
            parts = rest.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\").split("|")
            found.setdefault(name, []).extend(parts)
    return {name: [part.replace(" OR ", " | ") for part in parts] for name, parts in found.items()}


_USUAL, _OTHER = _alternatives(":"), _alternatives("!")


class Programs:
    """Writes programs; every choice comes from `random`.

    Attributes:
        wildness: the share of choices that go beyond what an honest loss would hold; 0 in half of all programs.
        budget: expansions that may still be made; then everything becomes as small as it can be.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.wildness = random.choice([0.0, 0.0, 0.0, 0.01, 0.03, 0.3])
        self.budget = random.choice([60, 200, 600])

    def program(self) -> str:
        return self.expand("program", 0)

    def expand(self, name: str, depth: int) -> str:
        self.budget -= 1
        if (self.budget < 0 or depth > 14) and name in _SMALLEST:
            return _SMALLEST[name]
        wild = name in _OTHER and self.random.random() < self.wildness
        template = self.random.choice((_OTHER if wild else _USUAL)[name])
        return _PLACE.sub(lambda m: self.expand(m[1], depth + 1) if m[1] else "    ", template)
