"""The dashboard in a real headless browser: what a person does with it, without an error and without leaving the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser's driver comes with the extra [dev]")
from playwright.sync_api import Page, expect

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from tests.support.browser import Watch, browser_page, executable
from tests.support.dashboard import dashboard
from tests.support.growing_archive import MARKUP, Growing

DPO = known_objective(PAIRS.name, "dpo").candidate
DRAWN = ".plot .main-svg"


@dataclass(frozen=True)
class Scene:
    """A dashboard over an archive that grows, and a page in a browser."""

    base: str
    page: Page
    growing: Growing
    winner: Candidate
    watch: Watch

    def open(self, path: str) -> Page:
        answer = self.page.goto(f"{self.base}{path}", wait_until="networkidle")
        assert answer is not None
        assert answer.ok
        return self.page


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    executable()
    path = tmp_path_factory.mktemp("browser") / "growing.db"
    growing = Growing(path)
    winner = growing.propose(0, MARKUP, parents=(DPO.id,))
    growing.measure(winner, 0.8)
    growing.measure(growing.propose(1, "second", parents=(winner.id,)), 0.75)
    with dashboard(path) as running:
        watch = Watch(running.url)
        with browser_page(watch) as page:
            yield Scene(running.url, page, growing, winner, watch)
    growing.archive.close()


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    yield stage
    stage.watch.require_clean()


def test_pages_are_walked_by_links_alone(scene: Scene) -> None:
    page = scene.open("/")
    page.get_by_role("link", name="growing").click()
    expect(page.locator(DRAWN).first).to_be_visible()
    page.get_by_role("link", name="All candidates").click()
    page.get_by_role("link", name="second", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("second")
    page.get_by_role("link", name="Lineage").click()
    page.locator("svg.tree a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("dpo")
    expect(page.locator("svg.tree a")).to_have_count(3)


def test_lists_are_sorted_filtered_and_shared_by_their_address(scene: Scene) -> None:
    page = scene.open("/candidates?campaign=growing&col=final_kl")
    names = page.locator("tbody th a")
    expect(names.nth(1)).to_have_text("second")
    page.get_by_role("link", name="final_kl").click()
    expect(names.first).to_have_text("dpo")
    expect(page.locator("th[aria-sort=other]")).to_have_text("final_kl")
    page.get_by_label("Filter").fill("frontier > 0.72")
    page.get_by_label("Filter").press("Enter")
    expect(names).to_have_count(2)
    assert "sort=final_kl" in page.url
    address = page.url
    scene.open("/")
    page.goto(address)
    expect(names).to_have_text(["second", MARKUP[:47] + "…"])


def test_a_malformed_filter_is_told_on_the_page(scene: Scene) -> None:
    page = scene.page
    scene.open("/candidates")
    page.get_by_label("Filter").fill("frontier >")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be understood at character 11")
    refused = [m for m in scene.watch.console if "400 (Bad Request)" in m]
    assert refused == scene.watch.console  # the browser notes the status of the page itself, and nothing else
    scene.watch.console.clear()


def test_a_candidate_shows_hostile_text_to_the_letter_and_draws_its_curves(scene: Scene) -> None:
    page = scene.open(f"/candidate/{scene.winner.short_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(MARKUP[:70])
    expect(page.get_by_text("onerror=alert(1)").first).to_be_visible()
    assert page.locator("main img, main script:not([type='application/json'])").count() == 0
    assert page.locator("a[href*='evil.example'], .plot a").count() == 0
    expect(page.locator("#loss .scatterlayer .trace")).to_have_count(2)
    expect(page.locator("#slope .scatterlayer .trace")).to_have_count(2)
    expect(page.locator("#training-1 .scatterlayer .trace")).to_have_count(2)
    page.get_by_text("Reply of a-model").click()
    expect(page.locator("details[open] pre")).to_contain_text("onerror")
    page.get_by_text("Difference to parent dpo").click()
    expect(page.locator("details[open] .gi").first).to_be_visible()


def test_ticked_candidates_are_compared(scene: Scene) -> None:
    page = scene.open("/candidates?campaign=growing")
    page.get_by_label("compare second").check()
    page.get_by_label("compare dpo").check()
    page.get_by_role("button", name="Compare the ticked").click()
    expect(page.locator("#loss .scatterlayer .trace")).to_have_count(2)
    expect(page.get_by_role("row").filter(has_text="frontier").first).to_contain_text("worse")


def test_the_front_is_drawn_and_a_point_leads_to_its_loss(scene: Scene) -> None:
    page = scene.open("/pareto?campaign=growing")
    page.get_by_label("Across").select_option("final_kl")
    page.get_by_role("button", name="Draw").click()
    expect(page.locator("#pareto .scatterlayer .trace")).to_have_count(3)
    expect(page.locator("tbody tr")).to_have_count(3)  # worse in one is better in the other
    page.locator("#pareto .points path").first.hover(force=True)
    box = page.locator("#pareto .points path").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**/candidate/**")


def test_an_export_is_saved_as_a_file(scene: Scene, tmp_path: Path) -> None:
    page = scene.open(f"/candidate/{scene.winner.short_id}")
    with page.expect_download() as saved:
        page.get_by_role("link", name="python", exact=True).click()
    saved.value.save_as(tmp_path / "saved.py")
    assert "def loss(" in (tmp_path / "saved.py").read_text(encoding="utf-8")
    assert "/" not in saved.value.suggested_filename


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_pages_do_not_scroll_sideways_in_either_scheme(scene: Scene, scheme: str) -> None:
    page = scene.page
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 400, "height": 800})
    short = scene.winner.short_id
    paths = ("/", "/campaign?name=growing", "/candidates", f"/candidate/{short}", f"/candidate/{short}/lineage")
    for path in (*paths, "/pareto?campaign=growing", f"/compare?id={short}&id={DPO.short_id}"):
        scene.open(path)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(17, 21, 28)" if scheme == "dark" else "rgb(246, 247, 249)")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_keyboard_reaches_the_content(scene: Scene) -> None:
    page = scene.open("/candidates")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Campaign")).to_be_focused()


def test_a_running_campaign_moves_while_it_is_watched(scene: Scene) -> None:
    page, growing = scene.open("/campaign?name=growing"), scene.growing
    done = page.locator("#tiles .card").nth(3).locator(".value")
    before = int(done.inner_text())
    expect(page.locator("#idle")).to_be_visible()
    candidate = growing.propose(2, "third", parents=(scene.winner.id,))
    trial = growing.start(candidate, 0)
    expect(page.locator("#running")).to_contain_text("third")
    growing.finish(trial, 0, 0.9)
    growing.finish(growing.start(candidate, 1), 1, 0.9)
    expect(done).to_have_text(str(before + 2))
    expect(page.locator("#tiles .card").first).to_contain_text("0.9000")
    expect(page.locator("#idle")).to_be_visible()
    growing.archive.finish_campaign(growing.campaign, "finished")
    expect(page.locator("#status")).to_have_text("finished")
