"""Launch discovery campaigns, browse the archive, export discovered losses."""

from __future__ import annotations

import importlib.util
import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _beside(package: str) -> str:
    """Where one of our packages is if it lies beside this one: Ray sends each to a cluster in a folder of its own."""
    return os.path.join(_ROOT, package, "__init__.py")


def _hidden_by(package: str) -> str | None:
    """The file that Python takes for one of our packages, because it is found first; None if it is ours."""
    if package in sys.modules:
        found: str | None = getattr(sys.modules[package], "__file__", None)
    else:
        spec = importlib.util.find_spec(package)
        found = spec.origin if spec is not None else None
    return None if found is None or os.path.realpath(found) == os.path.realpath(_beside(package)) else found


def _load(package: str) -> None:
    """Import one of our packages from where this one is, so that nothing found later takes its place."""
    spec = importlib.util.spec_from_file_location(package, _beside(package))
    if package not in sys.modules and spec is not None and spec.loader is not None:
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])


_by_module = sys.argv[:1] == ["-m"] and "discovery" in sys.orig_argv
if (
    _by_module and not sys.flags.safe_path
):  # Python puts the working directory first: what is in it must not hide a module
    sys.path.append(sys.path.pop(0))
_is_command = _by_module or os.path.basename("".join(sys.argv[:1])) == "discovery"
for _package in ("sandbox", "evaluators", "db"):  # names that a file beside a notebook may have too
    if not os.path.exists(_beside(_package)):
        continue
    if not _is_command and (_file := _hidden_by(_package)) is not None:
        raise ImportError(
            f"{_file} hides the package `{_package}` of objective-discovery: rename it, or start from another folder",
            name=_package,
            path=_file,
        )
    _load(_package)
