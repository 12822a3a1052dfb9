"""Ends what a local Ray leaves behind when the command is killed.

Ray's own processes die with the driver, except its agents: they wait about a minute for a control store that is gone.
The reaper is a tiny process that holds one end of a pipe. When the driver ends, however that happens, the pipe closes, and
the reaper kills every process that has a log of the driver's Ray session open. (The environment would not tell: Ray's
processes overwrite it with their titles. Nor would their parents: those are gone.)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

_SESSION = r"/session_[0-9-]+_[0-9-]+_[0-9]+_{pid}/"  # Ray names a session's folder by date, time and the driver's pid
_PATIENCE_S = 10.0
_LOOK_S = 0.1


class Reaper:
    """Started before the processes it is for; `close` ends them."""

    def __init__(self) -> None:
        theirs, self._ours = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(theirs), str(os.getpid())],
                env={},
                pass_fds=(theirs,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C is not for it
            )
        except OSError:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)

    def close(self) -> None:
        """Kill what is left, and wait for that."""
        os.close(self._ours)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2 * _PATIENCE_S)


def main(pipe: int, driver: int) -> None:
    """Entry point of the reaper's process."""
    os.read(pipe, 1)  # nothing is ever written: this returns when the other end is closed
    session = re.compile(_SESSION.format(pid=driver))
    end = time.monotonic() + _PATIENCE_S
    while (left := _with_open_file(session) - {driver}) and time.monotonic() < end:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)


def _with_open_file(path: re.Pattern[str]) -> set[int]:
    """Processes of this user with a file open whose path matches."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if path.search(os.readlink(f"/proc/{pid}/fd/{descriptor}")):
                        found.add(int(pid))
                        break
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
