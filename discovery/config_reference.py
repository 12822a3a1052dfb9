"""The configuration reference and the commented starter file, both made from the models themselves.

`python -m discovery.config_reference > docs/configuration.md`
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from discovery.config import CampaignConfig, _PluginConfig
from discovery.config_errors import expected, model_of
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin, plugin_names

WIDTH = 100
PLUGIN_KINDS: Mapping[str, str] = {
    "evaluators": "objective.options` and `promotions.N.options",
    "proposers": "proposer",
    "strategies": "strategy",
}

_INTRODUCTION = """\
# Configuration

A campaign is one YAML file. `discovery init` writes a commented one, `discovery run FILE` runs it, and
`--set key=value` replaces a setting, as in `--set budget.candidates=50` or `--set promotions.0.top=3`; values are YAML.

Values are read as YAML 1.2 has it, and by the type that is due: `off` is text or false; `none` and `null` mean that there is
no value, wherever that is allowed; `1e6` and `1_000_000` are whole numbers where one is due; an id made of digits alone is
text. What readers of YAML disagree about (`010`, `1:30`) is refused where a number is due, and so is a key given twice.

Unknown keys and wrong types are refused. Secrets are refused too: name an environment variable instead
(`api_key_env: OPENAI_API_KEY`). A database password may stand in the `archive` URL, where it is masked in everything
stored or shown; `archive: env:NAME` reads the whole URL from the environment variable NAME.

This page is generated: `python -m discovery.config_reference > docs/configuration.md`.
"""


def reference() -> str:
    """docs/configuration.md: every key of the file, then the options of every registered plug-in.

    Raises:
        OptionsError: a registered plug-in cannot be imported, or shows no options dataclass as `Options`.
    """
    sections = [_INTRODUCTION, *_model_sections(CampaignConfig, "")]
    for kind, where in PLUGIN_KINDS.items():
        sections += [_plugin_section(kind, name, where) for name in plugin_names(kind)]
    return "\n".join(sections)


def default_config_text(evaluator: str = "preference.enumerable") -> str:
    """A commented configuration with every key at its default; what is optional and absent is commented out.

    Lines that begin with `#` and a key are settings: remove the `#` to use them.
    """
    lines = [
        "# A discovery campaign. Every key is explained in docs/configuration.md.",
        "# All settings hold their defaults and can be left out, except objective.evaluator. To use a setting that is",
        "# switched off (`#key: value`), remove its #; for promotions, that of every key of the block.",
        "",
    ]
    for name, field in CampaignConfig.model_fields.items():
        lines += _yaml(name, field, evaluator)
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _model_sections(model: type[BaseModel], path: str) -> Iterable[str]:
    rows, nested = [], []
    for name, field in model.model_fields.items():
        if issubclass(model, _PluginConfig) and name == "options":
            continue  # its content stands in the section itself
        section = model_of(field.annotation)
        listed = "tuple" in str(field.annotation) and section is not None
        key = f"{path}{name}"
        anchor = (f"{key}n" if listed else key).replace(".", "")
        link = f"[{'list of sections' if listed else 'section'}](#{anchor})"
        kind = link if section else expected(field.annotation)
        rows.append((f"`{key}`", kind, _default(field, section), field.description or ""))
        if section:
            nested.append((section, f"{key}.N." if listed else f"{key}."))
    title = f"## `{path.rstrip('.')}`" if path else "## The file"
    intro = " ".join((model.__doc__ or "").split())
    yield "\n".join([title, "", intro, "", *_table(("Key", "Type", "Default", "Meaning"), rows), ""])
    for section, prefix in nested:
        yield from _model_sections(section, prefix)


def _default(field: FieldInfo, section: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    if section:
        return "none" if field.default == () else "its defaults"
    return f"`{_scalar(field.get_default(call_default_factory=True))}`"


def _scalar(value: Any) -> str:
    """A value in YAML's flow style, which JSON is a part of; plain words need no quotes."""
    if isinstance(value, str):
        plain = value.replace("_", "").replace(".", "").replace("/", "").replace("-", "")
        return value if plain.isalpha() else json.dumps(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_scalar(v) for v in value) + "]"
    return json.dumps(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def options_class(kind: str, name: str) -> type[Any]:
    """The options dataclass of a registered plug-in. Raises OptionsError if its class has none as `Options`."""
    plugin = load_plugin(kind, name)
    options = getattr(plugin, "Options", None)
    if not (isinstance(options, type) and is_dataclass(options)):
        raise OptionsError(f"{name} ({kind}): the class {plugin.__name__} needs its options dataclass as `Options`")
    return options


def _plugin_section(kind: str, name: str, where: str) -> str:
    plugin, options = load_plugin(kind, name), options_class(kind, name)
    hints = get_type_hints(options)
    rows = [
        (f"`{f.name}`", expected(hints[f.name]), _option_default(f), f.metadata.get("doc", "")) for f in fields(options)
    ]
    singular = {"strategies": "strategy"}.get(kind, kind.rstrip("s"))
    title = f"## Options of the {singular} `{name}`"
    table = list(_table(("Key", "Type", "Default", "Meaning"), rows)) if rows else ["It has no options."]
    summary = f"In `{where}`. {plugin.summary[:1].upper()}{plugin.summary[1:].rstrip('.')}."
    return "\n".join([title, "", summary, "", *table, ""])


def _option_default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"`{_scalar(field.default)}`"
    return "required" if field.default_factory is MISSING else f"`{_scalar(field.default_factory())}`"


def _yaml(name: str, field: FieldInfo, evaluator: str) -> Iterable[str]:
    yield from _comment(field.description or "", "")
    section = model_of(field.annotation)
    if section is None:
        value = field.get_default(call_default_factory=True)
        yield f"#{name}: my-campaign" if name == "name" else f"{name}: {_scalar(value)}"
        return
    listed = field.default == ()
    mark = "#" if listed else ""
    yield f"{mark}{name}:"
    first = True
    for key, inner in section.model_fields.items():
        if issubclass(section, _PluginConfig) and key == "options":
            continue
        indent = ("- " if first else "  ") if listed else "  "
        yield from _comment(inner.description or "", "" if listed else "  ")
        yield f"{mark}{indent}{key}: {_scalar(_example(key, inner, evaluator, listed))}"
        first = False


def _example(key: str, field: FieldInfo, evaluator: str, listed: bool) -> Any:
    if key == "evaluator":
        return "preference.sentiment" if listed else evaluator
    if field.is_required() or (listed and field.examples):
        return (field.examples or [None])[0]
    return field.get_default(call_default_factory=True)


def _comment(text: str, indent: str) -> Iterable[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH)]


if __name__ == "__main__":
    sys.stdout.write(reference())
