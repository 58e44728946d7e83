"""What every export is made of, so that a format asks no room above it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp.checkpoint import Card
from interp.index import FeatureIndex
from interp.labels import Label
from interp.sae import SAE


@dataclass(frozen=True, eq=False, kw_only=True)
class Contents:
    """One SAE with its card, index and current labels."""

    sae: SAE
    card: Card
    index: FeatureIndex
    labels: Mapping[int, Label]

    def name(self, feature: int) -> tuple[str, bool]:
        """(what the feature is called, whether that is automatic and untested)."""
        label = self.labels.get(feature)
        return (label.text, False) if label else (self.index.describe(feature), True)

    def effects(self, row: Mapping[str, Any], column: str) -> list[tuple[str, float]]:
        """Tokens of `promoted` or `suppressed` with their logit effects; none where the index has none."""
        values = row.get(f"{column}_logits")
        return [] if values is None else list(zip(self.index.text(row[column]), map(float, values), strict=True))
