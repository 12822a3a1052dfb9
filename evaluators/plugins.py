"""Finding plug-ins by entry point (group `objective_discovery.<kind>`) or by `module:attr`."""

from __future__ import annotations

import dis
import importlib
from collections.abc import Callable
from functools import reduce
from importlib.metadata import entry_points
from types import FunctionType
from typing import Any

from evaluators.options import OptionsError, nearest
from evaluators.plugin_border import describe, plugin_border

GROUP = "objective_discovery"
# What a plug-in of each kind follows. By name: this package may not import those that come after it.
_PROTOCOLS = {
    "evaluators": ("evaluators.base", "Evaluator"),
    "proposers": ("discovery.protocols", "Proposer"),
    "strategies": ("discovery.protocols", "Strategy"),
    "exporters": ("discovery.exporters.base", "Exporter"),
}
_NOTHING = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}  # all that a body of `...` consists of


def plugin_names(kind: str) -> list[str]:
    """Names registered for a kind (`evaluators`, `proposers`, `strategies`, `exporters`), sorted."""
    return sorted({e.name for e in entry_points(group=f"{GROUP}.{kind}")})


def load_plugin(kind: str, name: str) -> Any:
    """The class registered as `name`, or the class at `module:attr`.

    Raises:
        OptionsError: no such plug-in (says what there is), it cannot be imported (says at which line), or it lacks members
            of its protocol (names all of them).
    """
    if ":" not in name:
        return load_installed(kind, name)
    module, _, attribute = name.partition(":")
    return _checked(kind, name, lambda: reduce(getattr, attribute.split("."), importlib.import_module(module)))


def load_installed(kind: str, name: str) -> Any:
    """The class registered as `name`. For names that an archive holds: whoever made it must not choose what is imported.

    Raises:
        OptionsError: as `load_plugin`.
    """
    for entry in entry_points(group=f"{GROUP}.{kind}", name=name):
        return _checked(kind, name, entry.load)
    raise OptionsError(f"unknown name {name!r} among the {kind}; {nearest(name, plugin_names(kind))}")


def make_plugin(kind: str, name: str, *arguments: object) -> Any:
    """An object of the class registered as `name`, or at `module:attr`.

    Raises:
        OptionsError: as `load_plugin`, or the plug-in refuses its options. PluginError: it raised something else.
    """
    found = load_plugin(kind, name)
    with plugin_border(found, "made with its options"):
        return found(*arguments)


def _checked(kind: str, name: str, load: Callable[[], object]) -> Any:
    try:
        found = load()
    except (Exception, SystemExit) as error:
        raise OptionsError(f"cannot load {name!r} as one of the {kind}: {describe(error)}") from error
    if not isinstance(found, type):
        raise OptionsError(f"cannot load {name!r} as one of the {kind}: it is no class but a {type(found).__name__}")
    module, protocol = _PROTOCOLS[kind]
    missing = _missing(found, getattr(importlib.import_module(module), protocol))
    if missing:
        *first, last = missing
        listed = f"{', '.join(first)} and {last}" if first else last
        raise OptionsError(f"cannot use {name!r} as one of the {kind}: it lacks {listed} ({module}.{protocol})")
    if kind == "evaluators":
        from evaluators.promises import wrong_facts  # numpy, which plain commands do without

        if wrong := wrong_facts(found):
            raise OptionsError(f"cannot use {name!r} as one of the {kind}: {'; '.join(wrong)}")
    return found


def _missing(found: type, protocol: type) -> list[str]:
    """Members of the protocol that a class does not have, or has only as the protocol's empty ones."""
    declared = dict.fromkeys((*protocol.__annotations__, *(n for n in vars(protocol) if not n.startswith("_"))))
    return [name for name in declared if not hasattr(found, name) or _is_empty(found, protocol, name)]


def _is_empty(found: type, protocol: type, name: str) -> bool:
    """Whether a member is inherited from the protocol, which only says what it has to do."""
    theirs = vars(protocol).get(name)
    if theirs is None or getattr(found, name) is not theirs:
        return False
    function = theirs.fget if isinstance(theirs, property) else theirs
    if not isinstance(function, FunctionType):
        return False
    done = list(dis.get_instructions(function))
    return {i.opname for i in done} <= _NOTHING and done[-2 if done[-1].opname == "RETURN_VALUE" else -1].argval is None
