"""Starting a Ray of our own, or joining a cluster: the configuration decides, and nothing that stands around does.

Ray by itself joins whatever cluster a variable or an old file names, writes into the home folder, puts the working directory
before the standard library in its workers, and prints what it thinks of a lost node. None of that happens here.
"""

from __future__ import annotations

import logging
import os
import re
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.redact import redact_url
from discovery.ray_processes import last_words
from sandbox.failure import InfrastructureError
from sandbox.text import clean_text, one_line

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("sandbox", "evaluators", "db", "discovery")
_OBJECT_STORE_BYTES = 200 * 1024 * 1024  # reports are small; the default takes a third of the memory
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SOCKET_BYTES = 107  # the longest path of a Unix socket
_LONGEST_SOCKET = "/ray/session_2026-01-31_12-00-00_000000_4194304/sockets/plasma_store"
_CONNECT_S = 5.0
_KNOCK = (
    "import sys; from ray._private.services import canonicalize_bootstrap_address as where;"
    "from ray._raylet import GcsClient;"
    "GcsClient(address=where(sys.argv[1]), cluster_id=None)"
)
_GET_TOKEN = "copy ~/.ray/auth_token from its head, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
# what changes how every Python process behaves, and would end Ray's own or strip their checks
_INTERPRETER = (
    "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONDEVMODE",
    "PYTHONPROFILEIMPORTTIME", "PYTHONBREAKPOINT", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONPATH", "PYTHONPLATLIBDIR",
)  # fmt: skip


@dataclass(frozen=True)
class Session:
    """A Ray that this process is connected to.

    Attributes:
        control: host and port of its control store (GCS).
        raylet: path of the socket of the node that this process belongs to.
    """

    control: str
    raylet: str


def start(cpus: int, secrets: Sequence[str], log: logging.Logger) -> Session:
    """Start a Ray of our own on this machine, whatever clusters are up or are named by variables and files.

    Args:
        cpus: how many it counts; more than there are is fine.
        secrets: environment variables that its processes must not inherit, besides those whose names or values say so.
        log: gets what Ray has to say.

    Raises:
        InfrastructureError: it does not start.
    """
    folder = _temp_dir()
    with _environment(secrets):
        _own_token()
        ray = _quiet_ray(log)
        try:
            ray.init(
                address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES,
                job_config=_job_config(), _temp_dir=folder, **_common(),
            )  # fmt: skip
        except Exception as error:  # Ray raises it bare where a process of its node ends while it starts
            raise InfrastructureError(f"cannot start Ray: {one_line(start_trouble() or str(error), 400)}") from error
    return _session(ray)


def join(address: str, log: logging.Logger) -> Session:
    """Join a running cluster as a node's driver; our packages are sent to all its nodes.

    Args:
        address: host and port of its control store, or ``auto`` for the one that was started on this machine.
        log: gets what Ray has to say.

    Raises:
        InfrastructureError: nobody is there, it asks for a token, or it runs another version; says what to do.
    """
    if address != "auto" and not answers(address):
        raise InfrastructureError(
            f"cannot join Ray at {address}: nobody answers there; start it with `ray start --head`, or leave "
            "workers.ray_address out for a Ray on this machine alone"
        )
    ray = _quiet_ray(log)
    _show_token_where_asked(address)
    modules = [str(ROOT / package) for package in _PACKAGES]
    try:
        ray.init(address=address, runtime_env={"py_modules": modules}, job_config=_job_config(), **_common())
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        raise InfrastructureError(_why_not(address, error)) from error
    return _session(ray)


