"""What a newcomer is shown of an open SAE first: its figures, and features worth seeing, chosen by evidence and never by hand.

Axes    F feature.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from interp.evals.figure import number
from interp.evals.report import FILE, read_report
from interp.evidence.card import EvidenceTable
from interp.index.folders import best_of_each
from interp.index.glimpse import Glimpse, glimpse
from interp.types import InterpError
from interp.workbench.evidencing import evidence
from interp.workbench.mapping import text_groups
from interp.workbench.opening import Opened
from interp.workbench.reporting import find_report

FIGURES = 4
"""Of a report's headline."""
SURE = 0.8
"""The least lower end of a name's F1 for a feature that a neuron is told by."""
UNALIKE = 0.2
"""Two features of a neuron are of different kinds when the cosine of their decoder rows is below this."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One figure of the headline."""

    name: str
    value: str
    interval: str = ""
    says: str = ""
    """What it is and where it was measured, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Shelved:
    """A feature (or neuron) worth seeing, and what it was chosen for."""

    kind: str
    feature: int
    name: str
    why: str
    """The evidence, with its figure."""
    glimpse: Glimpse | None = None
    neuron: str = ""
    """LAYER.NUMBER of a neuron; empty for a feature."""


# ---- the headline ----


def headline(wb: Opened) -> list[Shown]:
    """What is known of the whole SAE: its report's headline, or the figures of its card, then how its features fare."""
    return [*(_reported(wb) or _carded(wb)), *_fares(wb)]


def _reported(wb: Opened) -> list[Shown]:
    folder = find_report(wb)
    if folder is None:
        return []
    known = read_report(folder / FILE, wb.card.sae_sha256).known_by()[:FIGURES]
    return [
        Shown(
            name=SHORT.get(one.figure.name, one.figure.name.replace("_", " ")),
            value=number(one.figure.value, one.figure),
            interval="" if one.figure.interval is None else _to(*one.figure.interval),
            says=one.figure.says,
        )
        for one in known
    ]


NAMES = {
    "fvu": ("FVU", "Share of the activations' variance that the SAE does not explain"),
    "delta_ce": ("ΔCE, nats", "What the model loses a token when it reads the SAE's reconstruction instead"),
    "l0": ("L0", "Features that fire on a token, mean"),
}


SHORT = {key: name for key, (name, _) in NAMES.items()} | {
    "recovered_mean": "CE score",
    "kl_ratio": "KL over random error's",
}
"""What figures of a report are called where there is little room."""


def _carded(wb: Opened) -> list[Shown]:
    figures = next((v for v in (wb.card.metrics, *wb.card.metrics.values()) if isinstance(v, dict) and "fvu" in v), {})
    shown = []
    for key, (name, says) in NAMES.items():
        value, interval = figures.get(key), figures.get(f"{key}_interval")
        if not isinstance(value, int | float):
            continue
        where = f", on {int(figures['tokens']):,} held-out tokens" if isinstance(figures.get("tokens"), int) else ""
        ends = _to(*map(float, interval)) if isinstance(interval, list) and len(interval) == 2 else ""
        shown.append(Shown(name=name, value=f"{value:.3g}", interval=ends, says=f"{says}{where}."))
    return shown


def _to(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}"


def _fares(wb: Opened) -> Iterator[Shown]:
    """How many features passed which test; nothing of what was not tried."""
    index, table = wb.index_or_none(), _table(wb)
    if index is not None:
        fires = int((index.features["fires"] > 0).sum())
        yield Shown(name="features fire", value=f"{fires:,}", interval=f"of {wb.sae.d_sae:,}", says="In the index.")
    if table is None:
        return
    if "label_verdict" in table.table.column_names:
        verdict = table.column("label_verdict")
        chance = int(np.isin(verdict, ["confirmed", "told from chance"]).sum())
        yield Shown(
            name="names told from chance",
            value=f"{chance:,}",
            interval=f"{int((verdict == 'confirmed').sum()):,} confirmed",
            says="On text that the names were not made from; confirmed are those that also beat what names of a random-weight "
            "model reach. Refuted: " + f"{int((verdict == 'refuted').sum()):,}.",
        )
    if "effect_exceeds" in table.table.column_names:
        yield Shown(
            name="cause more than controls",
            value=f"{int(_true(table.column('effect_exceeds')).sum()):,}",
            says="Ablated, they change the next token more than the same amount along other features does.",
        )
    if "again_found" in table.table.column_names:
        found, of = table.column("again_found"), table.column("again_of")
        yield Shown(
            name="found by other trainings",
            value=f"{int((found == of).sum()):,}",
            interval=f"by all {int(np.nanmax(of))}" if len(of) else "",
            says="Trainings that began from other seeds found the same feature again.",
        )


def _table(wb: Opened) -> EvidenceTable | None:
    try:
        return evidence(wb)
    except InterpError:  # nothing was tried: the shelf is filled from the index alone
        return None


def _true(column: np.ndarray) -> np.ndarray:
    return np.array([value is True or value is np.True_ for value in column])


# ---- the shelf ----


