"""What verifying answers with: checks, what they say of each claim of the card, and one word for the whole."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["holds", "differs", "unchecked"]
Status = Literal["recomputed", "only hashed", "not checked", "differs"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    found: str


def holds(what: str, found: str) -> Check:
    return Check(what=what, verdict="holds", found=found)


def differs(what: str, found: str) -> Check:
    return Check(what=what, verdict="differs", found=found)


def unchecked(what: str, found: str) -> Check:
    return Check(what=what, verdict="unchecked", found=found)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One thing that a checkpoint says of itself, and what stands behind it."""

    what: str
    said: str
    status: Status
    """`recomputed`: made anew here. `only hashed`: as its maker wrote it, true or not. `not checked`: not even that."""
    how: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what came of it."""

    name: str
    checks: list[Check]
    claims: list[Claim] = field(default_factory=list)
    """Of the card; none for a folder without one."""
    pin: str = ""
    """One hash over all files, to be told apart from the checkpoint (see `checkpoint.files.pin`)."""
    dtype: str = ""
    """Of the model that recomputed; empty when none did."""
    seed: int = 0
    """Of the blocks of the index that were drawn."""
    seconds: float = 0.0

    @property
    def differs(self) -> list[Check]:
        return [check for check in self.checks if check.verdict == "differs"]

    @property
    def verdict(self) -> str:
        """`differs`, `verified` (numbers were computed anew), or `files only`."""
        if self.differs:
            return "differs"
        made = any(check.what.startswith("numbers") and check.verdict == "holds" for check in self.checks)
        return "verified" if made else "files only"

    @property
    def sentence(self) -> str:
        """The verdict, with how many claims stand on what; a verdict covers no claim that was not recomputed."""
        if not self.claims:
            return self.verdict
        counts = {
            s: sum(claim.status == s for claim in self.claims) for s in ("recomputed", "only hashed", "not checked")
        }
        return f"{self.verdict}: of {len(self.claims)} claims " + ", ".join(f"{n} {s}" for s, n in counts.items())

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}
