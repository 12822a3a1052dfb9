import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from discovery.config import ConfigError, load_config, make_config
from evaluators.options import OptionsError

MINIMAL = "objective: {evaluator: preference.enumerable}\n"


@pytest.fixture
def write(tmp_path):
    def _write(text: str, name: str = "my-run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def refusal(path, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_one_line_is_a_whole_campaign(write):
    config = load_config(write(MINIMAL))
    assert config.name == "my-run"
    assert config.objective.seed_list == (0, 1)
    assert config.objective.metric is None
    assert config.promotions == ()
    assert (config.proposer.kind, config.proposer.options) == ("evolve", {})
    assert config.strategy.kind == "conversation"
    assert config.budget.candidates == 20
    assert config.limits.sandbox().trial_s == 600.0
    assert config.baseline_names("preference.pairs") == ("dpo", "hinge", "ipo", "kto_pair", "lrml")


def test_every_section_is_read(write):
    text = """
name: imdb-openai
seed: 7
archive: postgresql://me@host/db
objective: {evaluator: preference.enumerable, metric: frontier, options: {steps: 200}, seeds: [3, 5]}
baselines: [dpo, lrml]
promotions:
- {evaluator: preference.enumerable, seeds: [7], baselines: [dpo]}
- {evaluator: preference.sentiment, metric: reward_at_kl, seeds: 3, top: 4, baselines: [dpo]}
proposer: {kind: openai, model: m, temperature: 1e-1}
strategy: {kind: conversation, full: 2}
budget: {candidates: null, wall_s: 60}
proposals: {in_flight: 9, max_repairs: 0}
workers: {gpus_per_trial: 0.25, ray_address: auto}
limits: {call_s: 1}
prompts: {user: mine.j2}
log_dir: logs
"""
    config = load_config(write(text))
    assert config.objective.options == {"steps": 200}
    assert config.objective.seed_list == (3, 5)
    assert [p.seed_list for p in config.promotions] == [(7,), (1000, 1001, 1002)]
    assert [p.top for p in config.promotions] == [2, 4]
    assert config.proposer.options == {"model": "m", "temperature": 0.1}
    assert config.budget.wall_s == 60.0
    assert config.workers.gpus_per_trial == 0.25
    assert config.baselines == ("dpo", "lrml")


def test_overrides_win_and_are_read_as_yaml(write):
    overrides = (
        "budget.candidates=3",
        "proposer.kind=openai",
        "proposer.model=gpt-4o",
        "proposer.base_url=http://127.0.0.1:8000/v1",
        "objective.seeds=[4, 5]",
        "promotions=[{evaluator: preference.sentiment, baselines: [dpo]}]",
        "promotions.0.baselines.0=lrml",
        "promotions.0.options.steps=9",
        "archive=",
        "archive=x=y.db",
    )
    config = load_config(write(MINIMAL + "budget: {candidates: 9, proposals: 5}\n"), overrides)
    assert (config.budget.candidates, config.budget.proposals) == (3, 5)
    assert config.proposer.options == {"model": "gpt-4o", "base_url": "http://127.0.0.1:8000/v1"}
    assert config.objective.seed_list == (4, 5)
    assert (config.promotions[0].baselines, config.promotions[0].options) == (("lrml",), {"steps": 9})
    assert config.archive == "x=y.db"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objectve: {}\n" + MINIMAL, "unknown key 'objectve'; did you mean 'objective'?"),
        (MINIMAL + "budget: {candidate: 3}", "unknown key 'budget.candidate' in budget; did you mean 'candidates'?"),
        (MINIMAL + "budget: {candidates: '20'}", "budget.candidates takes a whole number or null, not '20'"),
        (MINIMAL + "budget: {candidates: 2.5}", "budget.candidates takes a whole number or null, not 2.5"),
        (MINIMAL + "budget: {candidates: true}", "budget.candidates takes a whole number or null, not true"),
        (MINIMAL + "budget: 20", "budget takes a section of `key: value` lines, not 20"),
        (MINIMAL + "proposer: evolve", "proposer takes a section of `key: value` lines, not 'evolve'"),
        (MINIMAL + "budget: {wall_s: 0}", "budget.wall_s must be greater than 0, not 0"),
        (MINIMAL + "budget: {wall_s: .nan}", "budget.wall_s: must be a finite number, not nan"),
        (MINIMAL + "budget: {candidates: null}", "budget: needs at least one limit"),
        (MINIMAL + "baselines: [dpoo]", "baselines: no known objective 'dpoo'; did you mean 'dpo'?"),
        (MINIMAL + "baselines: [dpo, dpo]", "baselines: 'dpo' is listed twice"),
        (MINIMAL + "baselines: dpo", "baselines takes a list of text or null, not 'dpo'"),
        (MINIMAL + "baselines: [1]", "baselines: no known objective '1'"),
        (MINIMAL + "name: ../../etc/passwd", "name: takes letters, digits"),
        (MINIMAL + "seed: -1", "seed must be greater than or equal to 0, not -1"),
        ("seed: 1", "objective is missing"),
        ("objective: {}", "objective.evaluator is missing (Evaluator that trains and scores"),
        ("objective: {evaluator: preference.enumerabel}", "did you mean 'preference.enumerable'?"),
        (
            MINIMAL + "proposer: {kind: open-ai}",
            "proposer.kind: no 'open-ai' among the proposers; did you mean 'openai'?",
        ),
        (MINIMAL + "strategy: {kind: x}", "strategy.kind: no 'x' among the strategies"),
        ("objective: {evaluator: preference.enumerable, seeds: 0}", "objective.seeds: must be at least 1, not 0"),
        (
            "objective: {evaluator: preference.enumerable, seeds: [1, 1]}",
            "objective.seeds: takes at least one seed, each",
        ),
        ("objective: {evaluator: preference.enumerable, seeds: yes}", "objective.seeds: takes a count or a list"),
        (MINIMAL + "promotion: {}", "unknown key 'promotion'; did you mean 'promotions'?"),
        (MINIMAL + "promotions: {top: 1}", "promotions takes a list of sections, not a section"),
        (MINIMAL + "promotions: [x]", "promotions.0 takes a section of `key: value` lines, not 'x'"),
        (MINIMAL + "promotions: [{evaluator: preference.sentiment}]", "promotions.0.baselines is missing (Known"),
        (
            MINIMAL + "promotions: [{evaluator: preference.sentiment, baselines: [dpo], tip: 1}]",
            "unknown key 'promotions.0.tip' in promotions.0; did you mean 'top'?",
        ),
        (
            MINIMAL + "promotions: [{evaluator: preference.sentimental, baselines: [dpo]}]",
            "promotions.0.evaluator: no 'preference.sentimental' among the evaluators; did you mean",
        ),
        (
            MINIMAL + "promotions: [{evaluator: preference.enumerable, seeds: [1, 9], baselines: [dpo]}]",
            "promotions.0.seeds has 1, which the search itself uses",
        ),
        (MINIMAL + "seed: 1\nseed: 2", "line 3, column 1: the key 'seed' is given twice"),
        (MINIMAL + "budget: {a: 1", "line 2, column 14"),
        (MINIMAL + "seed: 2024-01-01", "seed takes a whole number, not '2024-01-01'"),
        (MINIMAL + "1: x", "the key 1 is not text"),
        (MINIMAL + "proposer: &a {kind: evolve, x: *a}", "line 2: it contains itself through an alias"),
        ("[" * 3000, "nested too deeply"),
        ("- 1", "takes `key: value` lines, not a list"),
        ("# nothing\n", "is empty"),
        ("", "is empty"),
    ],
)
def test_one_line_says_what_is_wrong(write, text, said):
    assert said in refusal(write(text))


