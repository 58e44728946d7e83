"""Several SAEs of one model on the same tokens: each as it is and at equal L0, and which is better by how much.

L0, EV, ΔCE, KL and what is recovered are those of `fidelity`, over the positions that count for all of them; a *difference* of A and B
is A's less B's, in each of EV, ΔCE and KL, at the same L0.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.corpus import TokenBlocks
from interp.evals.baseline import ROWS, Baseline, Losses, read_baselines, reconstruct
from interp.evals.comparison import MEASURES, Compared, Comparison, Difference, Q, Row
from interp.evals.documents import Documents
from interp.evals.fidelity import NOTHING_ADDED
from interp.evals.in_place import measure_losses
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
Key = tuple[str, int | None]
"""A reading: which SAE, at which L0."""


@dataclass(frozen=True)
class Reading:
    """One dictionary at one sparsity."""

    sae: str
    """The letter it is compared by."""
    wanted: int | None
    """The L0 it is read at; None: its own."""
    sparser: Sparser
    whole: bool = False
    """Whether it passes all that the dictionary passes, so that it is the reading at its own L0 once more."""


@dataclass(frozen=True, eq=False)
class _Found:
    """What was measured of one reading, by counted position."""

    base: Baseline
    error_P: np.ndarray
    l0_P: np.ndarray
    losses: Losses

    def above_and_below(self, measure: str) -> tuple[np.ndarray, np.ndarray]:
        """What a measure is the ratio of; of ev, what is left of 1."""
        clean_P = self.base.losses["clean"].ce_P
        if measure == "ev":
            return self.error_P, self.base.spread_P
        if measure == "delta_ce":
            return self.losses.ce_P - clean_P, self.base.predicted_P.astype(np.float64)
        return self.losses.kl_P, np.ones(self.base.positions)


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
    _check(saes, blocks, l0s)
    places = {(sae.reads, sae.writes) for sae in saes.values()}
    passes = 1 + 3 * len(places) + len(saes) * (1 + (len(l0s) or 2))
    with bar(f"compare, about {passes} passes", passes * blocks.positions, "tokens read") as step:
        read = read_baselines(
            model, list(saes.values()), blocks, cutoffs=_lowest(cutoffs), batch_blocks=batch_blocks, step=step
        )
        bases = dict(zip(saes, read, strict=True))
        if read[0].documents.count < LEAST_DOCUMENTS:
            raise InterpError(
                "the text that counts is of one document, and differences are judged over documents; give more tokens."
            )
        readings = plan(saes, {letter: _strengths(bases[letter], sae) for letter, sae in saes.items()}, bases, l0s)
        found = _measure(bases, readings, step)
    rows = tuple(_row(reading, found[reading.sae, reading.wanted]) for reading in readings)
    compared = tuple(about) or tuple(described(letter, sae) for letter, sae in saes.items())
    return Comparison(
        saes=compared,
        rows=rows,
        differences=_differences(saes, readings, found),
        notes=_notes(saes, rows, l0s),
        of=dict(of or {}) | _of(model, blocks, read),
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
        writes=_written(sae),
        assumed=tuple(assumed),
    )


def _check(saes: Mapping[str, SAE], blocks: TokenBlocks, l0s: Sequence[int]) -> None:
    if len(saes) < 2:
        raise InterpError("one SAE is nothing to compare; give two or more.")
    if any(l0 < 1 for l0 in l0s):
        raise InterpError(f"an L0 to compare at is {min(l0s)}; it is a number of features from 1 on.")
    if len(blocks.documents) < LEAST_DOCUMENTS:
        raise InterpError("the text is one document, and differences are judged over documents; give more tokens.")


def _written(sae: SAE) -> tuple[str, ...]:
    """The hook points that it writes."""
    return tuple(str(hook) for hook in sae.writes)


def _lowest(cutoffs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The cut-offs under which a position counts where it does for all: the lowest at each hook point."""
    lowest: dict[str, float] = {}
    for each in cutoffs.values():
        for hook, cutoff in each.items():
            lowest[hook] = min(cutoff, lowest.get(hook, math.inf))
    return lowest


# ---- which readings ----


def plan(
    saes: Mapping[str, SAE], strengths: Mapping[str, Tensor], bases: Mapping[str, Baseline], l0s: Sequence[int] = ()
) -> list[Reading]:
    """Every SAE as it is, and at each L0 that it can be read at; `strengths` are of all that each passes on its baseline.

    Raises InterpError when an L0 that was asked is one that fewer than two can be read at.
    """
    own = {letter: len(strengths[letter]) / bases[letter].positions for letter in saes}
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
        readings += [
            _reading(letter, saes[letter], l0, strengths[letter], l0 * bases[letter].positions) for letter in can
        ]
    return readings


def _strengths(base: Baseline, sae: SAE) -> Tensor:
    """Of every entry that it passes at counted positions."""
    strong = Sparser(sae)
    return torch.cat([strong.strengths(sae.active(x_BD)).cpu() for x_BD in base.rows(sae.reads).split(ROWS)])


