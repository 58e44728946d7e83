"""What `meaning` found, as a section of a report."""

from collections.abc import Mapping
from typing import Any

from interp.evals.figure import Better, Figure, Section
from interp.evals.meaning import CLASSES, Meaning

CLASS_SAYS = {
    "piece": "parts of longer words",
    "token": "a few words, or one word beside another",
    "class": "a class of tokens, or a longer list of them",
    "context": "contexts that mean the same, whatever the token",
    "next-token": "what follows the token",
    "unexplained": "none of these explains it, or it fires too seldom to be told",
}


def meaning_section(found: Meaning, of: Mapping[str, Any], seconds: float = 0.0) -> Section:
    """The section `meaning`: the share of each class with Wilson's interval over features (`evals.meaning`)."""

    def share(name: str, says: str, value: tuple[float, float, float], better: Better = "") -> Figure:
        low_high = (value[1], value[2])
        return Figure(
            name=name, says=says, value=value[0], interval=low_high, n=found.features, unit="features", better=better
        )

    said = "by meaning: class, context and next-token together"
    figures = [share("by_meaning", f"share of the features explained {said}", found.by_meaning, "higher")]
    figures += [
        share(name.replace("-", "_"), f"share whose class is {name}: {CLASS_SAYS[name]}", found.shares[name])
        for name in CLASSES
    ]
    figures.append(
        share("clean", "share with a clean level that the held-out text does not refute", found.clean, "higher")
    )
    figures.append(
        Figure(
            name="explained",
            says="share of a feature's activation that a predicate explains, in the mean",
            value=found.explained,
            n=found.features,
            unit="features",
            better="higher",
        )
    )
    kept = {name: value for name, value in found.to_dict().items() if not isinstance(value, dict | tuple)}
    return Section(
        name="meaning",
        title="What features mean",
        figures=tuple(figures),
        rows=tuple(
            {"class": name, "share of features": found.shares[name][0], "share of firings": found.weighted[name]}
            for name in CLASSES
        ),
        of={**of, **kept, "steady": list(found.steady)},
        seconds=seconds,
    )
