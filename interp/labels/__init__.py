"""Names that people give features, with who, when and why; every earlier version is kept."""

from interp.labels.book import STATUSES, Label, LabelBook

__all__ = ["STATUSES", "Label", "LabelBook"]
