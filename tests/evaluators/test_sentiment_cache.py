import csv
import subprocess
import sys

import pytest

from evaluators.options import OptionsError
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.data import Source
from evaluators.preference.sentiment.options import SentimentOptions
from tests.support.sentiment_setup import SMALL


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options that read 600 real reviews from a file of their own."""
    reviews = Source(SentimentOptions()).load()
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([(reviews.texts[i], int(reviews.labels[i])) for i in range(0, 24_000, 40)])
    return {**SMALL, "data": str(path), "sft_steps": 5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def evaluator(small, cache):
    made = SentimentEvaluator(small, cache)
    made.prepare()
    return made


def files(cache):
    return {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_second_preparation_reads_the_first_ones_files(evaluator, small, cache):
    before = files(cache)
    assert len(before) == 2
    said = []
    again = SentimentEvaluator(small, cache)
    assert again.prepare(said.append) == evaluator.prepare()
    assert files(cache) == before
    assert said == []  # nothing was read, fitted or trained


def test_trial_options_share_a_preparation_and_others_do_not(evaluator, small, cache):
    before = files(cache)
    SentimentEvaluator({**small, "betas": [3.0], "steps": 2, "lr": 1e-4}, cache).prepare()
    assert files(cache) == before
    SentimentEvaluator({**small, "prepare_seed": 1}, cache).prepare()
    assert len(files(cache)) == 4


@pytest.mark.parametrize("name", ["tensors.safetensors", "manifest.json"])
def test_a_damaged_cache_is_built_again(small, tmp_path, name):
    facts = SentimentEvaluator(small, tmp_path).prepare()
    (path,) = tmp_path.rglob(name)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] + b"x" + good[len(good) // 2 + 1 :])
    assert SentimentEvaluator(small, tmp_path).prepare() == facts
    assert path.read_bytes() == good


def test_processes_that_start_together_prepare_once(small, tmp_path):
    program = (
        "import sys; from pathlib import Path; from evaluators.preference.sentiment import SentimentEvaluator;"
        f"SentimentEvaluator({small!r}, Path(sys.argv[1])).prepare(lambda line: print(line, flush=True))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum("fitting the sentiment classifier" in text for text in said) == 1
    assert len(files(tmp_path)) == 2


def test_an_unwritable_cache_is_one_clear_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionsError, match="set OBJECTIVE_DISCOVERY_CACHE") as caught:
        SentimentEvaluator(small, tmp_path / "file").prepare()
    assert "\n" not in str(caught.value)
