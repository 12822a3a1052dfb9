import shutil
import subprocess
import sys

import pytest

from evaluators.options import OptionsError
from evaluators.preference.sentiment import SentimentEvaluator


def files(cache):
    return {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_second_preparation_reads_the_first_ones_files(evaluator, small, sentiment_cache):
    before = files(sentiment_cache)
    said = []
    again = SentimentEvaluator(small, sentiment_cache)
    assert again.prepare(said.append) == evaluator.prepare()
    assert files(sentiment_cache) == before
    assert said == []  # nothing was read, fitted or trained


def test_trial_options_share_a_preparation_and_others_do_not(evaluator, small, sentiment_cache):
    before = files(sentiment_cache)
    SentimentEvaluator({**small, "betas": [3.0], "steps": 2, "lr": 1e-4}, sentiment_cache).prepare()
    assert files(sentiment_cache) == before
    SentimentEvaluator({**small, "prepare_seed": 1}, sentiment_cache).prepare()
    assert len(files(sentiment_cache)) == len(before) + 2


@pytest.mark.parametrize("name", ["tensors.safetensors", "manifest.json"])
def test_a_damaged_cache_is_built_again(evaluator, small, sentiment_cache, tmp_path, name):
    cache = tmp_path / "cache"
    shutil.copytree(sentiment_cache, cache)
    damaged = list(cache.rglob(name))
    good = {path: path.read_bytes() for path in damaged}
    for path, content in good.items():
        path.write_bytes(content[: len(content) // 2] + b"x" + content[len(content) // 2 + 1 :])
    assert SentimentEvaluator(small, cache).prepare() == evaluator.prepare()
    assert any(path.read_bytes() == content for path, content in good.items())


def test_processes_that_start_together_prepare_once(tmp_path):
    program = """
import sys, time
from pathlib import Path
import torch
from evaluators.disk_cache import load_or_build

folder = Path(sys.argv[1])

def build():
    print("built")
    while not (folder / "other waits").exists():
        time.sleep(0.01)
    return {"tensor": torch.arange(4)}, {"value": 5}

(tensors, values) = load_or_build(folder / "entry", build, lambda line: (folder / "other waits").touch())
print(tensors["tensor"].tolist(), values)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = [process.communicate(timeout=120)[0].splitlines() for process in running]
    finally:
        for process in running:
            process.kill()
    assert sorted(said, key=len) == [["[0, 1, 2, 3] {'value': 5}"], ["built", "[0, 1, 2, 3] {'value': 5}"]]


def test_an_unwritable_cache_is_one_clear_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionsError, match="set OBJECTIVE_DISCOVERY_CACHE") as caught:
        SentimentEvaluator(small, tmp_path / "file").prepare()
    assert "\n" not in str(caught.value)
