"""What people write means what they meant, or is refused in one line: in a file, in `--set`, and from Python."""

from __future__ import annotations

import copy
import pickle
import re
import time
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import pytest

from discovery.config import CampaignConfig, ConfigError, load_config, make_config
from discovery.config_input import MAX_BYTES, apply_overrides, parse_yaml
from discovery.config_reference import PLUGIN_KINDS, options_class
from discovery.proposers.openai import OpenAIOptions
from evaluators.options import OptionsError, option, parse_options
from evaluators.plugins import plugin_names
from evaluators.written import settle

MINIMAL = "objective: {evaluator: preference.enumerable}\n"
MODEL = {"model": "m", "api_key_env": "none"}


@pytest.fixture
def loaded(tmp_path):
    def _loaded(text: str, *overrides: str) -> CampaignConfig:
        path = tmp_path / "run.yaml"
        path.write_text(MINIMAL + text, encoding="utf-8")
        return load_config(path, overrides)

    return _loaded


def value_at(config: CampaignConfig, key: str) -> Any:
    here: Any = config
    for part in key.split("."):
        here = here[int(part)] if part.isdigit() else getattr(here, part)
    return here


AS_WRITTEN = [
    ("budget.candidates", "1e3", 1000),
    ("budget.candidates", "12.0", 12),
    ("budget.candidates", "none", None),
    ("budget.candidates", "None", None),
    ("budget.candidates", "~", None),
    ("budget.candidates", "", None),
    ("budget.tokens", "2_500_000", 2_500_000),
    ("budget.tokens", "1.5E6", 1_500_000),
    ("budget.tokens", "0x40", 64),
    ("budget.wall_s", ".5", 0.5),
    ("budget.wall_s", "6e1", 60.0),
    ("budget.wall_s", "1_000.25", 1000.25),
    ("seed", "08", 8),
    ("seed", "007", 7),
    ("objective.seeds", "1e1", 10),
    ("objective.metric", "NULL", None),
    ("name", "yes", "yes"),
    ("name", "off", "off"),
    ("name", "2024-01-31", "2024-01-31"),
    ("name", "010", "010"),
    ("name", "1_0", "1_0"),
    ("name", "12e4", "12e4"),
    ("log_dir", "1:30", "1:30"),
    ("archive", "=", "="),
    ("workers.ray_address", "None", None),
    ("start_from", "[1234567890, 0123456701, 12e4567890, 0e12345678]",
     ("1234567890", "0123456701", "12e4567890", "0e12345678")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "written", "meant"), AS_WRITTEN)
