"""What is known of features without looking anything up: `density:`, `max:`, `dead:`, and their labels."""

import numpy as np

from interp.labels import STATUSES
from interp.search.answer import Answer, Collection, Handler
from interp.search.query import Term, span, yes
from interp.types import unknown


def find_range(column: str) -> Handler:
    """Features whose figure in a column of the index is within the bounds, both included."""

    def handler(term: Term, collection: Collection) -> Answer:
        low, high = span(term)
        values = collection.index.features[column].to_numpy()
        return Answer((values >= low) & (values <= high), None, lambda f: f"{column} {values[f]:.3g}")

    return handler


def find_label(attribute: str) -> Handler:
    """Features whose label has this author or status, in either case; InterpError for a status that does not exist."""

    def handler(term: Term, collection: Collection) -> Answer:
        if attribute == "status" and term.value not in STATUSES:
            raise unknown("label status", term.value, STATUSES, try_=f"(At character {term.at}.)")
        passed, labels = np.zeros(collection.index.d_sae, dtype=bool), collection.labels.all()
        for f, label in labels.items():
            passed[f] = getattr(label, attribute).lower() == term.value.lower()
        return Answer(
            passed, None, lambda f: f"{attribute} {getattr(labels[f], attribute)}" if f in labels else "no label"
        )

    return handler


def find_tag(term: Term, collection: Collection) -> Answer:
    """Features that have the tag, in either case, also those without a name."""
    passed, said = np.zeros(collection.index.d_sae, dtype=bool), collection.labels.newest()
    for f, label in said.items():
        passed[f] = term.value.casefold() in (tag.casefold() for tag in label.tags)
    return Answer(passed, None, lambda f: f"tags {' '.join(said[f].tags)}" if f in said and said[f].tags else "no tags")


def find_starred(term: Term, collection: Collection) -> Answer:
    """Features with a star, also those without a name; or those without a star."""
    has = np.zeros(collection.index.d_sae, dtype=bool)
    has[[f for f, label in collection.labels.newest().items() if label.starred]] = True
    return Answer(has if yes(term) else ~has, None, lambda f: "has a star" if has[f] else "has no star")


def find_dead(term: Term, collection: Collection) -> Answer:
    """Features that never fire in the index, or those that do."""
    dead = collection.index.features["fires"].to_numpy() == 0
    return Answer(dead if yes(term) else ~dead, None, lambda f: "never fires" if dead[f] else "fires")


def find_labelled(term: Term, collection: Collection) -> Answer:
    """Features with a label, or those without."""
    has = np.zeros(collection.index.d_sae, dtype=bool)
    has[list(collection.labels.all())] = True
    return Answer(has if yes(term) else ~has, None, lambda f: "has a label" if has[f] else "has no label")