def cluster_resources(address: str | None) -> dict[str, float]:
    """CPUs, GPUs and memory (GiB) of a running cluster, or of a Ray that is started here for a moment.

    Raises InfrastructureError if it cannot be joined or started.
    """
    import ray

    log = logging.Logger("ray")
    if address is None:
        start(os.cpu_count() or 1, (), log)
    else:
        join(address, log)
    try:
        found = ray.cluster_resources()
        return {name: found.get(name, 0.0) for name in ("CPU", "GPU")} | {"GiB": found.get("memory", 0.0) // 2**30}
    finally:
        ray.shutdown()


def start_trouble() -> str:
    """What one of the processes of the Ray that was started here said when it ended; empty if none did."""
    return last_words(Path(_temp_dir()), os.getpid())


def answers(address: str) -> bool:
    """Whether somebody listens at ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def plugin_path() -> list[str]:
    """Folders where this process finds plug-ins, and a fresh interpreter would not look."""
    library = os.path.dirname(os.__file__)
    usual = {
        os.path.realpath(p)
        for p in (
            *sysconfig.get_paths().values(),
            *site.getsitepackages(),
            library,
            os.path.join(library, "lib-dynload"),
        )
    }
    here = (os.path.abspath(p) if p else _cwd() for p in sys.path)
    return [p for p in dict.fromkeys(here) if p and os.path.isdir(p) and os.path.realpath(p) not in usual]


def hides_library(folder: str) -> str | None:
    """A file in a folder that takes the name of a module of the standard library; None if there is none."""
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            stem, _, ending = name.partition(".")
            path = os.path.join(folder, name)
            is_module = ending == "py" or (not ending and os.path.isfile(os.path.join(path, "__init__.py")))
            if is_module and stem in sys.stdlib_module_names:
                return path
    return None


def _session(ray: Any) -> Session:
    node = ray._private.worker._global_node
    return Session(node.gcs_address, node.raylet_socket_name)


def _common() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _quiet_ray(log: logging.Logger) -> Any:
    """Ray, imported, with its messages sent to the log: a lost node's are some forty lines on stdout."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: training would starve on a machine in use
    import ray
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns about threads and tokens that are as they should be

    def to_log(said: Mapping[str, Any], *_: object, **__: object) -> None:
        for line in said.get("lines", ()):
            log.warning("Ray: %s", clean_text(str(line), 20_000))

    worker.print_to_stdstream = to_log
    return ray


def _job_config() -> Any:
    """Ray puts the driver's working directory and script folder first in every worker; ours look there last, if at all."""
    from ray.job_config import JobConfig

    class OwnPath(JobConfig):  # type: ignore[misc]
        def _serialize(self) -> Any:
            self._py_driver_sys_path: list[str] = []
            return super()._serialize()

    return OwnPath()


def _show_token_where_asked(address: str) -> None:
    """Use the token that is found here, if the cluster asks for one: workers of another cannot talk to a driver with one.

    A token lies in many a home folder, as Ray makes one for clusters of its own. Raises InfrastructureError without it.
    """
    if _token_mode() is None and not _asks_for_token(address, "disabled"):
        return
    has_token = _use_token()
    if not has_token and _token_mode() == "token":
        wanted = f"RAY_AUTH_MODE is token, and there is none here; {_GET_TOKEN}, or unset RAY_AUTH_MODE"
        raise InfrastructureError(f"cannot join Ray at {address}: {wanted}")
    if _asks_for_token(address, _token_mode()):
        raise InfrastructureError(_token_wanted(address, has_token))


def _asks_for_token(address: str, mode: str | None) -> bool:
    """Whether a cluster refuses what a process in that mode has to show. Asked by one: Ray tries for 20 s, and prints."""
    environment = {**os.environ, **({"RAY_AUTH_MODE": mode} if mode else {})}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _KNOCK, address], cwd="/", env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    ) as knocking:  # fmt: skip
        assert knocking.stderr is not None
        try:
            return any("InvalidAuthToken" in line or "AuthenticationError" in line for line in knocking.stderr)
        finally:
            knocking.kill()


def _token_wanted(address: str, has_token: bool) -> str:
    what = "refuses the token found here" if has_token else "asks for a token"
    return f"cannot join Ray at {address}: the cluster {what}; {_GET_TOKEN}"


def _why_not(address: str, error: Exception) -> str:
    said = str(error)
    if address == "auto" and isinstance(error, ConnectionError):
        return (
            "cannot join Ray at auto: no cluster was started on this machine; start one with `ray start --head`, or leave "
            "workers.ray_address out"
        )
    return f"cannot join Ray at {address}: {one_line(said, 400)}"


def _use_token() -> bool:
    """Whether there is a token where Ray looks for it; it is shown to the cluster then. Ray does so for `auto` alone."""
    if _token_mode() not in (None, "token"):
        return False
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled, and in no stub
    except ImportError:  # a Ray that knows no tokens
        return False
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def _token_mode() -> str | None:
    """What the variable says; a process that has started or joined a Ray with a token has set it for its own children."""
    mode = os.environ.get("RAY_AUTH_MODE")
    return None if mode is None else mode.lower()


def _own_token() -> None:
    """A token for this Ray alone, unless there is one: Ray would write it into the home folder, writable or not."""
    known = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if not any(os.environ.get(name) for name in known) and not (_home() / ".ray" / "auth_token").is_file():
        os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # an account without a home
        return Path("/nonexistent")


def _temp_dir() -> str:
    """Where Ray keeps sockets and logs: the first usual place that is writable and short enough for a socket's path.

    Raises InfrastructureError if there is none.
    """
    usual = (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm")
    for folder in (os.path.abspath(f) for f in usual if f and os.path.isabs(f)):
        if len(os.fsencode(folder + _LONGEST_SOCKET)) > _SOCKET_BYTES:
            continue
        with suppress(OSError):
            os.makedirs(os.path.join(folder, "ray"), exist_ok=True)
            with tempfile.TemporaryFile(dir=os.path.join(folder, "ray")):
                return os.path.join(folder, "ray")
    raise InfrastructureError(
        "cannot start Ray: no folder for its sockets can be written to; set RAY_TMPDIR to one whose path is short"
    )


@contextmanager
def _environment(secrets: Sequence[str]) -> Iterator[None]:
    """What Ray's processes inherit at start: no key or password, and nothing that makes an interpreter behave otherwise."""
    before = dict(os.environ)
    for name in before:
        if name in secrets or name in _INTERPRETER or _is_secret(name):
            del os.environ[name]
    path = _python_path(before.get("PYTHONPATH", ""))
    if path:
        os.environ["PYTHONPATH"] = path
    try:
        yield
    finally:
        for name in (*_INTERPRETER, *before):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def _python_path(given: str) -> str:
    """Absolute folders of PYTHONPATH that hide nothing, and that of our packages where they are not installed."""
    installed = {os.path.realpath(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    wanted = [*given.split(os.pathsep), "" if str(ROOT) in installed else str(ROOT)]
    kept = (f for f in wanted if os.path.isabs(f) and hides_library(f) is None)
    return os.pathsep.join(dict.fromkeys(kept))


def _is_secret(name: str) -> bool:
    if name.startswith("RAY_"):  # a cluster's own token
        return False
    return _SECRET_NAME.search(name) is not None or redact_url(os.environ[name]) != os.environ[name]


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been deleted
        return ""
