"""How many proposals were copies, and of what: a known loss, or one that the campaign had itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

STALLED_FROM = 0.5  # share of copies among the proposals from which a search goes round in circles


@dataclass(frozen=True)
class Copies:
    """Copies among proposals. `own`: of losses that the campaign had before, proposed or given; `known`: of known ones."""

    known: int = 0
    own: int = 0

    @property
    def total(self) -> int:
        return self.known + self.own

    @property
    def parts(self) -> str:
        """``30 of known losses, 82 of this campaign's own``; only what there is."""
        said = [(self.known, "of known losses"), (self.own, "of this campaign's own")]
        return ", ".join(f"{count:,} {of}" for count, of in said if count) or "none"

    def and_one(self, own: bool) -> Copies:
        """With one copy more."""
        return replace(self, own=self.own + 1) if own else replace(self, known=self.known + 1)

    def stalls(self, proposals: int) -> bool:
        """Whether most of so many proposals were copies."""
        return self.total > STALLED_FROM * proposals

    def among(self, proposals: int) -> str:
        """``112 of 120 proposals were copies: 30 of known losses, 82 of this campaign's own``; empty without a copy."""
        if not self.total:
            return ""
        return f"{self.total:,} of {proposals:,} proposals were copies: {self.parts}"
