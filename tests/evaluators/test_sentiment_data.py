import csv
import json

import numpy as np
import pytest

from evaluators.options import OptionsError, parse_options
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.data import Source
from evaluators.preference.sentiment.options import SentimentOptions
from evaluators.preference.sentiment.vocabulary import build_vocabulary, words_of


def source(**options):
    return Source(parse_options(SentimentOptions, options, "preference.sentiment"))


@pytest.fixture(scope="module")
def reviews(imdb):
    """The first 150 different IMDb reviews of each label."""
    rows = []
    for wanted in (True, False):
        rows += [(t, y) for t, y in zip(imdb.texts, imdb.labels, strict=True) if y == wanted][:150]
    return rows


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def test_package_sets_have_the_known_sizes(imdb):
    snippets = source(data="rotten_tomatoes").load()
    assert len(imdb.texts) == 24_904  # 25,000 rows, 96 of them repeats
    assert sum(snippets.labels) == pytest.approx(4265, abs=5)
    assert not set(imdb.texts) & set(snippets.texts)


def test_package_provenance_names_source_and_hash():
    provenance = source().provenance
    assert "Maas et al. 2011" in provenance.source
    assert provenance.sha256 == "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"


def test_csv_jsonl_and_parquet_give_the_same_texts(tmp_path, reviews):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    write_csv(tmp_path / "a.csv", [(t, int(y)) for t, y in reviews], ("review", "sentiment"))
    lines = [json.dumps({"review": t, "sentiment": "pos" if y else "neg"}) for t, y in reviews]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    table = pyarrow.table({"review": [t for t, _ in reviews], "sentiment": [y for _, y in reviews]})
    parquet.write_table(table, tmp_path / "a.parquet")
    columns = {"text_column": "review", "label_column": "sentiment"}
    loaded = [source(data=str(tmp_path / f"a.{kind}"), **columns).load() for kind in ("csv", "jsonl", "parquet")]
    assert loaded[0] == loaded[1] == loaded[2]
    assert list(zip(loaded[0].texts, loaded[0].labels, strict=True)) == reviews


def test_the_task_changes_with_the_content_of_the_file(tmp_path, reviews):
    path = tmp_path / "a.csv"
    write_csv(path, reviews)
    first = SentimentEvaluator({"data": str(path)}).task.id
    write_csv(path, reviews[:-1])
    assert SentimentEvaluator({"data": str(path)}).task.id != first


def refusal(call):
    with pytest.raises(OptionsError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bad_files_are_refused_in_one_line(tmp_path, reviews):
    path = tmp_path / "a.csv"
    load = lambda **o: refusal(lambda: source(data=str(path), **o).load())  # noqa: E731
    assert "does not exist" in load()
    write_csv(path, reviews)
    assert "row 1 has no column 'review' (it has: label, text)" in load(text_column="review")
    write_csv(path, [*reviews, ("so so", "2")])
    assert "row 301 has the label '2'" in load()
    write_csv(path, reviews[:50])
    assert "50 different texts; at least 100" in load()
    write_csv(path, reviews[:150])
    assert "only one label" in load()
    path.write_bytes(b"text,label\n\xff\xfe,1\n")
    assert "cannot be read" in load()


def test_bad_json_lines_and_parquet_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine", "label": 1}\n{"text"\n')
    assert "cannot be read" in refusal(lambda: source(data=str(tmp_path / "a.jsonl")).load())
    (tmp_path / "b.jsonl").write_text("[1]\n")
    assert "line 1 is not a JSON object" in refusal(lambda: source(data=str(tmp_path / "b.jsonl")).load())
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"no parquet at all")
    assert "not readable as Parquet" in refusal(lambda: source(data=str(tmp_path / "a.parquet")).load())


def test_unknown_kinds_of_data_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("good\n")
    assert "must end in .csv, .jsonl, .parquet" in refusal(lambda: source(data=str(tmp_path / "a.txt")))
    assert "no known set (imdb, rotten_tomatoes)" in refusal(lambda: source(data="no such set!"))


def test_missing_extras_are_named(monkeypatch, tmp_path):
    import importlib.util
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "objective-discovery[data]" in refusal(lambda: source(data="someone/reviews"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "objective-discovery[imdb]" in refusal(lambda: source())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betaz": [1.0]}, "did you mean 'betas'"),
        ({"betas": []}, "betas is empty"),
        ({"betas": [0.1, 0.1]}, "betas must rise, each value once: 0.1"),
        ({"betas": [1.0, 0.1]}, "betas must rise, each value once: 0.1, 1"),
        ({"betas": [-1.0, 0.1]}, "betas must be positive, not -1"),
        ({"steps": 0}, "steps must be positive"),
        ({"width": 10, "heads": 3}, "multiple of twice the number of heads"),
        ({"pool_samples": 1}, "pool_samples must be at least 2"),
        ({"pool_pairs": 100}, "multiple of 32"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"samples": 600}, "at most pool_prompts 512"),
        ({"smallest_share": 1.0}, "must be below 1"),
        ({"batch": 4000, "train_pairs": 3000}, "at most train_pairs"),
        ({"held_out": 1.0}, "must be below 1"),
        ({"device": "tpu"}, "device must be one of"),
        ({"steps": "many"}, "takes a whole number"),
        ({"lr": float("nan")}, "lr: must be a finite number"),
        ({"lr": -1.0}, "lr must be positive"),
    ],
)
def test_bad_options_are_refused(options, message):
    assert message in refusal(lambda: SentimentEvaluator(options))


def test_words_keep_contractions_and_sentence_marks_and_drop_markup():
    assert words_of("It's GOOD!<br /><br />Don’t miss (really) 10/10.") == (
        ["it's", "good", "!", "don't", "miss", "really", "10", "10", "."]
    )


def test_vocabulary_counts_only_the_training_texts():
    texts = ["a a b . c", "d d d d", "a b"]
    vocabulary, encoded = build_vocabulary(texts, np.array([True, False, True]), 5)
    assert vocabulary.words == ("<pad>", "<unknown>", "<end>", "a", "b")
    assert [encoded[i].tolist() for i in range(3)] == [[3, 3, 4, 1, 1], [1, 1, 1, 1], [3, 4]]
    assert vocabulary.encode("b d a") == [4, 1, 3]
    assert vocabulary.decode([3, 4, 2, 0]) == "a b"
