"""Finding plug-ins by entry point (group `objective_discovery.<kind>`) or by `module:attr`."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from evaluators.options import OptionsError, nearest

GROUP = "objective_discovery"


def plugin_names(kind: str) -> list[str]:
    """Names registered for a kind (`evaluators`, `proposers`, `strategies`, `exporters`), sorted."""
    return sorted({e.name for e in entry_points(group=f"{GROUP}.{kind}")})


def load_plugin(kind: str, name: str) -> Any:
    """The class registered as `name`, or the object at `module:attr`.

    Raises:
        OptionsError: no such plug-in, or it cannot be imported; says what there is.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise OptionsError(f"cannot load {name!r} as one of the {kind}: {error}") from error
    return load_installed(kind, name)


def load_installed(kind: str, name: str) -> Any:
    """The class registered as `name`. For names that an archive holds: whoever made it must not choose what is imported.

    Raises:
        OptionsError: no such plug-in; says what there is.
    """
    for entry in entry_points(group=f"{GROUP}.{kind}", name=name):
        return entry.load()
    raise OptionsError(f"unknown name {name!r} among the {kind}; {nearest(name, plugin_names(kind))}")
