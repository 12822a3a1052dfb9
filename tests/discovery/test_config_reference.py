import re
import subprocess
import sys
from pathlib import Path

import yaml

from discovery.config import CampaignConfig, load_config, make_config
from discovery.config_errors import model_of
from discovery.config_reference import default_config_text, reference

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        section = model_of(field.annotation)
        yield f"{prefix}{name}"
        if section:
            listed = field.default == ()
            yield from keys(section, f"{prefix}{name}.N." if listed else f"{prefix}{name}.")


def test_the_committed_reference_is_the_generated_one():
    assert DOCS.read_text(encoding="utf-8") == reference(), (
        "run: python -m discovery.config_reference > docs/configuration.md"
    )


def test_every_key_is_documented():
    text = reference()
    for key in keys(CampaignConfig):
        if key not in ("proposer.options", "strategy.options"):
            row = re.search(rf"^\| `{re.escape(key)}` \|.*\| (.+) \|$", text, re.MULTILINE)
            assert row, key
            assert len(row.group(1)) > 5, key


def test_every_option_of_a_plug_in_has_a_meaning():
    rows = [line for line in reference().split("\n") if line.startswith("| `")]
    assert len(rows) > 60
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_starter_file_is_a_campaign_with_the_defaults(tmp_path):
    path = tmp_path / "starter.yaml"
    path.write_text(default_config_text(), encoding="utf-8")
    plain = make_config({"objective": {"evaluator": "preference.enumerable"}}, default_name="starter")
    assert load_config(path) == plain


def test_every_line_of_the_starter_file_can_be_switched_on(tmp_path):
    text = re.sub(r"^#(?=\S)", "", default_config_text(), flags=re.MULTILINE)
    path = tmp_path / "all.yaml"
    path.write_text(re.sub(r"^#(?=  )", "", text, flags=re.MULTILINE), encoding="utf-8")
    config = load_config(path)
    assert config.name == "my-campaign"
    assert [p.evaluator for p in config.promotions] == ["preference.sentiment"]
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(given) == set(CampaignConfig.model_fields)


def test_writing_the_starter_file_imports_nothing_heavy():
    code = "import sys; from discovery.config_reference import default_config_text as t; t(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
