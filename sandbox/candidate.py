"""A candidate objective: source code under a contract, identified by its content."""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass, field

MAX_SOURCE_BYTES = 20_000


def normalise_source(source: str) -> str:
    """LF line ends, no trailing blanks, exactly one final newline: the text that is hashed, stored and run."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def looks_like_id(text: str) -> bool:
    """Whether a word that a person wrote may be the beginning of a candidate's id: hexadecimal digits."""
    return bool(text) and set(text) <= set(string.hexdigits)


@dataclass(frozen=True)
class Candidate:
    """Source code of one objective. Name, thought and parents belong to the proposal, not to the candidate.

    Attributes:
        contract: name of the contract it is written for.
        source: LF-normalised source text.
        notes: what was mended when it was read from the text that came (`sandbox.mend`); no part of its identity.
        id: sha256 over contract name and source, hex.
    """

    contract: str
    source: str
    notes: tuple[str, ...] = field(default=(), compare=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", normalise_source(self.source))
        # surrogates cannot be encoded; the gate refuses them, but identity must exist even for refused text
        text = f"{self.contract}\n{self.source}".encode("utf-8", "surrogatepass")
        object.__setattr__(self, "id", hashlib.sha256(text).hexdigest())

    @property
    def short_id(self) -> str:
        return self.id[:10]
