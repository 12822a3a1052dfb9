"""The oracle child without its cage, and a reader of its frame that believes every header: attacks must fool it.

Runs only inside the disposable processes of `tests.support.hostile_control`.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any, NoReturn

import torch

from evaluators.preference.contract import PAIRS
from sandbox import child, packed
from sandbox.frames import Frame, Header, Op, Shape, Status, new_memory_file, shape_of

_BATCH = 8
_FRAME_BYTES = 1 << 20
_TENSORS, _SCALARS = PAIRS.tensors_of(PAIRS.required), PAIRS.scalars_of(PAIRS.required)
_SILENCE_S = 0.6  # after which a child that is expected to be silent is
_ANSWER_S = 20.0
_RACE_S = 2.0  # to see numbers change


def start() -> tuple[int, socket.socket, Frame]:
    """An oracle child from which nothing is taken: its pid, the channel, the frame."""
    memory = new_memory_file(_FRAME_BYTES)
    ours, theirs = socket.socketpair()
    frame = Frame(memory, _FRAME_BYTES)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _serve(theirs.detach(), frame)
    theirs.close()
    return pid, ours, frame


def _serve(channel: int, frame: Frame) -> NoReturn:
    try:
        child.serve(channel, frame, packed.Entry(PAIRS.function, _TENSORS, _SCALARS))
    finally:
        os._exit(70)


def read(pid: int, channel: socket.socket, frame: Frame, source: str, check: str) -> dict[str, Any]:
    """Load, call once, and report what a careless reader would have taken for the answer."""
    shape = shape_of(_TENSORS, _SCALARS, 1, _BATCH, 4)
    views = frame.views(shape)
    views.inputs.copy_(-30 + 3 * torch.randn(4, 1, _BATCH, generator=torch.Generator().manual_seed(3)))
    frame.write_scalars([0.1])
    loaded = _ask(channel, frame, Header(Op.LOAD, 0, 0, 0, 4, frame.write_text(source.encode()), 0))
    if not loaded["answered"] or loaded["status"] != Status.OK:
        return {"error": frame.read_text(frame.read_header().text_bytes).decode()}
    # a first honest call may be needed before the attack shows: two requests, the last one counts
    patience_s = _SILENCE_S if check == "frame-silent" else _ANSWER_S
    for _ in range(2):
        found = _ask(channel, frame, Header(Op.CALL, 0, 1, _BATCH, 4, 0, 0), patience_s)
        found |= {"cpu_s": _cpu_seconds(pid)}
        if not found["answered"] or found["status"] != Status.OK or found["bells"] or found["descriptors"]:
            return found
        found |= _numbers(frame, shape, _RACE_S if check == "frame-race" else 0.0)
        if found["moving"] or not found["finite"] or found["forged"] or found["unlike"]:
            return found
    return found


def _ask(channel: socket.socket, frame: Frame, header: Header, patience_s: float = _ANSWER_S) -> dict[str, Any]:
    frame.write_header(header)
    try:
        channel.send(b"?")
    except OSError:
        return {"answered": False, "silent": False}
    if not select.select([channel], [], [], patience_s)[0]:
        return {"answered": False, "silent": True}
    bell, descriptors, _, _ = socket.recv_fds(channel, 1, 4)
    if not bell:
        return {"answered": False, "silent": False}
    answer = frame.read_header()
    waiting = select.select([channel], [], [], 0.02)[0]
    left = len(channel.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)) if waiting else 0
    return {
        "answered": True,
        "status": answer.status,
        "op": answer.op,
        "size": [answer.runs, answer.batch, answer.itemsize],
        "asked_size": [header.runs, header.batch, header.itemsize],
        "text_bytes": answer.text_bytes,
        "bells": left,
        "descriptors": len(descriptors),
    }


def _numbers(frame: Frame, shape: Shape, watch_s: float) -> dict[str, Any]:
    views = frame.views(shape)
    first = views.answer.clone()
    moving = False
    until = time.monotonic() + watch_s
    while not moving and time.monotonic() < until:
        moving = not torch.equal(first.nan_to_num(), views.answer.nan_to_num())
    return {
        "moving": moving,
        "finite": bool(first.isfinite().all()),
        "forged": bool((first == 777.0).all()),
        "unlike": not torch.allclose(views.means, views.losses.mean(1)),
    }


def _cpu_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
