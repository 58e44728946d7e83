"""What is steered and judged: a feature or a direction, with what the index knows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from interp.steering.detection import Peak
from interp.steering.edits import Add, Clamp, Direction, FeatureEdit, Named


@dataclass(frozen=True, kw_only=True)
class Steerable:
    """What is steered, with what the index knows of it."""

    feature: Named
    largest: float
    """Its largest activation on text; for a direction 1, the difference itself."""
    matched: tuple[int, ...] = ()
    """Features of the same SAE that fire about as often."""
    peaks: Mapping[int, Sequence[Peak]] | None = None
    """Of the examples, strongest first, of the feature and of each matched one; above their clean levels, where they have
    any."""
    clean_level: float | None = None
    clean_share: float = 1.0
    """See `Detection`."""
    firings: Mapping[int, int] = field(default_factory=dict)
    """How often the feature fires on each token."""
    fires: int = 0
    """How often it fires at all."""
    all_firings: bool = True
    """Whether `firings` has all of them, or the commonest tokens only."""
    words: str = ""
    """A text put in front of the prompt that asks for the same: the prompt-only baseline."""

    def edit(
        self, strength: float, *, where: str = "all", along: Named | None = None, add: bool = False
    ) -> FeatureEdit:
        """Hold the feature at the strength, or (`add`, and always of a direction) add that much of it."""
        kind = Add if add or isinstance(self.feature, Direction) else Clamp
        return kind(feature=self.feature, strength=strength, where=where, along=along)