def test_cycles_and_depth_are_refused_from_python_too():
    data = {"objective": {"evaluator": "preference.enumerable"}}
    data["objective"]["options"] = data
    with pytest.raises(ConfigError, match="nested too deeply"):
        make_config(data)


def test_several_errors_come_together(write):
    message = refusal(write(MINIMAL + "sed: 1\nbudget: {x: 1, candidates: a}\nlimits: {y: 2}\n"))
    assert message.count(";") >= 3
    assert message.endswith("and 1 more")


def test_files_that_cannot_be_read(write, tmp_path):
    assert "no config file" in refusal(tmp_path / "nowhere.yaml")
    assert "cannot read" in refusal(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refusal(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "--set takes key=value"),
        ("=3", "--set takes key=value"),
        ("a..b=3", "--set takes key=value"),
        ("seed.x=3", "seed is not a section"),
        ("objective.seeds.0=3", "objective.seeds is not a section"),
        ("baselines.5=dpo", "the list has the items 0 to 0, not '5'"),
        ("budgt.candidates=3", "unknown key 'budgt'; did you mean 'budget'?"),
        ("budget.candidats=3", "did you mean 'candidates'?"),
        ("name={", "--set name, line 1"),
    ],
)
def test_bad_overrides(write, override, said):
    assert said in refusal(
        write("objective: {evaluator: preference.enumerable, seeds: 2}\nseed: 1\nbaselines: [dpo]\n"), override
    )


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("proposer: {kind: openai, api_key: abcdefg}", "abcdefg"),
        ("proposer: {kind: openai, headers: {Authorization: Bearer xyzzy123}}", "xyzzy"),
        ("proposer: {kind: openai, extra: [sk-proj-abcdef0123456789]}", "abcdef0123"),
        ("proposer: {kind: openai, api_key_env: sk-abcdefgh12345678}", "abcdefgh"),
        ("proposer: {kind: openai, hf-token: [plain]}", "plain"),
        ("strategy: {kind: conversation, note: hf_abcdefghijklmnopqrstuv}", "abcdefghijkl"),
    ],
)
def test_literal_secrets_are_refused_and_never_repeated(write, text, secret):
    message = refusal(write(MINIMAL + text))
    assert "environment variable" in message
    assert secret not in message


