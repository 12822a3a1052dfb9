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
from evaluators.written import NULL_WORDS, Ambiguous, WrittenFloat, WrittenInt
from sandbox.text import one_line

MAX_DEPTH, MAX_VALUES = 20, 10_000
MAX_BYTES = 256 * 1024

_SECRET_KEY = re.compile(
    r"(.*_)?(api_?key|password|passwd|secret|secret_key|authorization|credentials?)\Z"
    r"|((access|auth|api|hf|bearer|refresh)_)?token\Z"
)


class _Loader(yaml.SafeLoader):
    """YAML whose plain words keep their text until the type that is due is known: see `evaluators.written`.

    It refuses a key that is given twice, and tags.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _fault(key_node, f"the key {_source(key_node)} is not text; quote it")
        if key in seen:
            raise _fault(key_node, f"the key {key!r} is given twice")
        seen.add(key)
    loader.flatten_mapping(node)
    return {str(loader.construct_object(k, deep=True)): loader.construct_object(v, deep=True) for k, v in node.value}


def _integer(_: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    return WrittenInt(int(text) if text.lstrip("+-").startswith("0") and text.isdecimal() else int(text, 0), text)


def _float(_: _Loader, node: yaml.ScalarNode) -> float:
    return WrittenFloat(float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan")), node.value)


def _octal(_: _Loader, node: yaml.ScalarNode) -> str:
    decimal, octal = int(node.value), int(node.value.replace("_", ""), 8)
    return _ambiguous(node, f"may mean {decimal} or, as an octal number, {octal}: write {decimal}, or 0o... for octal")


def _sixties(_: _Loader, node: yaml.ScalarNode) -> str:
    total = 0.0
    for part in node.value.lstrip("+-").split(":"):
        total = total * 60 + float(part)
    return _ambiguous(
        node, f"may be counted in sixties ({'-' * node.value.startswith('-')}{total:g}) or text: write the number"
    )


def _ambiguous(node: yaml.ScalarNode, meanings: str) -> str:
    text = one_line(node.value, 40)
    return Ambiguous(node.value, f"`{text}` in line {node.start_mark.line + 1} {meanings}")


def _refused(_: _Loader, node: yaml.Node) -> Any:
    raise _fault(node, f"the tag {one_line(node.tag, 60)!r} means nothing here; leave it out")


def _fault(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _source(node: yaml.Node) -> str:
    return one_line(node.value, 40) if isinstance(node, yaml.ScalarNode) else "of several values"


_CORE = "tag:yaml.org,2002:"
# YAML 1.2's core schema, and underscores between digits. What YAML 1.1 reads in another way (`off`, `1:30`, `010`, dates) is
# text, or ambiguous.
_PLAIN = {
    _CORE + "merge": (r"<<", "<"),
    _CORE + "null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    _CORE + "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    # 01 and 08 mean the same to everybody who takes them for a number
    _CORE + "int": (r"[-+]?(0|[1-9]\d*(_\d+)*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)|0+\d|0\d*[89]\d*", "-+0123456789"),
    "!octal": (r"[-+]?0[0-7_]*[0-7]", "-+0"),
    "!sixties": (r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?", "-+0123456789"),
    _CORE + "float": (
        r"[-+]?(\.\d+|\d+(_\d+)*(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (_CORE + kind for kind in ("null", "bool", "str", "seq"))
}
for _tag, _made_by in {"map": _mapping, "int": _integer, "float": _float}.items():
    _Loader.yaml_constructors[_CORE + _tag] = _made_by
_Loader.add_constructor("!octal", _octal)
_Loader.add_constructor("!sixties", _sixties)
_Loader.yaml_constructors[None] = _refused


def parse_yaml(text: str, where: str) -> Any:
    """One YAML document. Raises ConfigError with line and column."""
    try:
        _require_shallow(text, where)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _require_small(node, where)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}{place}: {_problem(error.problem or 'not valid YAML')}") from None
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {one_line(str(error), 160)}") from None


def _problem(said: str) -> str:
    """PyYAML's words where they are clear, ours where they are not."""
    if "'\\t'" in said:
        return "a tab; indent with spaces"
    if "found another document" in said:
        return "a second document begins here; one file is one campaign"
    return one_line(said, 160)


def _require_shallow(text: str, where: str) -> None:
    """Refuse what is nested too deeply or too long before the reader, which needs much longer for it. Raises ConfigError."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _Loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > 2 * MAX_VALUES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError(f"{where}, line {line}: nested too deeply or too large")


def _require_small(root: yaml.Node, where: str) -> None:
    """Refuse aliases that repeat so much, or so deep, that reading them would not end. Raises ConfigError."""
    sizes: dict[int, int] = {}
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    under_way: set[int] = set()
    while stack:
        node, is_back = stack.pop()
        parts = [*(part for pair in node.value for part in pair)] if isinstance(node, yaml.MappingNode) else node.value
        parts = [] if isinstance(node, yaml.ScalarNode) else parts
        line = node.start_mark.line + 1
        if is_back:
            under_way.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(p)] for p in parts)
            if sizes[id(node)] > 2 * MAX_VALUES:  # keys count too
                raise ConfigError(f"{where}, line {line}: too large, with what its aliases repeat")
        elif id(node) in under_way:
            raise ConfigError(f"{where}, line {line}: it contains itself through an alias")
        elif id(node) not in sizes:
            under_way.add(id(node))
            stack.append((node, True))
            stack.extend((p, False) for p in parts)


def read_yaml(path: Path) -> dict[str, Any]:
    """A file's settings. Raises ConfigError: missing, unreadable, empty, malformed, or not a mapping."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        hint = meant(path) or "; `discovery init` writes one"
        raise ConfigError(f"no config file {str(path)!r}{hint}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a UTF-8 text file") from None
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path.name} is longer than {MAX_BYTES // 1024} KiB, which no configuration is")
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
        named = bool(_SECRET_KEY.match(key)) and str(value or "").lower() not in {"", *NULL_WORDS}
        if named or (isinstance(value, str) and holds_api_key(value)):
            where = one_line(".".join(path), 80)
            raise ConfigError(
                f"{source}: {where} holds a secret; put it into an environment variable and name that variable: "
                "api_key_env: OPENAI_API_KEY"
            )


def cluster_address(address: str | None) -> str | None:
    """A Ray cluster's own address, or ``auto``. Raises ValueError for that of Ray's client, which campaigns do not use."""
    if address is None or address == "auto":
        return address
    if "://" in address:
        raise ValueError(
            f"cannot be {address!r}, which goes through Ray's client: make this machine a node of the cluster "
            "(`ray start --address=HOST:6379`), and write HOST:6379 or auto"
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError(f"takes HOST:PORT or auto, not {address!r}; leave it out for a Ray on this machine alone")
    return address
