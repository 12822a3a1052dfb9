"""The oracle child's side: load one candidate, answer calls until the channel closes. Runs after confinement.

Nothing here formats a traceback or a tensor, and no exception object leaves: an error becomes its type, its message and
the candidate's line, as text in the frame.
"""

from __future__ import annotations

import builtins
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

import torch

from sandbox.allowlist import BUILTINS, MODULES
from sandbox.frames import SPIN_AFTER, SPIN_S, Frame, Header, Op, Status, shape_of
from sandbox.packed import Answers, ContractError, Entry

FILENAME = "<candidate>"
# what a class statement and a module of ours need besides: no way to look attributes up by name is among them
_MODULE_BUILTINS = (
    "__build_class__",
    "super",
    "property",
    "staticmethod",
    "classmethod",
    "object",
    "setattr",
    "KeyError",
)
_PREPARE_S = 1e-3  # for running a module before it is called
_OUT_OF_MEMORY_HINTS = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")


def serve(channel: int, frame: Frame, entry: Entry) -> NoReturn:
    """Answer one byte per request on `channel`; leave by os._exit when the other side is gone."""
    program: Program | None = None
    answers: Answers | None = None
    calls, waited = 0, SPIN_S
    while True:
        started = time.perf_counter()
        if calls > SPIN_AFTER and waited < SPIN_S:
            frame.await_status(pending=True, seconds=SPIN_S)
        if not os.read(channel, 1):
            os._exit(0)
        calls, waited = calls + 1, time.perf_counter() - started
        request = frame.read_header()
        try:
            if request.op == Op.LOAD:
                program = answers = None
                source = frame.read_text(request.text_bytes).decode("utf-8", "replace")
                program = Program(source, entry.function, entry.module, stateless=entry.elementwise)
                answers = Answers(program.call, entry)
            elif answers is None:
                raise ContractError("its module did not run")
            else:
                shape = shape_of(entry.tensors, entry.scalars, request.runs, request.batch, request.itemsize)
                answers.write(frame, shape)
            status, text, line = Status.OK, b"", 0
        except BaseException as error:  # noqa: BLE001 - the sandbox border: whatever a candidate raises becomes text
            status, text, line = describe(error)
        frame.write_header(
            Header(request.op, status, request.runs, request.batch, request.itemsize, frame.write_text(text), line)
        )
        os.write(channel, b"!")
        if program is not None:
            program.prepare(request.runs)  # while the trainer is busy with the answer


def _restricted_import(name: str, *arguments: Any, **keywords: Any) -> ModuleType:
    if name not in MODULES and name not in ("typing", "collections.abc", "__future__"):
        raise ImportError(f"import of {name!r} is not allowed")
    return builtins.__import__(name, *arguments, **keywords)


class Program:
    """A candidate's module, compiled once and run anew for every call: what a call leaves in it is gone with the call.

    So a list at module level or in a default is no memory, whatever the gate has overlooked. Running a module again takes
    about as long as two operations on tensors, and `prepare` does it while nobody waits.

    Raises:
        ContractError: the module has no such function.
    """

    def __init__(self, source: str, function: str, module: bool = False, stateless: bool = False) -> None:
        """`module`: it may define classes. `stateless`: it has nowhere to keep anything, so that it is run only once."""
        self._function, self._stateless = function, stateless
        self._allowed = {name: getattr(builtins, name) for name in (*BUILTINS, *(_MODULE_BUILTINS if module else ()))}
        self._allowed["__import__"] = _restricted_import
        self._code = compile(source, FILENAME, "exec", dont_inherit=True)
        self._run_s = 0.0
        self._ready = [self._run()]  # namespaces that no call has seen
        self.entry()

    def entry(self) -> Callable[..., Any]:
        """The candidate's function in the namespace that the next call will get."""
        entry = self._ready[-1].get(self._function)
        if not callable(entry):
            raise ContractError(f"no function {self._function!r}")
        return entry  # type: ignore[no-any-return]

    def call(self, **arguments: Any) -> Any:
        """Call the candidate in a namespace that no call has seen."""
        if self._stateless:
            return self._ready[0][self._function](**arguments)
        namespace = self._ready.pop() if self._ready else self._run()
        try:
            return namespace[self._function](**arguments)
        finally:
            namespace.clear()  # its functions hold it, and it holds them

    def prepare(self, calls: int) -> None:
        """Run the module for as many of the next calls as take little time, and so little memory."""
        if self._stateless:
            return
        calls = min(calls, 1 + int(_PREPARE_S / self._run_s))
        with suppress(BaseException):  # where running it fails or is too much, the next call finds out, and says so
            while len(self._ready) < calls:
                self._ready.append(self._run())

    def _run(self) -> dict[str, Any]:
        """The module in a namespace with few builtins."""
        started = time.perf_counter()
        namespace = {"__builtins__": self._allowed.copy(), "__name__": "candidate", "torch": torch, "math": math}
        exec(self._code, namespace)
        self._run_s = time.perf_counter() - started
        return namespace


def load(source: str, function: str, module: bool = False) -> Callable[..., Any]:
    """Run the candidate's module level in a namespace with few builtins; return its entry function."""
    return Program(source, function, module).entry()


def describe(error: BaseException) -> tuple[Status, bytes, int]:
    """Status, text and candidate line of an error, without any formatting machinery."""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 - a candidate's own __str__
        message = ""
    if isinstance(error, ContractError):
        return Status.CONTRACT, message.encode("utf-8", "replace"), line
    out_of_memory = isinstance(error, MemoryError) or any(hint in message for hint in _OUT_OF_MEMORY_HINTS)
    if isinstance(error, SyntaxError):
        line = error.lineno or 0
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    status = Status.OUT_OF_MEMORY if out_of_memory else Status.CRASH
    return status, text[:4000].encode("utf-8", "replace"), line


def refuse_early(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that turns what the system-call filter would kill for into an error with a line number.

    No fence, only manners: the parser, for one, tries to open the file that a syntax error is in.
    """
    if event == "open":
        raise PermissionError("a loss opens no files")
    if event == "import":
        raise ImportError("a loss imports nothing more when it runs")


def warm() -> None:
    """Use once, before anything is forked, what a candidate may use: a child cannot import or open anything any more.

    That is also quicker: what the warm process has done, no child has to do. Errors belong to it. Torch looks for the
    library that walks a C++ stack at the first error, and an honest mistake must not look like an attack.
    """
    sys.setrecursionlimit(600)  # deep recursion must raise before it exhausts the C stack
    warnings.simplefilter("ignore")  # a warning reads the source line that it points to
    # oneDNN compiles kernels when they are used (gelu), and a child maps no executable memory
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    x = torch.zeros(4, requires_grad=True)
    y = torch.nn.functional.logsigmoid(x) + torch.nn.functional.softplus(x).clamp(min=0).exp()
    torch.autograd.grad([torch.where(x > 0, y, -y).mean()], [x])
    torch.stack([x.detach(), x.detach()]).view(2, 4).transpose(0, 1).tolist()
    torch.func.vmap(lambda row: torch.sort(row - row.mean())[0])(x.detach().view(2, 2))
    repr(y)
    torch.tensor(0.0)  # the first one imports a module through the caller's restricted __import__, which refuses
    for mistake in ("x.detach() + torch.zeros(3)", "torch.empty(1 << 50)", "torch.clamp(x, 'a', 1.0)"):
        with suppress(Exception):
            eval(mistake, {"torch": torch, "x": x})
