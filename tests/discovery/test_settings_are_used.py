"""Every setting that can be written is read by something: one that is accepted and forgotten fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

import discovery
import evaluators
from discovery.config import CampaignConfig, PromptsConfig, _PluginConfig
from discovery.config_errors import model_of
from discovery.config_reference import PLUGIN_KINDS, options_class
from discovery.prompts.builder import KINDS
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin, plugin_names
from evaluators.preference.sentiment.data import Source
from evaluators.preference.sentiment.options import SentimentOptions
from tests.support.command import discovery as discovery_command
from tests.support.small_archive import WINNER, make_archive

DECLARED = {"config.py", "config_reference.py", "options.py"}  # there a name stands because it is declared


def models(model: type[BaseModel] = CampaignConfig) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if (section := model_of(field.annotation)) is not None:
            yield from models(section)


@cache
def read_in(folder: Path) -> frozenset[str]:
    """Names that are read as attributes, keyword arguments taken apart, or keys, in a package."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                is_own = path.name in DECLARED and isinstance(node.value, ast.Name) and node.value.id == "self"
                found |= set() if is_own else {node.attr}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return frozenset(found)


@pytest.mark.parametrize("model", dict.fromkeys(models()), ids=lambda m: m.__name__)
def test_every_key_of_the_file_is_read(model):
    read = read_in(Path(discovery.__file__).parent) | {"seeds", "trial_s", "call_s", "memory_mb", *KINDS}
    for name in model.model_fields:
        assert name in read or (issubclass(model, _PluginConfig) and name == "options"), name


def test_seeds_and_limits_are_read_where_they_are_turned_into_something_else():
    config = CampaignConfig.model_validate({"objective": {"evaluator": "x", "seeds": 3}, "limits": {"call_s": 1.0}})
    assert config.objective.seed_list == (0, 1, 2)
    assert config.limits.sandbox().call_s == 1.0
    read = read_in(Path(discovery.__file__).parent)
    assert {"seed_list", "sandbox"} <= read


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in PLUGIN_KINDS for n in plugin_names(k)])
def test_every_option_of_a_plug_in_is_read_in_its_package(kind, name):
    package = (evaluators if kind == "evaluators" else discovery).__file__
    read = read_in(Path(package).parent)
    assert load_plugin(kind, name)
    for field in fields(options_class(kind, name)):
        if field.name == "fidelity":  # has one value, and another is refused
            continue
        assert field.name in read or f"used_{field.name}" in read, field.name


def test_templates_are_looked_up_by_their_keys():
    assert set(PromptsConfig.model_fields) == set(KINDS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "test"}, "split has no effect on data 'imdb'"),
        ({"text_column": "review"}, "text_column has no effect"),
        ({"data": "rotten_tomatoes", "label_column": "stars"}, "label_column has no effect on data 'rotten_tomatoes'"),
        ({"data": "mine.csv", "split": "test"}, "split has no effect on data 'mine.csv'"),
    ],
)
def test_options_of_data_that_other_data_have_are_refused(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("text,label\n")
    with pytest.raises(OptionsError, match=said):
        Source(SentimentOptions(**options))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lrml", "--force"), "--force has no effect without -o FILE"),
        (("lrml", "--campaign", "small"), "--campaign looks into an archive for lrml"),
        (("lrml", "--campaign", "small", "--archive", "ARCHIVE"), "the campaign 'small' has no lrml"),
        (
            (WINNER.short_id, "--contract", "preference.unpaired", "--archive", "ARCHIVE"),
            "is for preference.pairs, not",
        ),
    ],
)
def test_options_of_export_that_would_be_forgotten_are_refused(words, said, tmp_path):
    archive = make_archive(tmp_path / "small.db")
    ended = discovery_command("export", *(archive if w == "ARCHIVE" else w for w in words))
    assert ended.code == 2
    assert said in ended.error


def test_two_forms_of_one_output_exclude_each_other():
    ended = discovery_command("objectives", "bench", "--json", "--markdown", "--seeds", "1")
    assert (ended.code, ended.error) == (2, "error: --json and --markdown exclude each other")
