"""A real headless browser that reports everything its console says and every request that would leave this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@dataclass
class Watch:
    """What went wrong in pages so far."""

    base: str
    console: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> Page:
        page.on("console", lambda m: self.console.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: self.console.append(str(e)))
        page.on("request", lambda r: None if self._is_local(r.url) else self.outside.append(r.url))
        return page

    def require_clean(self) -> None:
        assert (self.console, self.outside) == ([], []), f"console: {self.console}, requests elsewhere: {self.outside}"

    def _is_local(self, url: str) -> bool:
        return url.startswith((f"{self.base}/", "data:", "blob:"))


def executable() -> str:
    """Where the browser is. Skips the test that asks where there is none."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here: `make browser` installs one, or set CHROMIUM to its path")
    return found


@contextmanager
def browser_page(watch: Watch, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """One page in an empty profile."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=list(OPTIONS))
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        context.set_default_timeout(15_000)
        yield watch.watch(context.new_page())
        browser.close()
