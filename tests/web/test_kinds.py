"""Losses that are told more than labels are marked on every page that shows a score of theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from tests.support.dashboard import Running, ask, dashboard
from tests.support.mixed_archive import PLAIN, TOLD, make_mixed

ODPO, DPO = (known_objective(PAIRS.name, name).candidate for name in ("odpo", "dpo"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with dashboard(make_mixed(tmp_path_factory.mktemp("kinds") / "mixed.db")) as found:
        yield found


@pytest.mark.parametrize(
    "page",
    [
        "/campaign?name=mixed",
        "/candidates?campaign=mixed",
        f"/candidate/{TOLD.short_id}",
        f"/compare?id={PLAIN.short_id}&id={TOLD.short_id}",
    ],
)
def test_they_are_tagged(running: Running, page: str) -> None:
    text = ask(running, page).text
    assert re.search(r'<span class="tag privileged" title="[^"]*tell more than labels do">privileged</span>', text)


def test_the_leaders_of_a_campaign_are_of_one_kind(running: Running) -> None:
    text = ask(running, "/campaign?name=mixed").text
    leaders, apart = (re.findall(r"<li>(.*?)</li>", block, re.DOTALL) for block in
                      re.findall(r'<ol class="leaders">(.*?)</ol>', text, re.DOTALL))  # fmt: skip
    assert "plain_one" in leaders[0]
    assert not any("privileged" in one for one in leaders)
    assert "told_scores" in apart[0]
    assert all("privileged" in one for one in apart)
    tiles = {t["label"]: t for t in json.loads(ask(running, "/campaign/live?name=mixed").text)["tiles"]}
    assert tiles["Leading loss"]["note"].startswith("plain_one: +")
    assert tiles["Leading baseline"]["note"].startswith("dpo")
    live = json.loads(ask(running, "/campaign/live?name=mixed").text)
    names = {trace["name"] for chart in ("leader", "scores") for trace in live["charts"][chart]["data"]}
    assert {"odpo (privileged)", "dpo", "baseline, privileged", "openai, privileged", "openai"} <= names


def test_the_listing_marks_exactly_them(running: Running) -> None:
    text = ask(running, "/candidates?campaign=mixed").text
    marked = {
        re.search(r">([a-z_]+)</a>", row).group(1): "tag privileged" in row  # type: ignore[union-attr]
        for row in re.findall(r"<tr>\s*<td><input.*?</tr>", text, re.DOTALL)
    }
    assert {n for n, is_marked in marked.items() if is_marked} == {"told_scores", "told_softly", "odpo", "mappo"}
    assert len(marked) == 8
    found = ask(running, "/candidates?campaign=mixed&where=privileged+%3D%3D+%22yes%22").text
    assert "plain_one" not in found
    assert "told_softly" in found


def test_what_is_not_like_with_like_is_said(running: Running) -> None:
    text = ask(running, f"/compare?id={DPO.short_id}&id={TOLD.short_id}&campaign=mixed").text
    assert "Not like with like: told_scores reads chosen_score, rejected_score" in text
    assert "better, unlike" in text
    alike = ask(running, f"/compare?id={ODPO.short_id}&id={TOLD.short_id}&campaign=mixed").text
    assert "unlike" not in alike
    one = ask(running, f"/candidate/{TOLD.short_id}?campaign=mixed").text
    assert "it reads chosen_score, rejected_score, which tell more than labels do" in one
    assert "Compare with odpo" in one
    assert "Compare with dpo" in ask(running, f"/candidate/{PLAIN.short_id}?campaign=mixed").text
    assert ", privileged</text>" in ask(running, f"/candidate/{TOLD.short_id}/lineage").text


def test_the_front_is_of_one_kind(running: Running) -> None:
    text = ask(running, "/pareto?campaign=mixed&x=final_kl&y=frontier").text
    assert "Of losses that see labels alone." in text
    assert "told_scores" not in text.split("The front</h2>")[1]
    assert "openai, privileged" in text


def test_the_list_of_campaigns_names_a_leader_that_may_lead(running: Running, tmp_path: Path) -> None:
    assert "plain_one" in ask(running, "/").text
    with dashboard(make_mixed(tmp_path / "about.db", ("odpo",))) as other:
        text = ask(other, "/").text
        assert "told_scores" in text
        assert "tag privileged" in text
