"""Two features, two SAEs, or two lists of texts side by side, with intervals of their differences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from interp.commands.opening import open_sae
from interp.commands.options import Feature, Option, Sae

if TYPE_CHECKING:
    from interp.workbench.pairing import Differs, PairOfFeatures, PairOfTexts  # noqa: F401  (for the pages)


def pair_features(
    sae: Sae,
    one: Feature,
    other: Feature,
    *,
    other_sae: Annotated[str, Option("Folder of the other feature's SAE. Without: the same.")] = "",
) -> "PairOfFeatures":
    """Two features side by side: directions, how often they fire together, and figures of both with the difference's interval.

    Raises InterpError when there is no such feature.
    """
    from interp.workbench.pairing import pair_features as pair

    return pair(open_sae(sae), one, open_sae(other_sae or sae), other)


def pair_texts(
    sae: Sae,
    one: Annotated[Sequence[str], Option("A text of the first side; repeatable.")],
    other: Annotated[Sequence[str], Option("A text of the second side; repeatable.")],
    *,
    limit: Annotated[int, Option("How many features to show.", low=1)] = 30,
) -> "PairOfTexts":
    """Which features two lists of texts tell apart; of lists as long as each other, the texts are pairs.

    Raises InterpError when a side is empty or too long, or a text cannot be read.
    """
    from interp.workbench.pairing import pair_texts as pair

    return pair(open_sae(sae), one, other, limit=limit)


def card_figures(sae: Sae) -> dict[str, dict[str, float]]:
    """What the card says of an SAE, by the text that it was measured on: figures by name."""
    metrics: Mapping[str, Any] = open_sae(sae).card.metrics
    return {
        text: {name: float(value) for name, value in own.items() if isinstance(value, int | float)}
        for text, own in metrics.items()
        if isinstance(own, Mapping)
    }
