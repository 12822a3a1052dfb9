"""What may change between two runs of a campaign, what of it is said, and what must not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from db.archive import Archive
from db.records import CampaignRecord, Ranking
from discovery.config import CampaignConfig
from discovery.trials import Stage
from evaluators.base import Task
from evaluators.options import OptionsError
from sandbox.text import one_line

# Settings that decide which search or measurement this is: with others it is another campaign. Those of `objective` are
# compared by the exact task, metric and seeds that they come to.
REFUSED = ("seed", "objective.evaluator", "objective.metric", "objective.options", "objective.seeds")

# Settings that may change, and what becomes of what was stored under the old ones.
SAID: Mapping[str, str] = {
    "objective.minimum_effect": "verdicts on the leaderboard are judged by the new one",
    "baselines": "baselines that are not named any more stay on the leaderboard",
    "start_from": "losses taken before stay in the campaign",
    "promotions": "what was measured as a promotion before stays in the archive",
    "proposer": "proposals from now on are made otherwise; `discovery stats` tells proposers and models apart",
    "strategy": "proposals from now on build on others",
    "prompts": "questions from now on are put otherwise",
    "limits": "what was refused or failed under the old limits stays so",
}

# Settings that say how long, where and how fast: they may change from run to run without changing what is measured.
FREE = ("name", "archive", "all_arrays", "log_dir", "budget", "proposals", "workers")


def refuse_another_campaign(archive: Archive, config: CampaignConfig, stage: Stage) -> None:
    """One campaign is one search, whose scores compare only if all were measured alike; nothing is written by this check.

    Raises:
        OptionsError: the archive has a campaign of that name with another seed, task, metric or seeds of trials.
        ArchiveError: the archive cannot be read.
    """
    stored = {c.name: c for c in archive.campaigns()}.get(config.name)
    if stored is None:
        return
    wanted, had = Ranking(stage.task.id, stage.metric, stage.higher_is_better, stage.seeds), stored.ranking
    differing = {
        _other_task(archive, had, stage.task): had.task_id != wanted.task_id,
        "another metric": (had.metric, had.higher_is_better) != (wanted.metric, wanted.higher_is_better),
        "other seeds of its trials": had.seeds != wanted.seeds,
    }
    what = [text for text, differs in differing.items() if differs]
    if what:
        raise OptionsError(
            f"the campaign {config.name!r} in this archive was started with {' and '.join(what)}, so its scores would not "
            "compare; give this one another name"
        )
    seed = stored.config.get("seed")
    if isinstance(seed, int) and seed != config.seed:
        raise OptionsError(
            f"the campaign {config.name!r} in this archive was started with seed {seed}, not {config.seed}, and another "
            f"seed is another search; keep seed {seed}, or give this one another name"
        )


def _other_task(archive: Archive, had: Ranking, wanted: Task) -> str:
    """In what the task of a stored campaign differs."""
    if had.task_id == wanted.id:
        return ""
    stored = archive.task(had.task_id).task
    if stored.evaluator != wanted.evaluator:
        return f"another evaluator, {one_line(stored.evaluator, 60)}"
    if stored.version != wanted.version:
        return (
            f"version {stored.version} of {wanted.evaluator}, another definition than today's version {wanted.version}"
        )
    return f"other options or other data of {wanted.evaluator}"


def said_changes(record: CampaignRecord) -> tuple[str, ...]:
    """One line for each section of settings that differs from the last run's, with what it means for what is stored."""
    if record.previous_config is None:
        return ()
    old, new = dict(_leaves(record.previous_config)), dict(_leaves(record.config))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    sections: dict[str, list[str]] = {}
    for key in changed:
        section = next((s for s in (*SAID, *FREE) if key == s or key.startswith(f"{s}.")), "")
        sections.setdefault(section, []).append(f"{key} {_shown(old.get(key))} -> {_shown(new.get(key))}")
    return tuple(
        f"changed since the last run: {', '.join(keys)}" + (f" ({SAID[section]})" if section in SAID else "")
        for section, keys in sections.items()
    )


def _shown(value: Any) -> str:
    return one_line("null" if value is None else str(value), 60)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(inner)


def _plain(value: Any) -> Any:
    """The archive gives tuples back as lists."""
    return [_plain(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