def _reading(letter: str, sae: SAE, l0: int, strength_N: Tensor, entries: int) -> Reading:
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


# ---- measured ----


def _measure(
    bases: Mapping[str, Baseline], readings: Sequence[Reading], step: Callable[[int], None]
) -> dict[Key, _Found]:
    """Every reading, each put in place once; the untouched and the ablated passes are run once for each baseline."""
    found: dict[Key, _Found] = {}
    for base in {id(base): base for base in bases.values()}.values():
        here = [reading for reading in readings if bases[reading.sae] is base and not reading.whole]
        made = {}
        for reading in here:
            one = reconstruct(base, reading.sparser)
            # As the model takes them, which is half of the memory where it runs in bfloat16.
            made[reading.sae, reading.wanted] = replace(one, made_PO=one.made_PO.to(base.model.dtype))
        names = {key: f"{key[0]} {key[1]}" for key in made}
        losses = measure_losses(base, {names[key]: one.change() for key, one in made.items()}, step=step)
        found |= {key: _Found(base, one.error_P, one.l0_P, losses[names[key]]) for key, one in made.items()}
    whole = {(r.sae, r.wanted): found[r.sae, None] for r in readings if r.whole}
    return found | whole


def _row(reading: Reading, found: _Found) -> Row:
    base, docs = found.base, found.base.documents
    figures = [docs.mean("l0", "active features a token", found.l0_P)]
    says = {
        "ev": "explained variance",
        "delta_ce": "what it adds to the loss, nats a token",
        "kl": "KL from the untouched model, nats a token",
    }
    for measure, words in says.items():
        better = MEASURES[measure][1]
        above_P, below_P = found.above_and_below(measure)
        figures.append(docs.ratio(measure, words, above_P, below_P, better=better, less_from_one=measure == "ev"))
    clean_P = base.losses["clean"].ce_P
    for how in ("zero", "mean"):
        words = f"share of the loss that {how} ablation adds and it does not"
        added_P, ablation_P = found.losses.ce_P - clean_P, base.losses[how].ce_P - clean_P
        figures.append(
            docs.ratio(
                f"recovered_{how}",
                words,
                added_P,
                ablation_P,
                better="higher",
                less_from_one=True,
                certain=NOTHING_ADDED,
            )
        )
    return Row(letter=reading.sae, wanted=reading.wanted, how=_how(reading), figures=tuple(figures))


def _of(model: Model, blocks: TokenBlocks, read: Sequence[Baseline]) -> dict[str, Any]:
    one = read[0]
    predictions = int(one.predicted_P.sum())
    ablated = {
        f"ce_{how} at {', '.join(map(str, base.writes))}": float(base.losses[how].ce_P.sum() / predictions)
        for base in read
        for how in ("zero", "mean")
    }
    return {
        "model": model.name,
        "dtype": model.dtype_name,
        "tokens": blocks.positions,
        "tokens_sha256": blocks.sha256(),
        "documents": one.documents.count,
        "counted": one.positions,
        "predictions": predictions,
        "ce": float(one.losses["clean"].ce_P.sum() / predictions),
    } | ablated


# ---- differences ----


def _differences(
    saes: Mapping[str, SAE], readings: Sequence[Reading], found: Mapping[Key, _Found]
) -> tuple[Difference, ...]:
    """Of every pair that was read at the same L0, and of every pair as it is."""
    raw: list[tuple[str, str, str, int | None, np.ndarray, np.ndarray]] = []
    for wanted in dict.fromkeys(reading.wanted for reading in readings):
        for a, b in combinations(saes, 2):
            if not {(a, wanted), (b, wanted)} <= found.keys():
                continue
            for measure in MEASURES:
                if measure == "ev" and _written(saes[a]) != _written(saes[b]):
                    continue
                one, other = (found[letter, wanted] for letter in (a, b))
                (above_P, below_P), (others_P, _) = (each.above_and_below(measure) for each in (one, other))
                turned_P = others_P - above_P if measure == "ev" else above_P - others_P
                raw.append((a, b, measure, wanted, *_sums(one.base.documents, turned_P, below_P)))
    p_C = _two_sided(np.stack([difference_D for *_, difference_D, _ in raw]))
    q_C = benjamini_hochberg(p_C) if len(saes) > 2 else None
    return tuple(_difference(*one, float(p_C[c]), None if q_C is None else float(q_C[c])) for c, one in enumerate(raw))


def _sums(documents: Documents, above_P: np.ndarray, below_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return documents.sums(above_P), documents.sums(below_P)


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
    places = dict.fromkeys(_written(sae) for sae in saes.values())
    if len(places) > 1:
        at = "; ".join(
            f"{', '.join(letter for letter, sae in saes.items() if _written(sae) == place)} at {', '.join(place)}"
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
