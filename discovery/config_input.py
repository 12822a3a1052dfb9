"""Reading configuration text: strict YAML, `--set` overrides, and no secret written out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from db.redact import holds_api_key
from discovery.config_errors import ConfigError, shown
from discovery.nearby import meant
from sandbox.text import one_line

MAX_DEPTH, MAX_VALUES = 20, 10_000

_SECRET_KEY = re.compile(
    r"(.*_)?(api_?key|password|passwd|secret|secret_key|authorization|credentials?)\Z"
    r"|((access|auth|api|hf|bearer|refresh)_)?token\Z"
)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice and reads 1e-3 as a number (YAML 1.1 reads it as text)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+\Z"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """One YAML document. Raises ConfigError with line and column."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}{place}: {one_line(error.problem or 'not valid YAML', 160)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {one_line(str(error), 160)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A file's settings. Raises ConfigError: missing, unreadable, empty, malformed, or not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = meant(path) or "; `discovery init` writes one"
        raise ConfigError(f"no config file {str(path)!r}{hint}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a UTF-8 text file") from None
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None
    data = parse_yaml(text, path.name)
    if data is None:
        raise ConfigError(f"{path.name} is empty; `discovery init` writes a commented one")
    if not isinstance(data, dict):
        raise ConfigError(f"{path.name}: takes `key: value` lines, not {shown(data)}")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the settings with each ``a.b=value`` put in place. Raises ConfigError."""
    result = deepcopy(dict(data))
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = [k.strip() for k in path.split(".")]
        if not equals or not all(keys):
            raise ConfigError(f"--set takes key=value, such as proposer.kind=evolve, not {one_line(path, 80)!r}")
        here: Any = result
        for depth, key in enumerate(keys[:-1], 1):
            here = _step(here, key, f"--set {one_line(path, 80)}", ".".join(keys[:depth]))
        value = parse_yaml(text, f"--set {one_line(path, 80)}")
        if isinstance(here, list):
            here[_position(here, keys[-1], f"--set {one_line(path, 80)}")] = value
        else:
            here[keys[-1]] = value
    return result


def _step(here: Any, key: str, where: str, section: str) -> Any:
    """The section or list at `key`, made if there is nothing yet."""
    if isinstance(here, list):
        inner = here[_position(here, key, where)]
    else:
        if here.get(key) is None:
            here[key] = {}
        inner = here[key]
    if not isinstance(inner, (dict, list)):
        raise ConfigError(f"{where}: {one_line(section, 80)} is not a section")
    return inner


def _position(items: list[Any], key: str, where: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise ConfigError(f"{where}: the list has the items 0 to {len(items) - 1}, not {one_line(key, 20)!r}")
    return int(key)


def check_plain(data: Any, source: str) -> None:
    """Refuse what JSON cannot hold (dates, cycles) or what is absurdly large. Raises ConfigError."""
    count = 0
    stack: list[tuple[Any, tuple[str, ...]]] = [(data, ())]
    while stack:
        value, path = stack.pop()
        count += 1
        where = one_line(".".join(path), 80)
        if len(path) > MAX_DEPTH or count > MAX_VALUES:
            raise ConfigError(f"{source}: nested too deeply or too large near {where!r}")
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise ConfigError(f"{source}: the key {shown(key)} in {where or 'the file'} is not text; quote it")
                stack.append((inner, (*path, key)))
        elif isinstance(value, (list, tuple)):
            stack.extend((inner, (*path, str(i))) for i, inner in enumerate(value))
        elif value is not None and not isinstance(value, (str, int, float, bool)):
            raise ConfigError(f"{source}: {where} is a {type(value).__name__}; quote it to make it text")


def refuse_secrets(data: Mapping[str, Any], source: str) -> None:
    """Refuse keys and tokens written out; the message never repeats them. Raises ConfigError.

    A password inside the `archive` URL is allowed, because some databases leave no other way; it is masked wherever the
    configuration is stored or shown. `archive: env:NAME` keeps it out of the file.
    """
    stack: list[tuple[Any, tuple[str, ...]]] = [(data, ())]
    while stack:
        value, path = stack.pop()
        if isinstance(value, Mapping):
            stack.extend((inner, (*path, key)) for key, inner in value.items())
            continue
        if isinstance(value, (list, tuple)):
            stack.extend((inner, (*path, str(i))) for i, inner in enumerate(value))
            continue
        if path == ("archive",):
            continue
        key = next((k for k in reversed(path) if not k.isdigit()), "").lower().replace("-", "_")
        named = bool(_SECRET_KEY.match(key)) and value not in (None, "")
        if named or (isinstance(value, str) and holds_api_key(value)):
            where = one_line(".".join(path), 80)
            raise ConfigError(
                f"{source}: {where} holds a secret; put it into an environment variable and name that variable: "
                "api_key_env: OPENAI_API_KEY"
            )