def test_names_of_variables_and_token_counts_are_no_secrets(write):
    text = "proposer: {kind: openai, api_key_env: MY_KEY, max_tokens: 9, eos_token: x, api_key: null}\nbudget: {tokens: 5}\n"
    assert load_config(write(MINIMAL + text)).proposer.options["api_key_env"] == "MY_KEY"


def test_archive_from_the_environment(write, monkeypatch):
    path = write(MINIMAL + "archive: env:MY_ARCHIVE")
    assert "'MY_ARCHIVE', which is not set" in refusal(path)
    monkeypatch.setenv("MY_ARCHIVE", "postgresql://me:hunter22@host/db")
    config = load_config(path)
    assert config.archive == "postgresql://me:hunter22@host/db"
    assert "hunter22" not in str(config.public()) + repr(config)


def test_public_values_read_back_as_the_same_configuration(write):
    promotions = "promotions: [{evaluator: preference.sentiment, baselines: [dpo], seeds: [9]}]\n"
    config = load_config(write(MINIMAL + promotions + "proposer: {kind: openai, model: m}\n"))
    assert make_config(yaml.safe_load(yaml.safe_dump(config.public()))) == config


def test_it_is_frozen_and_one_error_type_is_enough(write):
    config = load_config(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    assert issubclass(ConfigError, OptionsError)


def test_plug_ins_by_module_are_left_to_the_campaign():
    config = make_config({"objective": {"evaluator": "mine:Evaluator"}, "proposer": {"kind": "a.b:C", "x": 1}})
    assert config.proposer.options == {"x": 1}


def test_importing_it_is_cheap():
    heavy = "[m for m in ('torch', 'ray', 'numpy', 'sqlalchemy', 'scipy', 'jinja2') if m in sys.modules]"
    code = f"import sys, discovery.config; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
