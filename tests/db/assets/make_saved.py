"""Makes `archive_vN.sqlite3`, an archive of the present schema version N with one of everything.

Run once when a schema is new: ``python tests/db/assets/make_saved.py tests/db/assets/archive_vN.sqlite3``. The file is
committed and never made again, so that later programs are tested on what that version really wrote.
"""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from db.archive import Archive
from db.endings import Ending, Reason
from db.testing_values import OTHER_TASK, TASK, proposal, report
from sandbox.failure import Failure, FailureKind


def main(path: Path) -> None:
    if path.exists():
        raise SystemExit(f"{path} exists; a saved archive is not made twice")
    with Archive(path, create=True) as archive:
        other = archive.start_campaign(
            "ended", {"seed": 2}, task=TASK, metric="score", higher_is_better=True, seeds=None
        ).id
        archive.finish_campaign(other, "finished", Ending(Reason.TOKENS, "budget.tokens 30,000 is used up"))
        campaign = archive.start_campaign(
            "saved", {"seed": 1}, task=TASK, metric="score", higher_is_better=True, seeds=(0, 1)
        ).id
        archive.record_task(TASK, {"accuracy": 0.87})
        archive.record_task(OTHER_TASK, {})
        archive.record_known(campaign, proposal(0, origin="known", proposer="library", reply=None, prompt=None))
        first = proposal(0).candidate
        assert first is not None
        made = proposal(1, parents=(first.id,), name="α loss")
        assert made.candidate is not None
        assert made.gate is not None
        told = replace(made.gate, notes=("an import that nothing used is left out",), privileged=("chosen_score",))
        made = replace(made, gate=told)
        archive.record_verdict(archive.record_reply(campaign, replace(made, candidate=None)), made)
        refused = proposal(2, failure=Failure(FailureKind.CRASH, "ValueError: no"), repair_of=1, origin="repaired")
        archive.record_verdict(archive.record_reply(campaign, refused), refused)
        archive.record_request(campaign, 4, 250, 4096)
        archive.record_reply(campaign, proposal(3, candidate=None, gate=None, probe=None))
        for candidate, lift in ((first, 0.0), (made.candidate, 0.25)):
            for task, seed in ((TASK, 0), (TASK, 1), (OTHER_TASK, 100)):
                trial = archive.ensure_trial(campaign, candidate.id, task.id, seed)
                result = report(seed, 0.5 + lift + seed / 1000, curve=np.arange(4.0))
                archive.finish_trial(trial.id, archive.start_attempt(trial.id, "slot 0"), result)
        trial = archive.ensure_trial(campaign, first.id, OTHER_TASK.id, 101)
        lost = Failure(FailureKind.INFRASTRUCTURE, "node gone")
        archive.fail_trial(trial.id, archive.start_attempt(trial.id, "slot 1"), lost, final=False)
        archive.start_attempt(trial.id, "slot 1")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE leases SET host = 'a-machine', pid = 1, process = ''")  # not whoever made it
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")  # one file, without its log
        connection.execute("VACUUM")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
