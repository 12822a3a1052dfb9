"""Calls every allow-listed name with many arguments, right and wrong, behind the oracle child's system call filter.

python -m tests.sandbox.call_everything [--thorough] [NAME ...]

Prints JSON: which names died of the filter or ran an audited event (an import, an opened file), and which never worked
with any arguments. A name that needs a file, a thread, compiled code or a module that the warm process has not imported
dies here as it would in the cage, where an honest loss must not look like an attack.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import math
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from sandbox import allowlist, child, seccomp

_NO_NEW_PRIVILEGES = 38
PROGRAM = seccomp.program()

EVENTS = ("open", "import", "socket", "os.", "subprocess", "ctypes.dlopen")

x = torch.linspace(-2, 2, 32).requires_grad_(True)
y = torch.linspace(0.05, 0.95, 32)
b = y > 0.5
i = torch.arange(32) % 4
m = torch.stack([y, 2 * y])
sq = torch.eye(3) + 0.1
pair = torch.stack([x, -x], 1)

ARGUMENTS: list[tuple[Any, ...]] = [
    (), (x,), (y,), (b,), (i,), (m,), (sq,), (pair,), (0.5,), (5,), (1.0, 2.0), (3, 2), ((3,),), ((2, 3), 1.0),
    ([x, y],), ((x, y), 0), ([0.1, 0.2],), (None,), ("abc",), ({"a": 1},), (x, y), (y, x), (x, 0.5), (0.5, x), (x, 2),
    (x, 0), (x, -1), (i, 2), (i, i), (b, b), (x, b), (m, 0), (m, 1), (m, m), (m, m.t()), (m, y), (sq, sq),
    (sq, sq[0]), (sq[0], sq), (m[None], m.t()[None]), (x, "fro"), (x, torch.float64), (x, i), (x, (4, 8)), (x, (32,)),
    (m, (1, 0)), (pair, pair), (x, y, y), (x, y, 0.5), (x, 0.0, 1.0), (x, 0, i), (x, 0, True), (x, 0, 1), (x, 1, 0),
    (x, b, 0.0), (b, x, y), (x, 0, 0, 4), (x, 0, i, y), (x, 0, i, 0.5), (m, 0, 1), (sq, sq, sq), (sq[0], sq, sq[0]),
    (m[None], m.t()[None], m[None]), (x, y, y, y), (1, y), (0, y), (x > 0, x, y), (x, y, torch.ones(32)),
    (pair, i % 2), (pair, pair, torch.ones(32)), (0, 1, 5), (4, 4), ("i,i->", x, y), ("i,j->ij", x, y),
    ("ij->i", pair), (x, torch.relu), (torch.relu, [x]), (torch.float32,), (torch.int32,), (x, torch.Tensor),
    (x, 0, (4, 8)), (y, 8), (x, (1, 1)), (y, y), (x, y, x, y, x, y, x), (x[None], x[None]),
    (x[None, None], y[None, None]), (x, y, b.float()), (x, x, b, 1.0), (0.1 * y, y, y), (x, y, 2 * b - 1.0),
    (x.double(), y), (x, y.double()), (torch.arange(4), 4), (x, 1.0, 2.0, 3.0), (m, [2]), (x, y[:1]), (x, y, 0, 1),
    (y[0],), (sq[None], sq[None], sq[None]), (x, b, y), (m, 2, 0, 1.0), (x, 0, i, y, "sum"),
]  # fmt: skip
KEYWORDS: list[dict[str, Any]] = [
    {}, {"dim": 0}, {"dim": -1, "keepdim": True}, {"reduction": "none"}, {"reduction": "mean"}, {"min": 0.0}, {"beta": 2.0},
    {"unbiased": False}, {"p": 2}, {"q": 0.5}, {"dtype": torch.float64}, {"reduce": "sum"}, {"nonsense": 1},
]  # fmt: skip
OWNERS: dict[str, tuple[Any, ...]] = {  # for attributes of something else than tensors
    "append": ([],), "extend": ([],), "get": ({"a": 1},), "items": ({"a": 1},), "keys": ({"a": 1},),
    "values": ({"a": 1}, torch.sort(y)), "indices": (torch.sort(y),), "item": (y[0],), "bits": (torch.finfo(torch.float32),),
    "eps": (torch.finfo(torch.float32),), "tiny": (torch.finfo(torch.float32),),
    "resolution": (torch.finfo(torch.float32),), "smallest_normal": (torch.finfo(torch.float32),),
}  # fmt: skip
# syntax that calls something: operators, conversions, formatting, iteration, and honest mistakes
EXPRESSIONS = """
x + y | x - 1 | 2 * x | x / y | x // y | x % y | -x | +x | ~b | x ** 2 | 2.0 ** x | m @ y | x == y | x != y | b & b | b | b
b ^ b | x < y | x[0] | x[:, None] | x[..., -1] | x[b] | x[i] | x[::2] | x[None, :] | x[99] | x[b, b] | len(x) | list(x)[:2]
float(y[0]) | int(y[0]) | bool(y[0]) | float(x) | bool(x) | complex(y[0]) | abs(x) | round(y[0], 2) | divmod(y, 2)
f'{y[0]:.3f}' | f'{x}' | f'{x!r}' | f'{x:.3f}' | f'{m}' | f'{b}' | f'{i}' | f'{torch.linspace(-1e9, 1e-9, 5000)}' | str(x)
f'{x.shape} {x.dtype} {x.device}' | '%s %r' % (x, y) | '%.3f' % y[0] | repr(torch.sort(y)) | repr(torch.finfo(torch.float32))
repr(torch.tensor([float('nan'), float('inf'), 1e30])) | repr(x * 2) | repr(F.softplus) | repr(torch.nn.Softplus(2))
x + torch.zeros(3) | x @ m | torch.stack([x, m]) | x.nothing | torch.nothing | x.sum(dim=5) | x.view(5, 5) | x() | x.shape[3]
x[torch.tensor(99)] | torch.tensor([1, [2]]) | torch.zeros(-1) | torch.zeros(1 << 50) | 1 / 0 | [][1] | {}['a'] | nothing
torch.quantile(y, 2.0) | F.nll_loss(pair, i + 9) | torch.cat([x, i[None]]) | x.add_(1) | y.clone().add_(x) | int('x')
torch.log(-y).sum() | torch.sqrt(-y) | y.to(torch.int64) | y.half() + 1 | F.softmax(y) | y.T | torch.tensor(y) | y.std(0)
torch.ones(1).std() | F.mse_loss(y, m) | torch.meshgrid(y, y) | torch.norm(sq, 'nuc') | torch.linalg.norm(sq, 2)
max(y) | min(y.tolist()) | sum([x, y]) | sorted(y.tolist()) | any(b) | y in [1, 2] | y is None | y and y | not y[0] | not y
isinstance(y, torch.Tensor) | isinstance(y, 3) | '\\N{DIGIT ONE}' | eval(\"'\\\\N{DIGIT ONE}'\")
10 ** 5000 % 7 | str(10 ** 5000)
torch.randn(100, 100) @ torch.randn(100, 100) | torch.ones(50000).sum() | torch.ones(200, 200).exp().sum()
torch.softmax(torch.ones(300, 300), 0) | torch.sort(torch.ones(40000)) | torch.cdist(m, m) | torch.bmm(pair[None], m[None])
"""


def confine() -> None:
    """The system call filter of an oracle child: whatever does more than compute dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
            raise OSError
        seccomp.install(PROGRAM)
    except OSError:
        os._exit(99)


# Called from a candidate's frame: what torch's C++ imports lazily goes through the frame's own `__import__`
CALL = child.load("def call(function, arguments, keywords):\n    return function(*arguments, **keywords)\n", "call")


def evaluate(text: str) -> Callable[..., Any]:
    """A function that computes an expression as a candidate's would; it runs once, without arguments."""
    names = {"x": x, "y": y, "b": b, "i": i, "m": m, "pair": pair, "sq": sq, "F": F, "complex": complex, "repr": repr}
    names["eval"] = eval
    run = child.load(f"def run({', '.join(names)}):\n    return {text}\n", "run")
    return lambda *arguments, **keywords: run(**names) if not arguments and not keywords else None


def subjects() -> dict[str, Callable[..., Any]]:
    """How to use each name with the arguments of one call."""
    found: dict[str, Callable[..., Any]] = {}
    for dotted in sorted(allowlist.DOTTED - allowlist.MODULES - allowlist.GRADIENT_MODES):
        root, *path = dotted.split(".")
        target: Any = {"torch": torch, "math": math}[root]
        for part in path:
            target = getattr(target, part)
        if not callable(target) or dotted == "torch.Tensor":
            continue
        limit = allowlist.POSITIONAL.get(dotted, 99)
        if dotted.startswith("torch.nn.") and isinstance(target, type):
            found[dotted] = lambda *a, _t=target, **k: CALL(CALL(_t, (), k), a, {})
        else:
            found[dotted] = lambda *a, _t=target, _n=limit, **k: CALL(_t, a[:_n], k)
    for name in sorted(allowlist.ATTRIBUTES):
        found[f".{name}"] = _attribute(name)
    for name in sorted(allowlist.BUILTINS):
        target = getattr(builtins, name)
        found[f"builtins.{name}"] = lambda *a, _t=target, **k: CALL(_t, a, k)
    for line in EXPRESSIONS.strip().splitlines():
        for text in line.split(" | "):
            found[f"`{text}`"] = evaluate(text)
    for source in ("assert (1, 'x')", "'\\s'", "x is 1"):  # warnings
        found[f"compile {source}"] = lambda *a, _s=source, **k: child.load(f"def f(): {_s}", "f") if not a else None
    return found


def _attribute(name: str) -> Callable[..., Any]:
    def use(*arguments: Any, **keywords: Any) -> Any:
        owners = OWNERS.get(name) or arguments[:1]
        result = None
        for owner in owners:
            tensor = isinstance(owner, torch.Tensor) and name.endswith("_")
            result = getattr(owner.detach().clone() if tensor else owner, name)
            if callable(result):
                result = CALL(result, arguments if name in OWNERS else arguments[1:], keywords)
        return result

    return use


def by_name(name: str, arguments: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The same arguments under the names that the gate lets through."""
    own = int(name.startswith("."))
    taken = allowlist.KEYWORDS_OF.get(name, ())
    if not taken or len(arguments) <= own or name.rpartition(".")[2][:1].isupper():
        return []
    return [(arguments[:own], dict(zip(taken, arguments[own:], strict=False)))]


def differentiate(result: Any) -> None:
    if isinstance(result, (tuple, list)):
        for part in result[:2]:
            differentiate(part)
    elif isinstance(result, torch.Tensor) and result.requires_grad and result.numel() < 100_000:
        torch.autograd.grad([result.sum()], [x], allow_unused=True)


def exercise(names: list[str], thorough: bool, board: mmap.mmap) -> None:
    """Use some names in all ways; the board shows where it is, in case this process dies, and which worked."""
    events: list[str] = []
    sys.addaudithook(lambda event, arguments: events.append(event) if event.startswith(EVENTS) else None)
    confine()
    for position, name in enumerate(names):
        use, worked = SUBJECTS[name], 0
        events.clear()
        for a, arguments in enumerate(ARGUMENTS):
            ways = [(arguments, k) for k in (KEYWORDS if thorough or len(arguments) < 2 else KEYWORDS[:1])]
            for k, (placed, keywords) in enumerate([*ways, *by_name(name, arguments)]):
                struct.pack_into("3i", board, 0, position, a, k)
                if name == "torch.meshgrid" and len(arguments) > 4:
                    continue  # a mesh of 32 ** 7 elements
                try:
                    result = use(*placed, **keywords)
                    worked += 1
                    differentiate(result)
                except Exception as error:  # noqa: BLE001 - what the oracle child does with it
                    if isinstance(error, ImportError) or "INTERNAL ASSERT" in str(error):
                        events.append("a refused import")
                if events:
                    os._exit(98)
        board[100 + position] = min(worked, 255)
    os._exit(0)


def run(names: list[str], thorough: bool) -> Iterator[tuple[str, str]]:
    """Names that died, had an event, or never worked, with what happened.

    Thorough: each in a child of its own, since what one loads may be what the next one needs.
    """
    board = mmap.mmap(-1, 200)
    while names:
        some = names[: 1 if thorough else 16]
        board[:] = bytes(len(board))
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            exercise(some, thorough, board)
        status = os.waitpid(pid, 0)[1]
        position, a, k = struct.unpack_from("3i", board, 0)
        if status != 0:
            code = (
                f"signal {status & 127}" if status & 127 else {98: "an event", 99: "no filter"}.get(status >> 8, "exit")
            )
            yield some[position], f"{code} with arguments {a}, way {k}"
            some = some[: position + 1]
        for done, name in enumerate(some):
            if board[100 + done] == 0 and (status == 0 or done < position):
                yield name, "never worked"
        names = names[len(some) :]


SUBJECTS = subjects()


def main() -> None:
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    child.warm()
    thorough = "--thorough" in sys.argv
    wanted = [a for a in sys.argv[1:] if a != "--thorough"]
    names = [n for n in SUBJECTS if not wanted or n in wanted]
    print(json.dumps({"names": len(names), "found": dict(run(names, thorough))}))


if __name__ == "__main__":
    main()
