"""Several SAEs of one model on the same tokens: each as it is and at equal L0, and which is better by how much.

Definitions (sums and means over the positions that count for all of them)
    L0           entries a position, as counted on this text.
    EV           1 - Σ‖y - ŷ‖² / Σ‖y - mean y‖², one global sum each, in float64.
    ΔCE          mean next-token cross entropy in nats with ŷ in place of y, less that of the untouched model.
    KL           mean Σ_v p(v) (ln p(v) - ln p̂(v)) in nats, p of the untouched model and p̂ with ŷ in place.
    recovered    (CE ablated - CE with ŷ) / (CE ablated - CE untouched), against zeros and against the mean.
    difference   of A and B: A's less B's, in each of EV, ΔCE and KL, at the same L0.

At equal L0 an SAE passes the strongest of what it passes (`sae.sparser`): of the rule topk the k strongest of every position,
else what reaches the one level at which exactly so many entries pass on this text. Every figure is measured at the L0 that stands
beside it; none is interpolated. An SAE cannot be read at a higher L0 than its own. EV is compared only between SAEs that write
the same hook points, for elsewhere it is a share of something else; ΔCE and KL are in nats of the same tokens everywhere.

Intervals are 95 % percentile bootstraps over documents, the same documents drawn for both of a pair (`statistics`). p is of the
randomisation test in which each document's difference may have the other sign, two-sided (the smaller tail doubled). A
difference holds where the interval leaves out 0 and p is at most .05, for a bootstrap of few documents is too narrow; where
more than two are compared, Benjamini and Hochberg's q over all comparisons of the run must be at most .05, too.

Axes    D document, C comparison.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from interp.corpus import TokenBlocks
from interp.evals.comparison import MEASURES, Compared, Comparison, Difference, Q, Row
from interp.evals.figure import Figure
from interp.evals.side_by_side import Documents, Reading, Survey, all_hooks, measure, survey, written
from interp.mask import Mask
from interp.models import Model
from interp.progress import bar
from interp.sae import SAE
from interp.sae.sparser import Sparser, level_of
from interp.statistics import benjamini_hochberg, bootstrap_ratio, sign_flip_p
from interp.types import InterpError

GRID = (16, 32, 64, 128, 256, 512)
"""L0s that are compared at where none are asked, below the lowest own L0; that itself, rounded down, is compared at too."""
LEAST_DOCUMENTS = 2
FEW_DOCUMENTS = 20
"""With fewer, what is printed says that intervals are rough."""


@torch.inference_mode()
def compare(
    model: Model,
    saes: Mapping[str, SAE],
    blocks: TokenBlocks,
    *,
    cutoffs: Mapping[str, Mapping[str, float]],
    l0s: Sequence[int] = (),
    about: Sequence[Compared] = (),
    of: Mapping[str, Any] | None = None,
    batch_blocks: int = 4,
) -> Comparison:
    """The SAEs, by the letters that tables call them, over the blocks; `cutoffs` are each one's (`Card.mask`).

    A position counts where it counts for all. `l0s` are the L0s to compare at (without: GRID, as far as all can be read).
    Raises InterpError for fewer than two SAEs, one that does not fit the model, a text without two documents, and an L0 that fewer
    than two can be read at.
    """
    _check(model, saes, blocks, l0s)
    mask, passes = _common(cutoffs), 2 + 2 * len({written(sae) for sae in saes.values()})
    guess = passes + len(saes) * (1 + (len(l0s) or 2))
    with bar(f"compare, about {guess} passes", guess * blocks.positions, "tokens read") as step:
        seen = survey(model, saes, blocks, mask, batch_blocks, step)
        readings = plan(saes, seen, l0s)
        sums = measure(model, readings, blocks, seen, batch_blocks, step)
    if len(sums.rows_D) < LEAST_DOCUMENTS:
        raise InterpError(
            "the text that counts is of one document, and differences are judged over documents; give more tokens."
        )
    if not sums.predictions_D.sum():
        raise InterpError("no counted position of this text has a token after it to be predicted; give longer texts.")
    rows = tuple(_row(reading, saes[reading.sae], sums) for reading in readings)
    compared = tuple(about) or tuple(described(letter, sae) for letter, sae in saes.items())
    of = dict(of or {}) | _of(model, blocks, seen, sums)
    return Comparison(
        saes=compared, rows=rows, differences=_differences(saes, readings, sums), notes=_notes(saes, rows, l0s), of=of
    )


def described(letter: str, sae: SAE, given: str = "", assumed: Sequence[str] = ()) -> Compared:
    """What is said of an SAE that is compared."""
    return Compared(
        letter=letter,
        given=given or sae.name,
        name=sae.name,
        d_sae=sae.d_sae,
        rule=sae.rule,
        reads=tuple(str(hook) for hook in sae.reads),
        writes=written(sae),
        assumed=tuple(assumed),
    )


def _check(model: Model, saes: Mapping[str, SAE], blocks: TokenBlocks, l0s: Sequence[int]) -> None:
    if len(saes) < 2:
        raise InterpError("one SAE is nothing to compare; give two or more.")
    if any(l0 < 1 for l0 in l0s):
        raise InterpError(f"an L0 to compare at is {min(l0s)}; it is a number of features from 1 on.")
    if len(blocks.documents) < LEAST_DOCUMENTS:
        raise InterpError("the text is one document, and differences are judged over documents; give more tokens.")
    all_hooks(model, saes)


def _common(cutoffs: Mapping[str, Mapping[str, float]]) -> Mask:
    """The mask under which a position counts where it does for all: the lowest cut-off at each hook point."""
    lowest: dict[str, float] = {}
    for each in cutoffs.values():
        for hook, cutoff in each.items():
            lowest[hook] = min(cutoff, lowest.get(hook, math.inf))
    return Mask(lowest)


# ---- which readings ----


def plan(saes: Mapping[str, SAE], seen: Survey, l0s: Sequence[int] = ()) -> list[Reading]:
    """Every SAE as it is, and at each L0 that it can be read at.

    Raises InterpError when an L0 that was asked is one that fewer than two can be read at.
    """
    own = {letter: len(seen.strengths[letter]) / seen.rows for letter in saes}
    lowest = math.floor(min(own.values()))
    grid = sorted(set(l0s)) or [*(l0 for l0 in GRID if l0 < lowest), *([lowest] if lowest else [])]
    readings = [Reading(letter, None, Sparser(sae)) for letter, sae in saes.items()]
    for l0 in grid:
        can = [letter for letter in saes if l0 <= own[letter]]
        if len(can) < 2:
            reach = ", ".join(f"{letter} {value:.4g}" for letter, value in own.items())
            raise InterpError(
                f"fewer than two of these can be read at L0 {l0}: their own are {reach}; ask for a lower one."
            )
        readings += [_reading(letter, saes[letter], l0, seen) for letter in can]
    return readings


def _reading(letter: str, sae: SAE, l0: int, seen: Survey) -> Reading:
    strength_N = seen.strengths[letter]
    entries = l0 * seen.rows
    if sae.rule == "topk" and sae.k is not None:
        return Reading(letter, l0, Sparser(sae, k=l0), whole=l0 >= sae.k)
    return Reading(letter, l0, Sparser(sae, level=level_of(strength_N, entries)), whole=entries == len(strength_N))


def _how(reading: Reading) -> str:
    if reading.wanted is None or reading.whole:
        return "as it is"
    thinned = reading.sparser
    return (
        f"the {thinned.k} strongest of a position"
        if thinned.level is None
        else f"what writes at least {thinned.level:.4g}"
    )


# ---- figures ----


def _row(reading: Reading, sae: SAE, sums: Documents) -> Row:
    place, one = written(sae), sums.readings[reading.sae, reading.wanted]
    documents = len(sums.rows_D)

    def figure(
        name: str, says: str, above_D: np.ndarray, below_D: np.ndarray, better: Any = "", turn: float = 0.0
    ) -> Figure:
        """A ratio of sums, or what it leaves of 1."""
        found, interval = float(above_D.sum() / below_D.sum()), bootstrap_ratio(above_D, below_D)
        if turn:
            found = turn - found
            interval = None if interval is None else (turn - interval[1], turn - interval[0])
        return Figure(
            name=name, says=says, value=found, interval=interval, n=documents, unit="documents", better=better
        )

    added_D = one.ce_D - sums.ce_D
    figures = [
        figure("l0", "active features a token", one.entries_D, sums.rows_D),
        figure("ev", "explained variance", one.error_D, sums.spread_D[place], "higher", 1.0),
        figure("delta_ce", "what it adds to the loss, nats a token", added_D, sums.predictions_D, "lower"),
        figure("kl", "KL from the untouched model, nats a token", one.kl_D, sums.predictions_D, "lower"),
    ]
    for how in ("zero", "mean"):
        ablation_D = sums.ablated_D[place, how] - sums.ce_D
        name, says = f"recovered_{how}", f"share of the loss that {how} ablation adds and it does not"
        sure = bootstrap_ratio(ablation_D, sums.predictions_D)
        if sure is None or sure[0] <= 0:
            note = "what ablation adds to the loss cannot be told from 0, so no share of it is recovered"
            figures.append(
                Figure(name=name, says=says, value=None, n=documents, unit="documents", better="higher", note=note)
            )
        else:
            figures.append(figure(name, says, added_D, ablation_D, "higher", 1.0))
    return Row(letter=reading.sae, wanted=reading.wanted, how=_how(reading), figures=tuple(figures))


def _of(model: Model, blocks: TokenBlocks, seen: Survey, sums: Documents) -> dict[str, Any]:
    predictions = float(sums.predictions_D.sum())
    ablated = {
        f"ce_{how} at {', '.join(place)}": float(ce_D.sum() / predictions)
        for (place, how), ce_D in sums.ablated_D.items()
    }
    return {
        "model": model.name,
        "dtype": model.dtype_name,
        "tokens": blocks.positions,
        "tokens_sha256": blocks.sha256(),
        "documents": len(sums.rows_D),
        "counted": seen.rows,
        "predictions": int(predictions),
        "ce": float(sums.ce_D.sum() / predictions),
    } | ablated


# ---- differences ----


def _differences(saes: Mapping[str, SAE], readings: Sequence[Reading], sums: Documents) -> tuple[Difference, ...]:
    """Of every pair that was read at the same L0, and of every pair as it is."""
    have = {(reading.sae, reading.wanted) for reading in readings}
    raw: list[tuple[str, str, str, int | None, np.ndarray, np.ndarray]] = []
    for wanted in dict.fromkeys(reading.wanted for reading in readings):
        for a, b in combinations(saes, 2):
            if not {(a, wanted), (b, wanted)} <= have:
                continue
            one, other = sums.readings[a, wanted], sums.readings[b, wanted]
            if written(saes[a]) == written(saes[b]):
                raw.append((a, b, "ev", wanted, other.error_D - one.error_D, sums.spread_D[written(saes[a])]))
            raw.append((a, b, "delta_ce", wanted, one.ce_D - other.ce_D, sums.predictions_D))
            raw.append((a, b, "kl", wanted, one.kl_D - other.kl_D, sums.predictions_D))
    p_C = _two_sided(np.stack([difference_D for *_, difference_D, _ in raw]))
    q_C = benjamini_hochberg(p_C) if len(saes) > 2 else None
    return tuple(_difference(*one, float(p_C[c]), None if q_C is None else float(q_C[c])) for c, one in enumerate(raw))


def _two_sided(difference_CD: np.ndarray) -> np.ndarray:
    return np.minimum(2 * np.minimum(sign_flip_p(difference_CD), sign_flip_p(-difference_CD)), 1.0)


def _difference(
    a: str,
    b: str,
    measure: str,
    wanted: int | None,
    above_D: np.ndarray,
    below_D: np.ndarray,
    p: float,
    q: float | None,
) -> Difference:
    value, interval = float(above_D.sum() / below_D.sum()), bootstrap_ratio(above_D, below_D)
    assert interval is not None  # there are two documents
    told = not interval[0] <= 0 <= interval[1] and max(p, q or 0.0) <= Q
    higher = "" if not told else a if value > 0 else b
    better = higher if not higher or MEASURES[measure][1] == "higher" else b if higher == a else a
    words = MEASURES[measure][0]
    if better:
        ends = sorted((abs(interval[0]), abs(interval[1])))
        amount = f"{abs(value):.4g} ({ends[0]:.4g} to {ends[1]:.4g})"
        says = f"{better} is better than {b if better == a else a} by {amount} in {words}"
    else:
        says = f"{a} and {b} cannot be told apart in {words}: {value:.4g} ({interval[0]:.4g} to {interval[1]:.4g})"
    return Difference(
        a=a, b=b, measure=measure, wanted=wanted, value=value, interval=interval, p=p, q=q, better=better, says=says
    )  # fmt: skip


def _notes(saes: Mapping[str, SAE], rows: Sequence[Row], l0s: Sequence[int]) -> tuple[str, ...]:
    notes = []
    places = dict.fromkeys(written(sae) for sae in saes.values())
    if len(places) > 1:
        at = "; ".join(
            f"{', '.join(letter for letter, sae in saes.items() if written(sae) == place)} at {', '.join(place)}"
            for place in places
        )
        notes.append(f"They write different hook points ({at}): explained variance is not compared between these.")
    own = {row.letter: row["l0"].value or 0.0 for row in rows if row.wanted is None}
    if len({f"{value:.3g}" for value in own.values()}) > 1:
        notes.append("As they are, their L0s differ: compare them at equal L0.")
    for l0 in sorted(set(l0s)):
        cannot = [f"{letter} ({value:.4g})" for letter, value in own.items() if value < l0]
        if cannot:
            notes.append(f"At L0 {l0} without {', '.join(cannot)}, which cannot be read above their own.")
    if rows[0]["l0"].n < FEW_DOCUMENTS:
        notes.append(f"Intervals over {rows[0]['l0'].n} documents are rough; give more tokens.")
    return tuple(notes)