def test_a_value_means_what_its_type_makes_of_it(loaded, key, written, meant):
    stops = "" if key.startswith("budget.") else "budget.proposals=7"
    overrides = [s for s in (stops, "budget.proposals=9") if s]
    section, _, last = key.rpartition(".")
    text = f"{section}: {{{last}: {written}}}\n" if section else f"{last}: {written}\n"
    by_set = loaded("", *overrides, f"{key}={written}")
    found = [value_at(by_set, key)]
    if section != "objective":
        found.append(value_at(loaded(text, *overrides), key))
    for value in found:
        assert value == meant
        assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [("json_mode", "off", "off"), ("json_mode", "On", "on"), ("json_mode", False, "off"), ("json_mode", True, "on"),
     ("send_seed", "yes", True), ("send_seed", "off", False), ("send_seed", False, False),
     ("max_tokens", "none", None), ("max_tokens", "null", None), ("max_tokens", 2e3, 2000), ("max_tokens", None, None),
     ("api_key_env", "None", None), ("api_key_env", "null", None), ("api_key_env", None, None),
     ("base_url", "none", None), ("temperature", "none", None), ("temperature", 1, 1.0),
     ("reasoning_effort", "none", "none"), ("reasoning_effort", None, None)],
)  # fmt: skip
def test_options_of_a_plug_in_take_what_their_documentation_says(loaded, key, value, meant):
    """As Python values, and as the same words in YAML, in a file and in `--set`."""
    word = {None: "null", True: "on", False: "off"}.get(value, str(value)) if not isinstance(value, int | float) or (
        isinstance(value, bool)
    ) else str(value)  # fmt: skip
    ways = [
        {key: value},
        loaded(f"proposer: {{kind: openai, {key}: {word}}}").proposer.options,
        loaded("", "proposer.kind=openai", f"proposer.{key}={word}").proposer.options,
        make_config({"objective": {"evaluator": "preference.enumerable"}, "proposer": {"kind": "openai", key: value}})
        .proposer.options,
    ]  # fmt: skip
    for given in ways:
        found = getattr(parse_options(OpenAIOptions, {**MODEL, **given}, "openai"), key)
        assert found == meant
        assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 010", "run.yaml: seed: `010` in line 2 may mean 10 or, as an octal number, 8: write 10"),
        ("budget:\n  candidates: -0_12", "budget.candidates: `-0_12` in line 3 may mean -12 or"),
        ("budget: {wall_s: 1:30}", "`1:30` in line 2 may be counted in sixties (90) or text: write the number"),
        ("objective: {evaluator: preference.enumerable, seeds: [1, 020]}", "given twice"),
        ("proposer: {kind: openai, extra_body: {k: 010}}", "proposer.options: `010` in line 2 may mean 10"),
        ("seed: yes", "seed takes a whole number, not 'yes'"),
        ("seed: 1,000", "seed takes a whole number, not '1,000'"),
        ("seed: 1e400", "seed: must be a finite number, not inf"),
        ("proposer: {kind: openai, timeout_s: .inf}", "proposer.options: must be a finite number"),
        ("name: true", "name takes text, not true; quote it"),
        ("budget: {tokens: 1.5}", "budget.tokens takes a whole number or null, not 1.5"),
        ("budget: {candidates: 1e20}", "budget.candidates takes a whole number or null, not 1e+20"),
        ("on: 1", "unknown key 'on'"),
        ("null: 1", "line 2, column 1: the key null is not text; quote it"),
        ("? [a, b]\n: 1", "the key of several values is not text"),
        ("seed: !!python/object/apply:os.system [ls]", "the tag"),
        ("seed: !!python/name:os.system", "the tag 'tag:yaml.org,2002:python/name:os.system' means nothing here"),
        ("start_from: !!set {a}", "line 2, column 13: the tag 'tag:yaml.org,2002:set' means nothing here"),
        ("budget:\n\tcandidates: 3", "line 3, column 1: a tab; indent with spaces"),
        ("---\nname: b", "line 2, column 1: a second document begins here"),
        ("seed: 1\n...\ntrailing garbage", "expected '<document start>'"),
        ("name: 'open", "line 2"),
        ("name: *nowhere", "undefined alias"),
        ("budget: {candidates: 1, candidates: 2}", "line 2, column 25: the key 'candidates' is given twice"),
        ("name: a\x00b", "not valid YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(loaded, text, said):
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_so_is_it_in_an_override(loaded):
    for setting, said in [("seed=010", "`010` in line 1 may mean"), ("seed=!!omap [a: 3]", "--set seed, line 1"),
                          ("budget.wall_s=.nan", "finite"), ("proposer.a=[1", "--set proposer.a, line 1")]:  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            loaded("", setting)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["m0: &m0 {x: 1}"]
    lines += [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(12),
        merges(12),
        laughs(1000),
        "a: " + "[" * 50_000,
        "- " * 50_000,
        "? " * 50_000,
        "a: {" * 50_000,
        "x: " + "y" * MAX_BYTES,
    ],
)
def test_bombs_cost_a_moment(loaded, text):
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.monotonic() - start < 10


def test_anchors_and_merge_keys_are_for_people_who_repeat_themselves(loaded):
    config = loaded(
        "promotions:\n- &one {evaluator: preference.sentiment, baselines: [dpo], top: 3}\n- {<<: *one, seeds: [7], top: 1}\n"
    )
    assert [(p.top, p.seeds) for p in config.promotions] == [(3, 2), (1, (7,))]


@pytest.mark.parametrize(
    "text", ["\ufeffseed: 3\nname: x\n", "seed: 3\r\nname: x\r\n", "\ufeff---\r\nseed: 3\r\nname: x\r\n...\r\n"]
)
def test_marks_and_line_ends_of_other_systems_change_nothing(tmp_path, text):
    path = tmp_path / "windows.yaml"
    path.write_bytes((text + MINIMAL if "..." not in text else text.replace("...", MINIMAL)).encode())
    config = load_config(path)
    assert (config.seed, config.name) == (3, "x")


def test_numbers_that_remember_their_text_survive_copies_and_nothing_else_sees_them():
    data = parse_yaml("{a: 1_0, b: 1.5, c: 010}", "here")
    for copied in (copy.deepcopy(data), pickle.loads(pickle.dumps(data)), apply_overrides(data, [])):
        assert (copied["a"].text, copied["b"].text, copied["c"].why) == ("1_0", "1.5", data["c"].why)
    config = make_config({"objective": {"evaluator": "preference.enumerable", "options": {"steps": data["a"]}}})
    assert type(config.objective.options["steps"]) is int


def test_every_word_that_the_reference_documents_is_accepted():
    """Where an option's text says what `none` or `off` does, these words reach it as that."""
    documented = 0
    for kind in PLUGIN_KINDS:
        for name in plugin_names(kind):
            options = options_class(kind, name)
            hints = get_type_hints(options)
            for field in fields(options):
                for word in set(re.findall(r"\bnone\b|\bnull\b|\boff(?=,)", field.metadata["doc"])):
                    meant = settle(hints[field.name], word, field.metadata["words"])
                    assert meant == word if word in field.metadata["words"] else meant is None, (name, field.name, word)
                    documented += 1
    assert documented >= 8


def test_a_number_that_is_not_finite_is_none_of_an_option_s_values():
    @dataclass(frozen=True)
    class Options:
        rate: float = option(1.0, "a rate")

    for value in (float("nan"), float("inf")):
        with pytest.raises(OptionsError, match="finite"):
            parse_options(Options, {"rate": value}, "owner")
