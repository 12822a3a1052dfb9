"""A campaign for tests that interrupt it, and what must be in its archive in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from db.endings import Reason
from tests.support.campaigns import BASELINES, EVALUATOR, Kept, endpoint, settings
from tests.support.chat_server import ChatServer

PROPOSALS = 6
IN_FLIGHT, SLOTS = 2, 2
MAX_TOKENS = 4096  # of a reply, as the proposer asks for by default
PROMOTED = [1000, 1001, 1002]


def campaign(folder: Path, server: ChatServer, seconds: float = 0.3, **changes: Any) -> dict[str, Any]:
    """Six questions, two baselines, two seeds, then the best two and a baseline on fresh seeds."""
    options = {"folder": str(folder), "seconds": seconds}
    return settings(
        folder,
        objective={"evaluator": EVALUATOR, "seeds": 2, "options": options},
        proposer=endpoint(server.base_url),
        budget={"candidates": None, "proposals": PROPOSALS},
        proposals={"in_flight": IN_FLIGHT, "max_repairs": 1},
        promotions=[
            {
                "evaluator": EVALUATOR,
                "top": 2,
                "baselines": ["dpo"],
                "seeds": PROMOTED,
                "options": {**options, "variant": 1},
            }
        ],
        **changes,
    )


def started(folder: Path, variant: int = 0) -> int:
    """Trials that workers have begun."""
    notes = folder / "trials.txt"
    return sum(line.startswith(f"{variant} ") for line in notes.read_text().splitlines()) if notes.exists() else 0


def check_exact(found: Kept, server: ChatServer, stops: int, lost: int = 0) -> None:
    """The archive is that of a campaign that never stopped, apart from `stops` interruptions and `lost` attempts."""
    assert found.status == "finished"
    assert found.ended is not None
    assert found.ended.reason is Reason.PROPOSALS
    assert len(found.asked) == len(found.accepted) == PROPOSALS
    assert sorted(p.index for p in found.proposals) == list(range(PROPOSALS + len(BASELINES)))
    trials = found.trials.values()
    assert {t.status for t in trials} == {"done"}
    searched = [t for t in trials if t.seed < 1000]
    assert len(searched) == 2 * (PROPOSALS + len(BASELINES))
    assert len(found.trials) - len(searched) == 3 * len(PROMOTED)
    assert len(found.trials) <= found.attempts <= len(found.trials) + SLOTS * stops + lost
    assert PROPOSALS <= len(server.received) <= PROPOSALS + IN_FLIGHT * stops  # a stored reply is never asked for again
    # each question that came in was answered for good, or is counted at its most
    assert len(server.received) <= PROPOSALS + found.lost_requests <= PROPOSALS + IN_FLIGHT * stops
    assert found.lost_tokens > MAX_TOKENS * found.lost_requests or not found.lost_requests
