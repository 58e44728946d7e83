"""Labels that wait for a person, in an order, and who said what so far."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.labels import Label
from interp.types import InterpError, unknown
from interp.workbench.evidencing import evidence
from interp.workbench.opening import Opened

RUNS = ("auto:", "llm:", "predicate")
"""How methods begin that are no person's."""
RECENT = 12


@dataclass(frozen=True)
class Author:
    """What one author's name stands under now."""

    name: str
    """Empty where nobody is named."""
    statuses: Mapping[str, int]
    labels: int
    last: str
    """When the newest of them was written, UTC; empty where no date is known."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Features whose label waits."""

    which: str
    order: str
    features: Sequence[int]
    """First first."""
    waiting: Mapping[str, int]
    """How many there are, by the name of each kind of waiting."""
    authors: Sequence[Author]
    """Who labelled what, the most first."""
    recent: Sequence[Label]
    """The newest revisions that hold, newest first."""

    def after(self, feature: int) -> int | None:
        """The next one to look at; None where none waits. What is not in the queue (it was just decided) is followed by the first."""
        if not self.features:
            return None
        at = self.features.index(feature) if feature in self.features else -1
        return self.features[(at + 1) % len(self.features)]


def of_a_person(label: Label) -> bool:
    """Whether a person gave, changed or judged the label last, as far as it says: a run signs what it does by its method and author."""
    by_run = label.method.startswith(RUNS)
    return not by_run or (label.author not in ("", "autolabel") and not label.method.startswith(f"llm:{label.author}"))


WAITING: dict[str, tuple[str, Callable[[Label | None], bool]]] = {
    "undecided": (
        "named, and neither confirmed nor refuted",
        lambda label: label is not None and label.status in ("undecided", "proposed"),
    ),
    "unseen": ("named by a run, and judged by no person", lambda label: label is not None and not of_a_person(label)),
    "unnamed": ("without a name", lambda label: label is None),
    "refuted": ("refuted", lambda label: label is not None and label.status == "refuted"),
    "all": ("that fire", lambda label: True),
}
"""By name: what it says of features, and which labels it takes."""


def label_queue(wb: Opened, which: str = "undecided", order: str = "fires") -> Queue:
    """The features that fire and whose label waits (WAITING), in an order (ORDERS).

    Raises InterpError for another name of either, and where an order needs evidence that was not made.
    """
    if which not in WAITING:
        raise unknown("kind of waiting", which, WAITING)
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    labels, fires_F = wb.labels.all(), wb.index.features["fires"].to_numpy()
    live = np.flatnonzero(fires_F > 0).tolist()
    found = {name: [f for f in live if takes(labels.get(f))] for name, (_, takes) in WAITING.items()}
    key_F = ORDERS[order](wb)
    some = np.array(found[which], dtype=np.int64)
    ordered = some[np.lexsort((some, -key_F[some]))].tolist() if len(some) else []
    return Queue(
        which=which,
        order=order,
        features=ordered,
        waiting={name: len(each) for name, each in found.items()},
        authors=_authors(list(labels.values())),
        recent=sorted(labels.values(), key=lambda label: label.created, reverse=True)[:RECENT],
    )


def _authors(labels: Sequence[Label]) -> list[Author]:
    by_name: dict[str, list[Label]] = {}
    for label in labels:
        by_name.setdefault(label.author, []).append(label)
    found = [
        Author(name, dict(Counter(one.status for one in own)), len(own), max(one.created for one in own))
        for name, own in by_name.items()
    ]
    return sorted(found, key=lambda author: (-author.labels, author.name))


def _by_evidence(wb: Opened, *columns: str) -> np.ndarray:
    """The difference of two columns of the evidence (or one); unknown values come last."""
    try:
        values = [evidence(wb).column(name).astype(np.float64) for name in columns]
    except InterpError as error:
        raise InterpError(f"this order needs the evidence: {error}") from None
    value_F = values[0] if len(values) == 1 else values[0] - values[1]
    return np.nan_to_num(value_F, nan=-np.inf)


ORDERS: dict[str, Callable[[Opened], np.ndarray]] = {
    "fires": lambda wb: wb.index.features["fires"].to_numpy().astype(np.float64),
    "effect": lambda wb: _by_evidence(wb, "effect_kl"),
    "doubt": lambda wb: _by_evidence(wb, "label_f1_high", "label_f1_low"),
    "F1": lambda wb: _by_evidence(wb, "label_f1"),
}
"""What comes first: what fires most, causes most, is least certain (the widest interval of its F1), or has the best label."""
