"""Screenshots for the documentation, of a dashboard that shows a real campaign.

python -m tests.web.screenshots runs/demo.db docs/images
"""

from __future__ import annotations

import sys
from pathlib import Path

from db.archive import Archive
from tests.support.browser import Watch, browser_page
from tests.support.dashboard import dashboard

NAMED = ("campaign", "candidates", "candidate", "compare", "pareto", "lineage")
VIEWS = ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark"))
HEIGHT = 1000


def addresses(archive: Path) -> dict[str, str]:
    """Pages of the newest campaign and of its best loss that is not a baseline."""
    with Archive(archive) as stored:
        campaign = stored.campaigns()[-1].name
        entries = stored.entries(campaign, limit=50)
    best = next(e for e in entries if e.origin != "known").candidate.short_id
    ids = "&".join(f"id={e.candidate.short_id}" for e in entries[:3])
    paths = (
        f"/campaign?name={campaign}", f"/candidates?campaign={campaign}&col=final_kl", f"/candidate/{best}",
        f"/compare?{ids}", f"/pareto?campaign={campaign}&x=final_kl&y=reward_at_kl1", f"/candidate/{best}/lineage",
    )  # fmt: skip
    return dict(zip(NAMED, paths, strict=True))


def take(archive: Path, folder: Path, names: set[str]) -> None:
    """One file for each page and view, `dashboard_NAME_SCHEME_WIDTH.png`; the page's upper part."""
    with dashboard(archive) as running:
        for width, scheme in VIEWS:
            watch = Watch(running.url)
            with browser_page(watch, width, scheme) as page:
                for name, path in addresses(archive).items():
                    if name in names:
                        page.goto(f"{running.url}{path}", wait_until="networkidle")
                        clip = {"x": 0, "y": 0, "width": width, "height": HEIGHT}
                        page.screenshot(
                            path=folder / f"dashboard_{name}_{scheme}_{width}.png", full_page=True, clip=clip
                        )
            watch.require_clean()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]), set(sys.argv[3:]) or set(NAMED))
