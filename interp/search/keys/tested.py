"""What was tested of features: `confirmed:`, `verdict:`, `scope:`, `effect:`, `exceeds:`, `replicates:`, from the SAE's evidence.

Columns are named as in evidence.parquet (`interp.evidence`). A part that was not made is no answer: whoever gives the evidence
raises InterpError with the command that makes it.

Axes    F feature.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from interp.labels.testing import VERDICTS
from interp.predicates.predicate import LANGUAGE_NAMES
from interp.search.answer import Answer, Collection, Evidence
from interp.search.query import Term, span, yes
from interp.types import InterpError, unknown


def evidence(collection: Collection, what: str) -> Evidence:
    """The evidence of the features; InterpError when this search has none."""
    if collection.evidence is None:
        raise InterpError(f"{what} asks for evidence, which there is of an SAE's features only.")
    return collection.evidence()


def find_confirmed(term: Term, collection: Collection) -> Answer:
    """Features whose tested label is confirmed, or those of which it is not."""
    verdict_F, why = _verdicts(collection, term)
    passed_F = verdict_F == "confirmed"
    return Answer(passed_F if yes(term) else ~passed_F, None, why)


def find_verdict(term: Term, collection: Collection) -> Answer:
    """Features whose tested label has this verdict, in either case; InterpError for one that there is not."""
    verdict_F, why = _verdicts(collection, term)
    known = list(dict.fromkeys([*VERDICTS, *(verdict for verdict in verdict_F if verdict)]))
    asked = term.value.lower().replace("-", " ")
    if asked not in known:
        raise unknown("verdict", term.value, known, try_=f"(At character {term.at}.)")
    return Answer(verdict_F == asked, None, why)


def _verdicts(collection: Collection, term: Term) -> tuple[np.ndarray, Callable[[int], str]]:
    known = evidence(collection, f"{term.key}:")
    verdict_F, name_F, low_F, f1_F = (known.column(f"label_{name}") for name in ("verdict", "name", "f1_low", "f1"))

    def why(f: int) -> str:
        if not name_F[f]:
            return f"{verdict_F[f]}"
        figure = "" if np.isnan(f1_F[f]) else f", F1 {f1_F[f]:.2f} (from {low_F[f]:.2f})"
        return f"{name_F[f]}: {verdict_F[f]}{figure}"

    return verdict_F, why


def find_scope(term: Term, collection: Collection) -> Answer:
    """Features whose tested label holds in this language (`en`, or by name), form or source, in either case.

    Raises InterpError for a part of the text that no label was tried in.
    """
    scope_F = evidence(collection, "scope:").column("label_scope")
    asked = LANGUAGE_NAMES.get(term.value.lower(), term.value).lower()
    own: dict[int, dict[str, Any]] = {}
    known: dict[str, None] = {}
    for f, parts in enumerate(scope_F):
        for one in parts if parts is not None else ():
            known[one["value"]] = None
            if one["value"].lower() == asked and own.get(f, {}).get("verdict") != "holds":
                own[f] = one
    if asked not in map(str.lower, known):
        raise unknown("part of the tested text", term.value, known, try_=f"(At character {term.at}.)")
    passed_F = np.zeros(len(scope_F), dtype=bool)
    passed_F[[f for f, one in own.items() if one["verdict"] == "holds"]] = True

    def why(f: int) -> str:
        if f not in own:
            return f"{term.value}: not judged"
        one = own[f]
        said = f"{one['part']} {one['value']}: {one['verdict']} (n {one['fires']:,})"
        return said if one["precision"] is None else f"{said}, precision {one['precision']:.2f}"

    return Answer(passed_F, None, why)


def find_effect(term: Term, collection: Collection) -> Answer:
    """Features that, ablated, change the next token by a KL within the bounds, in nats."""
    known = evidence(collection, "effect:")
    low, high = span(term)
    kl_F, control_F, exceeds_F = (known.column(f"effect_{name}") for name in ("kl", "control_kl", "exceeds"))
    with np.errstate(invalid="ignore"):
        passed_F = (kl_F >= low) & (kl_F <= high)

    def why(f: int) -> str:
        beyond = "beyond its controls" if exceeds_F[f] else "not beyond its controls"
        return f"KL {kl_F[f]:.3g} nats, controls {control_F[f]:.3g}: {beyond}"

    return Answer(passed_F, np.nan_to_num(kl_F.astype(np.float64)), why)


def find_exceeds(term: Term, collection: Collection) -> Answer:
    """Features that cause more than their controls, or those that are not shown to."""
    known = evidence(collection, "exceeds:")
    exceeds_F, q_F = known.column("effect_exceeds"), known.column("effect_q")
    passed_F = np.array([flag is True or flag is np.True_ for flag in exceeds_F])

    def why(f: int) -> str:
        return f"{'causes' if passed_F[f] else 'is not shown to cause'} more than its controls (q {q_F[f]:.2g})"

    return Answer(passed_F if yes(term) else ~passed_F, None, why)


def find_replicates(term: Term, collection: Collection) -> Answer:
    """Features that were found again in so many other trainings: a number is a lower bound, `1..1` exactly one."""
    known = evidence(collection, "replicates:")
    low, high = span(term)
    of_F = known.column("again_of")
    found_F = known.column("again_found").astype(np.float64)
    with np.errstate(invalid="ignore"):
        passed_F = (found_F >= low) & (found_F <= high)

    def why(f: int) -> str:
        if np.isnan(found_F[f]):
            return "fires too seldom to be found again"
        return f"found again in {found_F[f]:.0f} of {of_F[f]:.0f} other trainings"

    return Answer(passed_F, None, why)


def effects(collection: Collection) -> np.ndarray:
    """KL of each feature, for an order; those that were not measured come last."""
    return np.nan_to_num(evidence(collection, "sort:effect").column("effect_kl").astype(np.float64), nan=-1.0)
