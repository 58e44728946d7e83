"""What every export is made of, so that a format asks no room above it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.checkpoint import Card
from interp.index import Example, FeatureIndex
from interp.labels import Label
from interp.render.look import Look, Unseen
from interp.sae import SAE


@dataclass(frozen=True, eq=False, kw_only=True)
class Contents:
    """One SAE with its card, index and current labels."""

    sae: SAE
    card: Card
    index: FeatureIndex
    labels: Mapping[int, Label]
    looks: Callable[[int, Sequence[Example]], Mapping[int, Look | Unseen]] = lambda feature, examples: {}
    """What examples of a feature look like, by position, where they are of pictures or sound."""

    def name(self, feature: int) -> tuple[str, bool]:
        """(what the feature is called, whether that is automatic and untested)."""
        label = self.labels.get(feature)
        return (label.text, False) if label else (self.index.describe(feature), True)

    def effects(self, row: Mapping[str, Any], column: str) -> list[tuple[str, float]]:
        """Tokens of `promoted` or `suppressed` with their logit effects; none where the index has none."""
        values = row.get(f"{column}_logits")
        return [] if values is None else list(zip(self.index.text(row[column]), map(float, values), strict=True))