def shelf(wb: Opened) -> list[Shelved]:
    """Features worth seeing, each of another kind of text where that can be; a name that failed among them.

    Without evidence: those that fire in most documents of one kind of text. Raises InterpError when the SAE has no index.
    """
    table = _table(wb)
    topics, topic_F = text_groups(wb)
    used: set[int] = set()
    found: list[Shelved] = []

    def pick(score_F: np.ndarray) -> int | None:
        """The best of those that score above 0 and are not there yet, of a kind of text that no other is of, if there is one."""
        order = np.argsort(-np.nan_to_num(score_F, nan=-np.inf), kind="stable")[:200]
        there = {each.feature for each in found}
        best = [int(f) for f in order if score_F[f] > 0 and int(f) not in there]
        fresh = [f for f in best if topic_F[f] not in used and topic_F[f] != len(topics) - 1]
        chosen = next(iter(fresh or best), None)
        if chosen is not None:
            used.add(int(topic_F[chosen]))
        return chosen

    for kind, score_F, why in _wanted(wb, table):
        feature = pick(score_F)
        if feature is not None:
            found.append(
                Shelved(
                    kind=kind,
                    feature=feature,
                    name=wb.name(feature),
                    why=why(feature),
                    glimpse=glimpse(wb.index, feature),
                )
            )
    neuron = _neuron(wb, table)
    return [*found[:4], *([neuron] if neuron else []), *found[4:]]


Wanted = tuple[str, np.ndarray, Callable[[int], str]]


def _wanted(wb: Opened, table: EvidenceTable | None) -> Iterator[Wanted]:
    """Kinds of features, each with a score (the larger the better, 0 or nan for those that are not meant) and its reason."""
    there = set() if table is None else set(table.table.column_names)
    if table is None or not there & {"label_verdict", "effect_exceeds", "again_found"}:
        yield from _clear(wb)
        return
    if "label_verdict" in there:
        verdict, low, fires = (table.column(f"label_{name}") for name in ("verdict", "f1_low", "fires"))
        sure = np.where(verdict == "confirmed", np.nan_to_num(low) + 1e-6 * np.nan_to_num(fires), 0.0)
        f1 = table.column("label_f1")
        yield (
            "name confirmed",
            sure,
            lambda f: f"F1 {f1[f]:.2f} on {int(fires[f]):,} unseen firings, at least {low[f]:.2f}",
        )
    if "effect_exceeds" in there:
        kl, least, control = (table.column(f"effect_{name}") for name in ("kl", "kl_low", "control_kl_high"))
        beyond = np.where(_true(table.column("effect_exceeds")), least - control, 0.0)
        for kind in ("largest effect", "large effect"):
            yield kind, beyond, lambda f: f"ablated: KL {kl[f]:.2g} nats, controls at most {control[f]:.2g}"
    if "again_found" in there:
        again, of = table.column("again_found"), table.column("again_of")
        least_F = np.array(
            [min(map(float, r)) if r is not None and len(r) else 0.0 for r in table.column("again_correlation")]
        )
        same = np.where(again == of, least_F, 0.0)
        yield (
            "found again",
            same,
            lambda f: f"by {int(again[f])} of {int(of[f])} other trainings, correlation {least_F[f]:.2f} or more",
        )
    if "label_verdict" in there:
        failed = np.where(verdict == "refuted", np.nan_to_num(fires), 0.0)
        yield (
            "name refuted",
            failed,
            lambda f: f"F1 {f1[f]:.2f} on {int(fires[f]):,} unseen firings: the name does not say where it fires",
        )


def _clear(wb: Opened) -> Iterator[Wanted]:
    """Of an SAE without evidence: features that a simple rule explains, tried on documents that it was not mined on."""
    if wb.index.kind != "text":
        liked = wb.index.preferences
        what = {"pictures": "pictures", "sound": "clips"}.get(wb.index.kind, "items")
        score_F = best_of_each(liked, wb.sae.d_sae)
        for _ in range(5):
            one = {"pictures": "picture", "sound": "sound"}.get(wb.index.kind, "item")
            yield f"one kind of {one}", score_F, lambda f: liked[f].sentence(what)
    features = wb.index.features
    documents = features["documents"].to_numpy().astype(np.float64)
    if not wb.index.has_clean_levels:
        yield "fires in many documents", documents, lambda f: f"in {int(documents[f]):,} documents"
        return
    low, recall, count = (features[f"clean_{name}"].to_numpy() for name in ("low", "recall", "n"))
    score = np.nan_to_num(low * recall) + 1e-7 * documents
    for _ in range(5 if wb.index.kind == "text" else len(wb.index.vocabulary) > 2):
        yield (
            "one clear meaning" if wb.index.kind == "text" else "one place",
            score,
            lambda f: f"its rule holds on {int(count[f]):,} unseen firings, at {low[f]:.0%} of them or more",
        )


def _neuron(wb: Opened, table: EvidenceTable | None) -> Shelved | None:
    """The neuron nearest to two features that have little to do with each other, by the farther of the two."""
    near = wb.index.neurons
    if table is None or "label_f1_low" not in table.table.column_names or not len(near):
        return None
    named = near[near["feature"].isin(np.flatnonzero(table.column("label_f1_low") >= SURE))]
    pairs = named.sort_values("cosine", ascending=False).groupby(["layer", "neuron"], sort=False).head(2)
    second = pairs[pairs.duplicated(["layer", "neuron"])].head(50)
    rows = wb.sae.W_dec.float().cpu()
    for row in second.itertuples():
        both = pairs[(pairs["layer"] == row.layer) & (pairs["neuron"] == row.neuron)]
        one, other = (int(f) for f in both["feature"])
        if float(rows[one] @ rows[other] / (rows[one].norm() * rows[other].norm())) < UNALIKE:
            cosines = [f"{c:.2f}" for c in both["cosine"]]
            return Shelved(
                kind="one neuron, two meanings",
                feature=one,
                neuron=f"{row.layer}.{row.neuron}",
                name=f"{wb.name(one)} and {wb.name(other)}",
                why=f"neuron {row.layer}.{row.neuron} writes both, at cosines {cosines[0]} and {cosines[1]}",
            )
    return None
