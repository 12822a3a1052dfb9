"""Every allow-listed name is plain arithmetic: it runs where nothing can be opened, imported, started or connected."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import allowlist
from sandbox.zygote import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]

# names of the torch module that reach files, processes, devices, state or other code; none may ever be listed
NEVER = allowlist.names("""
Generator TypedStorage UntypedStorage __class__ __globals__ ag_frame apply_ as_strided autograd backends backward
builtins classes compile compiler cr_frame ctypes cuda data data_ptr distributed empty empty_like empty_strided
f_back format format_map from_file from_numpy frombuffer func gi_frame grad_fn hub importlib inspect jit library
load manual_seed map_ mro multiprocessing numpy ops os package pin_memory random register_hook resize_ save
serialization set_ set_default_device set_default_dtype set_num_threads share_memory_ storage sys tb_frame tofile
untyped_storage use_deterministic_algorithms utils vmap
""")


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="candidates run on Linux only")


def call_everything(*arguments: str, code: str = "") -> dict[str, str]:
    """What `tests.sandbox.call_everything` found: names with what happened to them."""
    start = f"{code}\nfrom tests.sandbox import call_everything\ncall_everything.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments],
        capture_output=True, text=True, timeout=600, check=False, cwd=ROOT, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["names"] >= (800 if not set(arguments) - {"--thorough"} else 1)
    return dict(report["found"])


def test_every_name_runs_without_opening_importing_or_starting_anything() -> None:
    assert call_everything() == {}


@pytest.mark.slow
def test_every_name_runs_so_with_more_arguments_each_in_a_child_of_its_own() -> None:
    assert call_everything("--thorough") == {}


def test_that_check_notices_names_that_do_more() -> None:
    listed = (
        "from sandbox import allowlist\n"
        "allowlist.DOTTED |= {'torch.save', 'torch.sgn'}\n"  # the backward of sgn imports a compiler
        "allowlist.ATTRIBUTES |= {'share_memory_', 'index'}\n"
    )
    found = call_everything("torch.save", "torch.sgn", "torch.exp", ".share_memory_", ".exp", code=listed)
    assert set(found) == {"torch.save", "torch.sgn", ".share_memory_"}


def test_a_call_by_position_cannot_reach_out_or_inplace() -> None:
    """Of the functions whose signature Python knows; torch's own have these by keyword only."""
    for dotted in allowlist.DOTTED - allowlist.MODULES:
        target = _resolve(dotted)
        try:
            parameters = list(inspect.signature(target).parameters.values())
        except (TypeError, ValueError):
            continue
        by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        reached = by_position[: allowlist.POSITIONAL.get(dotted, len(by_position))]
        assert not {"out", "inplace", "generator", "device", "training", "func", "fn"} & set(reached), dotted


def test_nothing_that_leads_out_is_listed() -> None:
    leaves = {name.rpartition(".")[2] for name in allowlist.DOTTED}
    assert not NEVER & (leaves | allowlist.ATTRIBUTES | allowlist.BUILTINS)
    assert not {n for n in leaves | allowlist.ATTRIBUTES | allowlist.KEYWORDS if n.startswith("_")}
    assert not {"out", "device", "generator", "inplace", "pin_memory", "map_location", "fn"} & allowlist.KEYWORDS


def test_no_random_name_is_listed() -> None:
    leaves = {name.rpartition(".")[2] for name in allowlist.DOTTED}
    assert not allowlist.RANDOM & (leaves | allowlist.ATTRIBUTES)
    assert not {n for n in leaves | allowlist.ATTRIBUTES if "rand" in n or "drop" in n}


def test_every_dotted_name_exists() -> None:
    """A name that this torch lacks may be a spelling mistake."""
    for dotted in allowlist.DOTTED | allowlist.TENSOR_TYPES:
        assert _resolve(dotted) is not None


def _resolve(dotted: str) -> Any:
    target = importlib.import_module(dotted.partition(".")[0])
    for part in dotted.split(".")[1:]:
        target = getattr(target, part)
    return target
