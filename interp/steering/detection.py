"""Does a feature fire on tokens one can name, at its strongest and over all its range.

Each example of the index is held out in turn: it counts where another document's example peaks on the same token (case and
spaces aside). Besides the strongest examples the index has some of each fifth of the documents that the feature fires in,
from strong to weak; what is true of the strongest need not be true of these, so both are said. Where the feature has a clean
level (`FeatureIndex.clean`), only examples above it are tried, and what that leaves out is said with them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interp.statistics import wilson

Figure = tuple[float, float, float]
"""(share, low, high), 95 % (Wilson); the share is nan where there is nothing to count."""
FIFTHS = 5
ENOUGH = 20
"""So many examples in documents kept from training are enough to judge a feature by these alone."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The token on which one example peaks."""

    token: int
    fifth: int
    """Of the documents the feature fires in, 1 the strongest fifth."""
    strongest: bool = False
    """One of the strongest examples; the others were drawn from their fifth."""
    reserved: bool = False
    """In a document kept from training."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Shares of examples that peak on a token which another document's example peaks on."""

    strongest: Figure
    fifths: list[Figure]
    """From the documents where it fires most strongly to those where it fires most weakly."""
    range: Figure
    """Of the fifths together: of a document drawn at random from those it fires in."""
    reserved: Figure
    """Of the examples in documents kept from training."""
    tried: int
    tried_reserved: int
    clean_level: float | None = None
    """The activation above which examples were tried; None where the feature has none, and all were."""
    clean_share: float = 1.0
    """Share of all the feature's firings that are above it."""


def detection(
    peaks: Sequence[Peak], folded: Sequence[str] | Mapping[int, str], against: Sequence[Peak] | None = None
) -> Detection:
    """How well the tokens of a feature's examples are foretold by its other examples, or by those of `against`, another
    feature. With `ENOUGH` examples kept from training, only these are tried."""
    words = Counter(folded[peak.token] for peak in (peaks if against is None else against))
    own = int(against is None)
    reserved = [peak for peak in peaks if peak.reserved]
    tried = reserved if len(reserved) >= ENOUGH else list(peaks)

    def share(some: Sequence[Peak]) -> Figure:
        return wilson(sum(words[folded[peak.token]] > own for peak in some), len(some))

    parts = [_of_fifth(tried, fifth) for fifth in range(1, FIFTHS + 1)]
    return Detection(
        strongest=share([peak for peak in tried if peak.strongest]),
        fifths=[share(part) for part in parts],
        range=share([peak for part in parts for peak in part]),
        reserved=share(reserved),
        tried=len(tried),
        tried_reserved=sum(peak.reserved for peak in tried),
    )


def _of_fifth(peaks: Sequence[Peak], fifth: int) -> list[Peak]:
    """Those drawn from the fifth; where the strongest leave none to be drawn, those of the strongest that lie in it."""
    inside = [peak for peak in peaks if peak.fifth == fifth]
    return [peak for peak in inside if not peak.strongest] or inside


def named(peaks: Sequence[Peak], folded: Sequence[str]) -> set[str]:
    """The tokens that two examples or more peak on."""
    return {word for word, count in Counter(folded[peak.token] for peak in peaks).items() if count > 1}


def sentence(detected: Detection, place: str = "token") -> str:
    """The shares in words; `place` is what a position is called."""
    if not detected.tried:
        return "the index has no example of it"
    weak = ", ".join(_percent(figure) for figure in detected.fifths)
    kept = (
        f"{detected.tried_reserved} in documents kept from training"
        if detected.tried_reserved
        else "of the indexed text"
    )
    return (
        f"{above_clean(detected.clean_level, detected.clean_share)}"
        f"of {detected.tried} examples ({kept}), each held out in turn, these peak on a {place} that another's peaks on: "
        f"strongest {_percent(detected.strongest)}; by fifths of its documents, strong to weak, {weak}; the fifths together "
        f"{_percent(detected.range)} ({detected.range[1]:.0%} to {detected.range[2]:.0%})"
    )


def above_clean(level: float | None, share: float) -> str:
    """What is tried and what is left out, as the beginning of a sentence; nothing where nothing is left out."""
    if level is None or share >= 1:
        return ""
    return f"above its clean level {level:.3g} ({share:.0%} of its firings; the other {1 - share:.0%} are left out), "


def _percent(figure: Figure) -> str:
    return "none" if figure[0] != figure[0] else f"{figure[0]:.0%}"
