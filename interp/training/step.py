"""The event that a run yields."""

from dataclasses import dataclass
from typing import Any

from interp.sae import SAE


@dataclass(frozen=True)
class Step:
    """One step of training, as told to whoever listens; the last event of a run repeats its last step, with the SAE.

    FVU, L0 and dead features of the last event are of held-out rows that the threshold was not measured on.
    """

    step: int
    tokens: int
    fvu: float
    """Of this batch, before the step."""
    l0: float
    dead: int
    """Features idle for `dead_after` tokens; in the last event, those that fire on none of its rows."""
    loss: float
    """Mean squared error summed over columns, in scaled units, plus the architecture's penalty (without AuxK)."""
    lr: float
    seconds: float
    notes: tuple[str, ...] = ()
    """What to expect, and warnings."""
    run: str = ""
    """Which of several runs."""
    sae: SAE | None = None
    """The finished SAE; only in the last event."""

    def record(self) -> dict[str, Any]:
        """What a log keeps."""
        kept = {key: value for key, value in self.__dict__.items() if key != "sae"}
        return kept | {"notes": list(self.notes), "finished": self.sae is not None}
