from pathlib import Path

import pytest

from discovery.config import load_config

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_files_are_valid(path):
    config = load_config(path)
    assert config.promotions
    assert config.budget.candidates


def test_the_demo_needs_no_key_and_the_imdb_example_takes_any_endpoint():
    demo, imdb = (load_config(EXAMPLES[0].parent / name) for name in ("demo.yaml", "imdb.yaml"))
    assert demo.proposer.kind == "evolve"
    overrides = ("proposer.base_url=http://localhost:8000/v1", "proposer.model=m")
    local = load_config(EXAMPLES[0].parent / "imdb.yaml", overrides)
    assert local.proposer.options == {**imdb.proposer.options, "base_url": "http://localhost:8000/v1", "model": "m"}
