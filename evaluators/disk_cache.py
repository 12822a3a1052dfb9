"""Prepared values on disk: made once, found by content, shared by all processes, never unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from evaluators.base import canonical_json
from evaluators.options import OptionsError

Stored = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by name, and plain JSON values

_TENSORS, _MANIFEST = "tensors.safetensors", "manifest.json"


def load_or_build(folder: Path, build: Callable[[], Stored], progress: Callable[[str], None]) -> Stored:
    """What is stored in `folder`, or what `build` makes, stored there for the next process.

    The folder appears complete or not at all (it is written beside and renamed). One process builds, others wait for it. A
    damaged entry is built again.

    Raises:
        OptionsError: the folder cannot be written.
    """
    found = _read(folder)
    if found is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("waiting for another process that prepares the same")
            lock.acquire()
        try:
            found = _read(folder)  # another process may have finished meanwhile
            if found is None:
                found = build()
                _write(folder, found)
            return found
        finally:
            lock.release()
    except OSError as error:
        raise OptionsError(
            f"cannot use the cache {str(folder.parent)!r}: {error.strerror or error}; "
            "set OBJECTIVE_DISCOVERY_CACHE to a writable folder with 50 MB free"
        ) from error


def _read(folder: Path) -> Stored | None:
    """The entry, or None if there is none or it is damaged."""
    from safetensors.torch import load

    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        content = (folder / _TENSORS).read_bytes()
        if _digest(content, manifest["values"]) != manifest["sha256"]:
            return None
        return load(content), manifest["values"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(content: bytes, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(values).encode() + content).hexdigest()


def _write(folder: Path, stored: Stored) -> None:
    from safetensors.torch import save

    tensors, values = stored
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    manifest: Mapping[str, Any] = {"sha256": _digest(content, values), "values": values}
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        (temporary / _TENSORS).write_bytes(content)
        (temporary / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        if folder.exists():  # damaged, or it would have been read
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
