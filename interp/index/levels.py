"""A feature's clean level in words, for whoever shows it."""

from dataclasses import dataclass

from interp.index.read import FeatureIndex


@dataclass(frozen=True, kw_only=True)
class CleanLevel:
    """The activation above which a feature means one simple thing, and how far that is true."""

    level: float
    share: float
    """Share of all its firings that are above the level; the others are left out of what is said of it."""
    says: str
    """What holds there, in words."""
    query: str
    """The search that says the same; empty where the language has none."""
    precision: float
    """Share of the held-out text's firings above the level at which it holds; nan where there is none."""
    low: float
    high: float
    """The ends of its 95 % interval (Wilson)."""
    n: int
    """Firings of the held-out text above the level."""

    def sentence(self) -> str:
        """All of it in words."""
        where = (
            "at all its firings" if self.share >= 1 else f"clean above {self.level:.3g}: {self.share:.0%} of firings"
        )
        left = "" if self.share >= 1 else f"; {1 - self.share:.0%} of its firings are below and left out"
        tested = (
            f"precision {self.precision:.2f} ({self.low:.2f} to {self.high:.2f}, n {self.n:,}) on held-out text"
            if self.n
            else "the held-out text has no firing there to test it on"
        )
        return f"{where}, where {self.says}: {tested}{left}"


def clean_level(index: FeatureIndex, feature: int) -> CleanLevel | None:
    """From which activation on the feature means what; None where the index does not say."""
    clean = index.clean(feature)
    if clean is None:
        return None
    return CleanLevel(
        level=clean.level,
        share=clean.share,
        says=clean.predicate.sentence(index.vocabulary),
        query=clean.predicate.query(index.vocabulary),
        precision=clean.precision,
        low=clean.interval[0],
        high=clean.interval[1],
        n=clean.n,
    )
