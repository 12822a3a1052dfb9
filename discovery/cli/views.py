"""Watching a campaign: a panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Protocol

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from discovery.cli.terminal import dollars, duration, number, signed, words
from discovery.progress import Event, Progress
from sandbox.text import one_line

REFRESH_PER_S = 4
EVENTS_SHOWN = 7
BASELINES_SHOWN = 8

_STYLES = {"accepted": "green", "scored": "bold green", "refused": "yellow", "failed": "red", "stage": "bold"}


class View(Protocol):
    """What `discovery run` shows while it runs. A context manager that is called with each event."""

    def watch(self, progress: Progress) -> None: ...
    def __call__(self, event: Event) -> None: ...
    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainView:
    """One line per event, flushed, with the elapsed time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()

    def watch(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        progress = self._progress
        pace = f"  ({progress.trials_done} done{_pace(progress)})" if event.kind == "trial" else ""
        self._line(event.kind, event.text + pace)
        if event.kind == "scored":
            self._line("leader", f"against baselines: {comparisons(progress) or 'none scored yet'}")

    def _line(self, kind: str, text: str) -> None:
        line = f"[{self._progress.wall_s:7.1f} s] {one_line(kind, 10):<9}{one_line(text, 500)}"
        print(line, file=self._console.file, flush=True)


class LiveView:
    """A panel that is redrawn a few times a second by a thread of its own; it only reads."""

    def __init__(self, console: Console, title: str, uses_llm: bool) -> None:
        self._title, self._uses_llm = title, uses_llm
        self._progress = Progress()
        self._events: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        self._console = console
        self._live = Live(console=console, refresh_per_second=REFRESH_PER_S, get_renderable=self._draw, transient=False)

    def watch(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> LiveView:
        self._live.start()
        self._console.show_cursor(True)  # a second Ctrl-C ends the process at once, and nobody would give it back
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        self._events.append(event)

    def _draw(self) -> RenderableType:
        return panel(self._progress, list(self._events), self._title, self._uses_llm)


def counts(progress: Progress) -> str:
    """Trials in one line: done, running, waiting, rate, time left."""
    now = f"{progress.trials_done} done, {len(progress.running)} running, {progress.trials_waiting} waiting"
    return now + _pace(progress)


def _pace(progress: Progress) -> str:
    rate, left = progress.trials_per_s, progress.seconds_left
    text = "" if rate is None else f", {rate:.2g}/s" if rate >= 0.1 else f", {60 * rate:.2g}/min"
    return text + (f", about {duration(left)} left" if left else "")


def comparisons(progress: Progress) -> str:
    """The leading loss so far against each baseline, in the better direction; empty if there is nothing to compare."""
    leader, baselines = progress.leader, dict(progress.baselines)
    if leader is None:
        return ""
    sign = 1 if leader[1].higher_is_better else -1
    gaps = {name: sign * (leader[1].mean - score.mean) for name, score in baselines.items()}
    shown = sorted(gaps.items(), key=lambda item: item[1])[:BASELINES_SHOWN]
    return ", ".join(f"{one_line(name, 24)} {signed(gap)}" for name, gap in shown)


def panel(progress: Progress, events: list[Event], title: str, uses_llm: bool) -> Panel:
    """The live panel. Reads copies: the campaign's thread goes on writing."""
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="ellipsis", no_wrap=False)
    grid.add_row("stage", words(progress.stage, "bold"))
    grid.add_row("trials", counts(progress))
    running = [f"{one_line(r.name, 30)} seed {r.seed}" for r in list(progress.running.values())]
    grid.add_row("running", Text(", ".join(running) or "-"))
    grid.add_row("leader", _leader(progress))
    grid.add_row("proposals", _proposals(progress))
    tokens = f"{progress.prompt_tokens:,} in, {progress.completion_tokens:,} out" if uses_llm else "no LLM in use"
    grid.add_row("tokens", tokens + (f", {dollars(progress.usd)}" if progress.usd is not None else ""))
    failures = [f"{one_line(kind, 20)} {n}" for kind, n in list(progress.failures.items())]
    grid.add_row("failures", Text(", ".join(failures) or "none"))
    if progress.copies.total:
        grid.add_row("copies", progress.copies.among(progress.proposals))
    news = Table.grid(padding=(0, 2), expand=True)
    news.add_column(no_wrap=True)
    news.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    for event in events:
        news.add_row(words(event.kind, _STYLES.get(event.kind, "dim"), 10), words(event.text))
    heading = Text(f" {one_line(title, 60)}  {duration(progress.wall_s)} ", style="bold")
    return Panel(Group(grid, Text(), news), title=heading, title_align="left", box=box.ROUNDED, border_style="dim")


def _leader(progress: Progress) -> Text:
    if progress.leader is None:
        known = dict(progress.baselines)
        scores = ", ".join(f"{one_line(n, 24)} {number(s.mean)}" for n, s in list(known.items())[:BASELINES_SHOWN])
        return Text(f"baselines: {scores}" if scores else "-")
    name, score = progress.leader
    against = comparisons(progress)
    text = Text.assemble((one_line(name, 40), "bold"), f"  {score.metric} {number(score.mean)}")
    return text.append(f"\nagainst {against}") if against else text


def _proposals(progress: Progress) -> str:
    budget = f" of {progress.candidates_budget}" if progress.candidates_budget is not None else ""
    return f"{progress.proposals} made, {progress.proposals_in_flight} in flight, {progress.accepted}{budget} accepted"
