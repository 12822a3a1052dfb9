"""Why a campaign ended, and how many of its proposals were copies: stored, and said wherever it is shown."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from db.checking import check
from db.endings import Ending, Reason, ending_of
from discovery import ending
from discovery.campaign import Campaign, CampaignResult
from discovery.cli.views import panel
from discovery.config import BudgetConfig
from discovery.copies import Copies
from discovery.ledger import Ledger
from discovery.progress import Progress
from discovery.protocols import Prices, ProposerError, ProposerExhausted
from discovery.search import SearchError
from sandbox.failure import InfrastructureError, PluginError
from tests.support.campaigns import config, endpoint, kept, reply
from tests.support.chat_server import ChatServer
from tests.support.command import discovery
from tests.support.losses import KNOWN, rescaled
from tests.support.small_archive import make_archive

NO_COPIES = Copies()
SOFT = "return F.softplus(-beta * d) + 0.3 * F.softplus(1.0 - beta * d) ** 2"


def circles(body: dict[str, Any], number: int) -> str:
    """One new loss, then copies: each third of DPO, the others of that loss."""
    if number % 3 == 2:
        code = rescaled(KNOWN["dpo"], 1.0 + number / 10).source
        return json.dumps({"name": f"dpo_{number}", "thought": "", "code": code})
    return reply(f"soft_{number}", SOFT, note=f"written for the {number}th time")


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CampaignResult, Progress]:
    folder = tmp_path_factory.mktemp("stalled")
    with ChatServer(reply=circles) as server:
        budget = {"candidates": 4, "proposals": 9}
        campaign = Campaign(config(folder, proposer=endpoint(server.base_url), budget=budget, baselines=["dpo"]))
        return folder / "archive.db", campaign.run(), campaign.progress


WHY = "the search stalled: 8 of 9 proposals were copies: 3 of known losses, 5 of this campaign's own"


def test_a_search_that_goes_round_in_circles_says_so(stalled) -> None:
    path, result, progress = stalled
    assert result.status == "finished"
    assert result.ending.reason is Reason.STALLED
    assert result.ending.detail.startswith(WHY)
    assert "1 of 4 losses accepted" in result.ending.detail
    assert kept(path).ended == result.ending
    assert progress.copies == Copies(known=3, own=5)
    assert list(check(path)) == []


@pytest.mark.parametrize("command", [["stats"], ["leaderboard"], ["tail"], ["show", "soft_0"]])
def test_every_command_says_why_it_ended(command, stalled) -> None:
    where = ("--campaign", "small") if command[0] == "show" else ("small",)
    said = discovery(*command, *where, "--archive", stalled[0])
    assert WHY in " ".join(said.stdout.split()), said
    values = discovery(*command, *where, "--archive", stalled[0], "--json").stdout
    last = json.loads(values.splitlines()[-1] if command == ["tail"] else values)
    found = last["ended"]
    assert (found["reason"], found["detail"][: len(WHY)]) == ("stalled", WHY)


def test_listings_have_it_too(stalled) -> None:
    (listed,) = json.loads(discovery("campaigns", "--archive", stalled[0], "--json").stdout)
    assert listed["ended"]["reason"] == "stalled"
    (row,) = csv.DictReader(io.StringIO(discovery("campaigns", "--archive", stalled[0], "--csv").stdout))
    assert row["end_reason"] == "stalled"
    assert row["end_detail"].startswith(WHY)
    assert "search stalled" in " ".join(discovery("campaigns", "--archive", stalled[0]).stdout.split())


def test_copies_are_split_by_proposer_and_in_the_panel(stalled) -> None:
    path, _, progress = stalled
    values = json.loads(discovery("stats", "small", "--archive", path, "--json").stdout)
    assert values["copies"] == {"known": 3, "own": 5}
    (listed,) = json.loads(discovery("campaigns", "--archive", path, "--json").stdout)
    assert {**values["campaign"], "leader": listed["leader"]} == listed
    board = json.loads(discovery("leaderboard", "small", "--archive", path, "--json").stdout)
    assert all(board[key] == values[key] for key in ("ended", "proposals", "copies"))
    (proposer,) = values["proposers"]
    assert proposer["copies"] == {"known": 3, "own": 5}
    text = discovery("stats", "small", "--archive", path).stdout
    assert "3 of known losses, 5 of this campaign's own" in text
    shown = panel(progress, [], "small", True).renderable.renderables[0]  # type: ignore[attr-defined]
    assert any("3 of known losses, 5 of" in str(cell) for cell in shown.columns[1].cells)


def test_the_dashboard_says_it(stalled) -> None:
    from db.archive import Archive
    from discovery.web import overview
    from discovery.web.rendering import page

    with Archive(stalled[0]) as archive:
        values = overview.campaign(archive, "small")
        assert WHY in values["live"]["end"][0]
        bars = values["live"]["charts"]["failures"]["data"][0]
        assert {"copy of a known loss", "copy of its own"} <= {*map(str, bars["x"]), *map(str, bars["y"])}
        common = {"archive": "a", "version": "1", "plotly": "1", "style_ids": ()}
        html = page("campaign.html", common | values)
    assert "the search stalled" in html


def searched(
    ledger: Ledger, exhausted: ProposerExhausted | None = None, copies: Copies = NO_COPIES, proposals: int = 0
) -> Ending:
    """The ending of a search with this ledger. Only what `of_search` reads is there."""
    parts = SimpleNamespace(
        stage=SimpleNamespace(seeds=(0, 1)),
        progress=SimpleNamespace(proposals=proposals),
        config=SimpleNamespace(budget=SimpleNamespace(wall_s=60.0)),
    )
    return ending.of_search(SimpleNamespace(parts=parts, ledger=ledger, exhausted=exhausted, copies=copies))  # type: ignore[arg-type]


def test_each_budget_is_named_with_what_was_used() -> None:
    def ledger(**limits: Any) -> Ledger:
        return Ledger(BudgetConfig(**{"candidates": None, **limits}), prices=Prices(1.0, 1.0))

    candidates = ledger(candidates=3)
    candidates.accepted = 3
    proposals = ledger(candidates=2)
    for _ in range(20):
        proposals.take_question()
    tokens = ledger(tokens=1000)
    tokens.tokens, tokens._dearest = 900, 200
    usd = ledger(usd=1.0)
    usd.usd, usd._dearest_usd = 0.95, 0.1
    device = ledger(device_hours=0.01)
    device.trained(35.0, 2)
    for found, reason, said in (
        (candidates, Reason.CANDIDATES, "3 of 3 losses accepted"),
        (proposals, Reason.PROPOSALS, "20 of 20 proposals made (10 for each of budget.candidates)"),
        (tokens, Reason.TOKENS, "900 of 1,000 tokens"),
        (usd, Reason.USD, "0.95 of 1.0 US dollars"),
        (device, Reason.DEVICE_HOURS, "device-hours"),
        (ledger(wall_s=60.0), Reason.WALL, "60 s"),
    ):
        ended = searched(found)
        assert ended.reason is reason
        assert said in ended.detail
        assert f"budget.{reason}" in ended.detail
    assert searched(proposals, copies=Copies(6, 5), proposals=20).reason is Reason.STALLED
    assert searched(proposals, copies=Copies(5, 5), proposals=20).reason is Reason.PROPOSALS
    assert "0: nothing was to be proposed" in searched(ledger(candidates=0)).detail
    none = searched(ledger(wall_s=1.0), ProposerExhausted("the recording ends after reply 3"))
    assert (none.reason, none.detail.endswith("ends after reply 3")) == (Reason.EXHAUSTED, True)


def test_errors_have_their_reasons() -> None:
    from evaluators.options import OptionsError

    for error, reason in (
        (SearchError("wrong key"), Reason.PROPOSER),
        (InfrastructureError("Ray is gone"), Reason.FAULT),
        (PluginError("their evaluator has no attribute x"), Reason.PLUGIN),
        (OptionsError("no such file"), Reason.SETTINGS),
        (RuntimeError("a bug"), Reason.FAULT),
    ):
        assert ending.of_error(error).reason is reason
        assert str(error) in ending.of_error(error).detail
    assert "unexpected" in ending.of_error(RuntimeError("a bug")).detail


def test_a_proposer_that_gives_up_is_the_stored_reason(tmp_path: Path) -> None:
    class Refused(Campaign):
        async def preflight(self) -> bool:
            raise ProposerError("the key is refused (401)", fatal=True)

    with pytest.raises(SearchError):
        Refused(config(tmp_path)).run()
    found = kept(tmp_path / "archive.db")
    assert found.status == "stopped by an error"
    assert found.ended == Ending(Reason.PROPOSER, "the key is refused (401)")


def test_impossible_and_unknown_reasons_are_found(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "small.db")
    for column, value, said in (
        ("end_reason", None, "ended for no reason"),
        ("end_reason", "boredom", "does not know"),
        ("finished_at", None, "has not ended and says why"),
    ):
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE campaigns SET {column} = ?", (value,))
        assert any(said in problem.what for problem in check(path)), said
    assert ending_of("boredom", "x") == Ending(Reason.UNRECORDED, "x")


def test_hostile_reasons_are_harmless(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "small.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE campaigns SET end_reason = 'fault', end_detail = ?", ("\x1b[2J\u202e\x07gone",))
    for command in (["campaigns"], ["stats", "small"], ["leaderboard", "small"], ["tail", "small"], ["show", "winner"]):
        said = discovery(*command, "--archive", path)
        assert "gone" in said.stdout, said
        assert not set("\x1b\u202e\x07") & set(said.stdout)


def test_nothing_is_said_of_copies_where_there_are_none() -> None:
    assert Copies().among(9) == ""
    assert Copies(own=2).among(4) == "2 of 4 proposals were copies: 2 of this campaign's own"
    assert not Copies(own=2).stalls(4)
