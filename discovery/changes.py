"""What may change between two runs of a campaign, and what must not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from db.archive import Archive
from db.records import Ranking
from discovery.trials import Stage
from evaluators.options import OptionsError


def refuse_another_ranking(archive: Archive, name: str, stage: Stage) -> None:
    """Scores of one campaign compare only if all were measured alike; nothing is written by this check.

    Raises:
        OptionsError: the archive has a campaign of that name with another task, metric or other seeds.
        ArchiveError: the archive cannot be read.
    """
    stored = {c.name: c.ranking for c in archive.campaigns()}.get(name)
    if stored is None:
        return
    wanted = Ranking(stage.task.id, stage.metric, stage.higher_is_better, stage.seeds)
    differing = {
        "another evaluator, or other options or another version of it": stored.task_id != wanted.task_id,
        "another metric": (stored.metric, stored.higher_is_better) != (wanted.metric, wanted.higher_is_better),
        "other seeds": stored.seeds != wanted.seeds,
    }
    what = [text for text, differs in differing.items() if differs]
    if what:
        raise OptionsError(
            f"the campaign {name!r} in this archive was started with {' and '.join(what)}, so its scores would not compare; "
            "give this one another name"
        )


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ, sorted."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
