"""Ways around an allow-list, each refused: by scope, by value, by position, by state, and before the parser sees them."""

from __future__ import annotations

import pytest

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.reports import GateReport
from tests.support.losses import HEAD, MARGIN, body

END = "    return d\n"


def read(source: str) -> GateReport:
    return check_source(Candidate(PAIRS.name, source), PAIRS)


def words_of(report: GateReport) -> str:
    return "\n".join(str(v) for v in report.violations)


# lines of a function in which `d` is the margin, and words of the refusal
IN_FUNCTION = {
    # names: what binds a name in one scope does not in another
    "a parameter of a helper is a built-in elsewhere": ("def h(open):\n    return open\nopen('x')\nreturn d", "`open`"),
    "a lambda's parameter": ("x = (lambda eval: eval)(d)\neval('1')\nreturn d", "`eval`"),
    "a comprehension's variable, in its own first iterable": ("[open for open in [open]]\nreturn d", "`open`"),
    "a comprehension's variable, afterwards": ("[exec for exec in [1]]\nexec('1')\nreturn d", "`exec`"),
    "a default is evaluated outside": ("def h(x, open=open):\n    return x\nreturn h(d)", "`open`"),
    "an import in another function": ("def h():\n    from math import exp as open\nopen('x')\nreturn d", "`open`"),
    "a function's own name": ("def h():\n    def vars():\n        return 1\nreturn vars()", "`vars`"),
    "dunder names": ("return __builtins__['open']('x')", "__builtins__"),
    "dunder variables": ("__x = d\nreturn __x", "__x"),
    # modules and functions as values
    "a module in a list": ("m = [torch]\nreturn m[0].os", "the module `torch` as a value"),
    "a module as an argument": ("def h(m):\n    return m.os\nreturn h(torch.nn)", "the module `torch.nn` as a value"),
    "a module behind another name": ("t = torch\nreturn t.hub.load('x')", "`torch.hub.load` is not available"),
    "a module behind two names": ("t = torch\nu = t.nn\nreturn u.Module()", "`torch.nn.Module` is not available"),
    "an import that is assigned to": ("import math as m\nm = d\nreturn m.exp()", "assigns to `m`, which is imported"),
    "two imports of one name": ("import math as m\nimport torch as m\nreturn m.exp(d)", "assigns to `m`, which is imported"),
    "an import in a loop target": (
        "import torch as t\nfor t in [d]:\n    pass\nreturn t",
        "assigns to `t`, which is imported",
    ),
    "the tensor type, which gives unwritten memory": ("return torch.Tensor(5)", "a call of `torch.Tensor`"),
    "the tensor type as a value": ("return list(map(torch.Tensor, [3]))", "outside annotations"),
    "the tensor type through a renamed isinstance": (
        "isinstance = map\nreturn list(isinstance(torch.Tensor, [3]))",
        "outside annotations",
    ),
    "a type expression as a value": ("from typing import Union\nreturn Union[torch.Tensor](3)", "`typing.Union` outside"),
    "unwritten memory": ("return torch.empty_like(d)", "torch.zeros_like"),
    "a bound method as a value": ("f = d.to\nreturn f('cuda')", "the method `.to` as a value"),
    "an in-place method as a value": ("f = d.zero_\nreturn f()", "the method `.zero_` as a value"),
    "a function that writes to a fifth argument, as a value": ("f = F.normalize\nreturn f(d, 2, 0, 1e-12, d)", "as a value"),
    # arguments
    "out= because a helper has that parameter": ("def h(out):\n    return out\ntorch.add(d, d, out=d)\nreturn d", "`out=`"),
    "out= through the helper's name": ("def h(out):\n    return out\nh = torch.add\nh(d, d, out=d)\nreturn d", "`out=`"),
    "out= through a parameter": ("def h(h):\n    return h(d, d, out=d)\nreturn h(torch.add)", "`out=`"),
    "out by position": ("return F.normalize(d, 2, 0, 1e-12, d)", "at most 4 arguments by position"),
    "out by position and star": ("a = [d, 2, 0, 1e-12, d]\nreturn F.normalize(*a)", "at most 4 arguments by position"),
    "out by position of a renamed import": (
        "from torch.nn.functional import normalize as n\nreturn n(d, 2, 0, 1e-12, d)",
        "at most 4 arguments by position",
    ),
    "inplace by position": ("F.relu(d, True)\nreturn d", "at most 1 arguments by position"),
    "inplace by keyword": ("F.relu(d, inplace=True)\nreturn d", "`inplace=`"),
    "a device": ("return d.to('cuda')", "a cast to"),
    "a device in a variable": ("where = 'meta'\nreturn d.to(where)", "a cast to"),
    "a device by keyword": ("return torch.zeros(3, device='cuda')", "device="),
    "a device because a helper has that parameter": (
        "def h(device):\n    return device\nreturn torch.zeros(3, device='cuda')",
        "device=",
    ),
    "a device by star": ("a = ['cuda']\nreturn d.to(*a)", "a cast to"),
    "a device out of a dict": ("where = {'a': 'meta'}.get('a')\nreturn d.to(where)", "a cast to"),
    "a device out of a text": ("where = 'cuda meta'.split()[0]\nreturn d.to(where)", "a cast to"),
    "a device by addition": ("where = 'cu' + 'da'\nreturn d.to(where)", "a cast to"),
    "a device through a helper": ("def h(where):\n    return d.to(where)\nreturn h('cuda')", "a cast to"),
    "a type by name": ("return d.type('torch.cuda.FloatTensor')", "a cast to"),
    "keywords from a dict": ("return torch.add(d, d, **{'out': d})", "`**`"),
    "keywords from a dict to a helper": ("def h(x):\n    return x\nreturn h(**{'x': d})", "`**`"),
    "a codec, which is imported": ("return str('x'.split, 'idna')", "`str` with more than one argument"),
    "a codec by map": ("return list(map(str, ['x'], ['idna']))", "`str` as a value"),
    "bytes": ("x = b'abc'\nreturn d", "bytes constant"),
    "weights that import an algebra system": ("return F.binary_cross_entropy(d, d, weight=d)", "`weight=`"),
    # code where none is expected
    "an annotation with a call": ("x: torch.zeros(3) = d\nreturn x", "annotation that is not a type"),
    "a parameter's annotation": ("def h(x: print('a')):\n    return x\nreturn h(d)", "annotation that is not a type"),
    "a return annotation": ("def h(x) -> (lambda: 1):\n    return x\nreturn h(d)", "annotation that is not a type"),
    "a walrus in an annotation": ("def h(x: (y := 3)):\n    return x\nreturn h(d)", "annotation that is not a type"),
    "a lambda's default": ("f = lambda x=torch.ones(3): x\nreturn f()", "default that is not a constant"),
    "a nested default": ("def h(x=torch.ones(3)):\n    return x\nreturn h()", "default that is not a constant"),
    "a nested decorator": ("@torch.set_grad_enabled(False)\ndef h(x):\n    return x\nreturn h(d)", "a decorator"),
    "a computed format": ("raise ValueError(f'{beta:{beta}}')", "a computed format"),
    "an f-string in an f-string": ("raise ValueError(f'{f\"{beta}\"}')", "complicated f-string"),
    "an attribute in an f-string": ("raise ValueError(f'{beta.__class__}')", "__class__"),
    "str.format": ("return '{0.__class__}'.format(d)", ".format"),
    "format_map": ("return '{x}'.format_map({})", ".format_map"),
    "a class pattern": ("match d:\n    case object(__class__=c):\n        pass\nreturn d", "`match`"),
    "a grad mode that stays": ("torch.set_grad_enabled(False)\nreturn d", "outside `with`"),
    "a grad mode that is entered by hand": ("torch.no_grad().__enter__()\nreturn d", "outside `with`"),
    "a grad mode in a variable": ("g = torch.no_grad()\nwith g:\n    pass\nreturn d", "outside `with`"),
    "a with that binds": ("with torch.no_grad() as torch:\n    pass\nreturn d", "assigns to `torch`"),
    "a generator's frame": ("g = (x for x in [1])\nreturn g.gi_frame.f_back", "gi_frame"),
    "a traceback": ("return ValueError('a').__traceback__", "__traceback__"),
    "an error that is no Exception": ("raise SystemExit(0)", "built-in error"),
    "an attribute as a loop target": ("for d.data in [1]:\n    pass\nreturn d", "assigns to an attribute"),
    "a private attribute": ("return d._base", "._base"),
    # inputs belong to the caller
    "an input in place": ("reference_chosen_logps.mul_(0)\nreturn d", "`reference_chosen_logps`"),
    "an input behind a name": ("r = reference_chosen_logps\nr += 1\nreturn d", "Write `r = r + ...`"),
    "a view of an input": ("r = reference_chosen_logps.detach()\nr[0] = 1\nreturn d", "sets elements of `r`"),
    "a view by function": ("r = torch.reshape(reference_chosen_logps, (-1,))\nr *= 0\nreturn d", "in place `r`"),
    "an input from a loop": ("for r in (reference_chosen_logps, d):\n    r.zero_()\nreturn d", "calls .zero_"),
    "an input in a helper": ("def h(x):\n    x += 1\n    return x\nreturn h(reference_chosen_logps)", "in place `x`"),
    "an input in a list": ("r = [reference_chosen_logps]\nr[0] *= 0\nreturn d", "changes an element of `r`"),
    "an input unpacked": ("r, s = reference_chosen_logps, d\nr *= 0\nreturn d", "in place `r`"),
    "an input split": ("r, s = reference_chosen_logps.chunk(2)\nr *= 0\nreturn d", "in place `r`"),
    "an input by walrus": ("(r := reference_chosen_logps).zero_()\nreturn d", "calls .zero_"),
    "an input from a sum of nothing": ("r = sum([], reference_chosen_logps)\nr *= 0\nreturn d", "in place `r`"),
    "an input from max": ("r = max([reference_chosen_logps])\nr *= 0\nreturn d", "in place `r`"),
    "an input by unary plus": ("r = +reference_chosen_logps\nr *= 0\nreturn d", "in place `r`"),
    "an input from a helper": ("def h(x):\n    return x\nr = h(reference_chosen_logps)\nr *= 0\nreturn d", "in place `r`"),
    "an input from a lambda": ("r = (lambda: reference_chosen_logps)()\nr *= 0\nreturn d", "in place `r`"),
    "an input by cast": ("r = reference_chosen_logps.float()\nr *= 0\nreturn d", "in place `r`"),
    "an input by einsum": ("r = torch.einsum('i->i', [reference_chosen_logps])\nr *= 0\nreturn d", "in place `r`"),
    "an input through a cycle": ("r = d * 1\ns = r\nr = s\ns = reference_chosen_logps\nr *= 0\nreturn d", "in place `r`"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_FUNCTION)
def test_refused_in_a_function(name: str) -> None:
    lines, words = IN_FUNCTION[name]
    report = check_source(body(lines), PAIRS)
    assert words in words_of(report), words_of(report)


# whole modules, and words of the refusal
MODULES = {
    # what is kept between calls
    "a list": ("K = []\n" + HEAD + MARGIN + "    K.append(d)\n" + END, "`K`"),
    "a dict": ("K = {'n': 0}\n" + HEAD + MARGIN + "    K['n'] = 1\n" + END, "`K`"),
    "a counter": ("K = [0]\n" + HEAD + MARGIN + "    K[0] += 1\n" + END, "`K`"),
    "a list behind a name": ("K = []\n" + HEAD + MARGIN + "    k = K\n    k += [1]\n" + END, "`k`"),
    "a list in a list": ("K = [[1]]\n" + HEAD + MARGIN + "    k = K[0]\n    k.append(1)\n" + END, "`k`"),
    "a list from a dict": ("K = {'a': [1]}\n" + HEAD + MARGIN + "    K.get('a').append(1)\n" + END, "calls .append"),
    "a list from a helper": (
        "K = []\ndef h():\n    return K\n" + HEAD + MARGIN + "    h().append(1)\n" + END,
        "calls .append",
    ),
    "the order of a list": ("K = [2, 1]\n" + HEAD + MARGIN + "    K.sort()\n" + END, "calls .sort"),
    "the order of a list through the type": ("K = [2, 1]\n" + HEAD + MARGIN + "    list.sort(K)\n" + END, "calls .sort"),
    "a list as a loop target": ("K = [0]\n" + HEAD + MARGIN + "    for K[0] in range(3):\n        pass\n" + END, "`K`"),
    "a list as a comprehension's target": ("K = [0]\n" + HEAD + MARGIN + "    x = [0 for K[0] in range(3)]\n" + END, "`K`"),
    "a default": (HEAD.replace("float)", "float, k=[])") + MARGIN + "    k.append(1)\n" + END, "`k`"),
    "a lambda's default": ("f = lambda k=[]: k.append(1)\n" + HEAD + MARGIN + "    f()\n" + END, "`k`"),
    "a set": ("K = {1}\n" + HEAD + MARGIN + "    K.add(2)\n" + END, "a set at module level"),
    "a generator": ("K = (x for x in range(9))\n" + HEAD + MARGIN + END, "remembers its place"),
    "an enumeration in a dict": ("K = {'a': enumerate([1])}\n" + HEAD + MARGIN + END, "remembers its place"),
    "a generator by keyword": ("K = dict(a=(x for x in range(9)))\n" + HEAD + MARGIN + END, "remembers its place"),
    "the larger of two generators": (
        "K = max((x for x in (1,)), (x for x in (1,)), key=bool)\n" + HEAD + MARGIN + END,
        "remembers its place",
    ),
    "a generator as the start of a sum": ("K = sum([], (x for x in (1,)))\n" + HEAD + MARGIN + END, "remembers its place"),
    # what runs on import
    "a call": (HEAD.replace("\n\n\n", "\nK = torch.ones(9)\n") + MARGIN + END, "a call at module level"),
    "a call of a helper": ("def h():\n    return 1\nK = h()\n" + HEAD + MARGIN + END, "a call at module level"),
    "a call under a built-in's name": (
        "K = [len(1) for len in [lambda x: x]]\n" + HEAD + MARGIN + END,
        "a loop over the name of a built-in",
    ),
    "a built-in by fall-through": ("f = open\nopen = 3\n" + HEAD + MARGIN + END, "`open`"),
    "a function named as a built-in": ("def eval(x):\n    return x\n" + HEAD + MARGIN + END, "`eval`"),
    "an import named as a built-in": ("import torch as open\n" + HEAD + MARGIN + END, "`open`"),
    "a module as a default": (HEAD.replace("float)", "float, t=torch)") + MARGIN + "    return t.os\n", "as a value"),
    "a loop": ("for i in range(3):\n    pass\n" + HEAD + MARGIN + END, "`For` at module level"),
    "a type that collapses": (
        HEAD.replace("\n\n\n", "\nfrom typing import Union\nT = Union[torch.Tensor, torch.Tensor]\n") + "    return T(3)\n",
        "the type `T` as a value",
    ),
    "a relative import": ("from .typing import Optional\n" + HEAD + MARGIN + END, "imports .typing.Optional"),
    # what is not what it looks like
    "a full-width name": (HEAD + MARGIN + "    torch.ｏｓ.getpid()\n" + END, "non-ASCII"),
    "a ligature": (HEAD + MARGIN + "    ﬁ = d\n" + END, "non-ASCII"),
    "a no-break space": (HEAD + MARGIN + "    x\u00a0= d\n" + END, "non-ASCII"),
    "an encoding": ("# vim: set fileencoding=utf-7 :\n" + HEAD + MARGIN + END, "encoding"),
    "an encoding in line two": ("\n# -*- coding: latin-1 -*-\n" + HEAD + MARGIN + END, "encoding"),
    "a form feed": ("\x0c# coding: utf-7\n" + HEAD + MARGIN + END, "encoding"),
    "a form feed in code": (HEAD + MARGIN + "\x0c" + END, "control"),
    "a byte-order mark": ("\ufeff" + HEAD + MARGIN + END, "non-ASCII"),
    "a null byte": (HEAD + MARGIN + "    # \0\n" + END, "control"),
    "a right-to-left override": (HEAD + MARGIN + "    # \u202e\n" + END, "direction"),
    "a line separator": (HEAD + MARGIN + "    # \u2028import os\n" + END, "direction"),
    "an escape sequence": (HEAD + MARGIN + "    # \x1b[2J\n" + END, "control"),
    "tabs and blanks": (HEAD + MARGIN + "    if beta:\n\tx = 1\n        y = 2\n" + END, "not valid Python"),
    "a continued import": ("import \\\n    os\n" + HEAD + MARGIN + END, "imports os"),
    "a hidden import": (HEAD + MARGIN + "    x = 1; import os\n" + END, "imports os"),
    "quotes that newer Pythons nest": (HEAD + MARGIN + "    f'{\"' + '('\n" + END, "complicated f-string"),
    "a comment that newer Pythons allow": (HEAD + MARGIN + "    f'''{d #'''\n    }'''\n" + END, "complicated f-string"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_refused_as_a_module(name: str) -> None:
    source, words = MODULES[name]
    report = read(source)
    assert words in words_of(report), words_of(report)


@pytest.mark.parametrize(
    "lines",
    [
        "def h(input):\n    return input\nreturn h(input=d)",
        "return d.to(policy_chosen_logps)",
        "k = d.dtype\nw = d.device\nreturn d.to(k).to(w).to(device=w, dtype=torch.float32).to(torch.float64).to(d.dtype)",
        "x = torch.ones(3, device=d.device)\nreturn d * x.mean()",
        "x = d.clone()\nx[0] = 1\nx[d > 0] += 1\nx.clamp_(min=0)\nreturn x",
        "x = d\nx = x.view(-1)\nx += 1\nreturn x",
        "def h(z):\n    return z * 2, z + 1\nx, y = h(d)\nx += y\nreturn x",
        "values, _ = policy_chosen_logps.sort()\nvalues *= 0.5\nreturn d + values.mean().detach()",
        "beta *= 2\nfor i in range(3):\n    i += 1\nreturn d * beta",
        "parts = []\nparts.append(d)\nparts += [d]\nparts.extend([d])\nparts.sort(key=len)\nreturn sum(parts)",
        "counts = {}\ncounts['a'] = d\nreturn counts['a']",
        "assert isinstance(beta, (int, float)) and isinstance(d, torch.Tensor)\nreturn d",
        "open = d\nreturn open",  # a local variable is never the built-in
    ],
)
def test_what_looks_alike_and_is_honest(lines: str) -> None:
    assert words_of(check_source(body(lines), PAIRS)) == ""


def test_constants_at_module_level_may_be_computed() -> None:
    source = (
        "import math\nimport torch\n"
        "A = [1.0 / k for k in range(1, 5)]\nB = tuple(zip(A, reversed(A)))\nC = {k: v for k, v in enumerate(A)}\n"
        "D = sum(x for x in A) / len(A)\nE = max(C.values())\nG = torch.finfo(torch.float32).eps\n"
        "H = A[0] if D > 1 else -A[-1]\nI = [*A, *(x for x in A)]\nJ = lambda x: x * D\n"
        "K = {'soft': J, 'exp': torch.exp}\nL = torch.relu\nM = float('inf')\n"
    )
    assert words_of(read(source + HEAD + MARGIN + "    return L(d) * D\n")) == ""
