"""Names that people give features, with who, when and why; every earlier version is kept."""

from interp.labels.book import Imported, LabelBook
from interp.labels.label import STATUSES, Label

__all__ = ["STATUSES", "Imported", "Label", "LabelBook"]
