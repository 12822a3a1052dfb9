"""`discovery doctor`: what this machine offers, and a live test that candidates are confined."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from discovery.cli.archives import archive_url
from discovery.cli.border import FAULT
from discovery.cli.platforms import RECIPE, allow_local_plugins, runs_candidates
from discovery.cli.tables import add_name, add_text, add_word, print_table, table
from discovery.cli.terminal import print_json, stdout_console, words
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.config import CampaignConfig

State = Literal["ok", "note", "bad"]
_STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}
_NEEDED_MB = 2048  # a warm process, its child's limit, and a small model beside them
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Finding:
    """One line of the report. `bad` means that a campaign would not run, or not as it should."""

    what: str
    state: State
    text: str


def doctor(path: Path | None, archive: str | None, settings: Sequence[str], as_json: bool) -> int:
    """Print the report; returns the exit code: 1 if anything is bad.

    Args:
        path: a campaign's configuration: its archive, Ray cluster, endpoint and evaluators are looked at too.

    Raises:
        OptionsError, ConfigError: the configuration is wrong.
    """
    allow_local_plugins(path)
    config = None
    if path is not None:
        from discovery.cli.run import configuration

        config = configuration(path, archive, settings)
    findings = [
        *_machine(),
        *_sandbox(),
        _gpus(),
        _ray(config.workers.ray_address if config else None),
        _database(config.archive if config else archive_url(archive)),
        _endpoint(config),
    ]
    healthy = all(f.state != "bad" for f in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": findings})
    else:
        _print(findings)
    return 0 if healthy else FAULT


def _print(findings: Sequence[Finding]) -> None:
    grid = table()
    add_name(grid, "what")
    add_word(grid, "")
    add_text(grid, "found")
    for found in findings:
        grid.add_row(found.what, Text(found.state, _STYLES[found.state]), words(found.text, limit=600))
    print_table(stdout_console(), grid)


def _machine() -> Iterable[Finding]:
    known = runs_candidates() and platform.machine() in ("x86_64", "AMD64")
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    where = "" if known else f"; candidates run on Linux on x86-64: {RECIPE}"
    yield Finding("system", "ok" if known else "bad", system + where)
    yield Finding("python", "ok", f"{platform.python_version()}, torch {_version('torch')}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(
        "cores", "ok" if cores > 1 else "note", f"{cores}{'' if cores > 1 else ': trials and the driver share it'}"
    )
    if sys.platform == "linux":
        free, limit = _memory_mb()
        text = f"{free:,} MB free" + (f", limited to {limit:,} MB" if limit else "")
        short = min(free, limit or free) < _NEEDED_MB
        yield Finding("memory", "note" if short else "ok", text + (f"; {_NEEDED_MB:,} MB are needed" if short else ""))


def _memory_mb() -> tuple[int, int | None]:
    """What is free now, and the limit of this container, if there is one."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    free = int(fields["MemAvailable"].split()[0]) // 1024
    for path in _CGROUP_LIMITS:
        try:
            limit = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):  # not this version of control groups, or "max"
            continue
        if limit < _NO_LIMIT:
            return free, limit // 2**20
    return free, None


def _sandbox() -> Iterable[Finding]:
    if not runs_candidates():
        return
    from sandbox import landlock, seccomp
    from sandbox.failure import InfrastructureError
    from sandbox.self_test import self_test
    from sandbox.server import OracleServer

    reason = seccomp.available()
    yield Finding("seccomp", "bad" if reason else "ok", reason or "system calls of candidates are filtered")
    abi = landlock.abi()
    yield Finding(
        "landlock", "ok" if abi else "note", f"version {abi}" if abi else "not in this kernel; seccomp alone holds"
    )
    try:
        with OracleServer() as server:
            attempts = self_test(server)
    except InfrastructureError as error:
        yield Finding("self-test", "bad", str(error))
        return
    for attempt in attempts:
        how = "stopped" if attempt.stopped else f"NOT stopped: {attempt.how}"
        state: State = "ok" if attempt.stopped else "bad"
        yield Finding(f"a child tries to {attempt.name}", state, f"{how}, {attempt.wall_ms:.0f} ms")


def _gpus() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPUs", "ok", "none that torch can use; trials run on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = [torch.cuda.get_device_properties(i).total_memory // 2**30 for i in range(len(names))]
    return Finding("GPUs", "ok", ", ".join(f"{n} ({m} GiB)" for n, m in zip(names, memory, strict=True)))


def _ray(address: str | None) -> Finding:
    found = _version("ray")
    from discovery.ray_session import cluster_resources
    from sandbox.failure import InfrastructureError

    try:
        there = cluster_resources(address)
    except InfrastructureError as error:
        return Finding("Ray", "bad", str(error))
    where = "starts here; a campaign starts its own" if address is None else address
    return Finding("Ray", "ok", f"{found}; {where}: " + ", ".join(f"{k} {v:g}" for k, v in sorted(there.items())))


def _database(url: str) -> Finding:
    from db.archive import Archive, ArchiveError
    from db.redact import redact_url

    if "://" not in url and not Path(url).exists():
        return Finding("archive", "ok", f"{redact_url(url)} does not exist yet; a campaign makes it")
    try:
        with Archive(url) as archive:
            count = len(archive.campaigns())
            return Finding("archive", "ok", f"{archive.url}: {count} campaign{'' if count == 1 else 's'}")
    except ArchiveError as error:
        return Finding("archive", "bad", str(error))


def _endpoint(config: CampaignConfig | None) -> Finding:
    """Whether the configuration's proposer can be reached with its key and model."""
    if config is None:
        return Finding("endpoint", "note", "not asked; `discovery doctor CONFIG` asks the one of a campaign")
    from discovery.campaign import Campaign
    from discovery.protocols import ProposerError

    campaign = Campaign(config)  # its other settings are looked at too
    try:
        asked = asyncio.run(campaign.preflight())
    except ProposerError as error:
        return Finding("endpoint", "bad", one_line(str(error), 600))
    said = "answers" if asked else "needs no endpoint"
    return Finding("endpoint", "ok", f"proposer {config.proposer.kind} {said}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
