"""Planted features: how many a dictionary found in rows whose features are known, and what it made of a planted hierarchy.

In a planted world rows are sums of known directions. That makes it a measure of a *recipe*, of which a small dictionary is trained
there (`recipe.worlds`), and not of the SAE that the recipe made of a model.

    MCC          mean absolute cosine of one-to-one pairs of decoder rows and planted directions (`sae.rows.partners`)
    floor        the same of random rows; it grows as the width shrinks. Above floor: (MCC - floor) / (1 - floor)
    detection    each latent as a detector of the feature whose direction is nearest its row (largest absolute cosine): precision, recall and
                 F1 of firing against the feature's, macro means over latents, 0 where there is nothing to divide by
    uniqueness   distinct nearest features, as a share of the latents

In a hierarchy a child is on only where its parent is. A parent's latent, and a child's, is the one whose row has the largest cosine with its
direction; a parent is *found* when that cosine is at least FOUND. The others cannot be absorbed, so that an untrained dictionary has no
absorption: read it beside `parents_found`.

    silent       share of positions at which a found parent is on with a child, and its latent is off
    silent alone the same at positions without a child: what the parent's latent misses anyway
    absorbed     share of positions with a child at which the parent's latent is off, while the latent of a child that is on fires, and
                 that one's row carries the parent: in row ≈ α v_child + β v_parent (least squares), α > 0 and β ≥ CARRIES α
    split        share of found parents that several latents detect together (one of them fires) by more than SPLIT in F1 better than the
                 best one does; latents are added greedily, at most SEVERAL, on one half of the rows, and judged on the other

Intervals are bootstraps over latents, pairs or parents.

Axes    N row, P planted feature, F latent, D width, E edge from parent to child.
Source  arXiv:2505.20254 (MCC); SAELens' `sae_lens.synthetic` (detection, as its scorer defines it); Chanin et al. 2024, "A is for Absorption",
        arXiv:2409.14507 (absorption, and splitting by a rise of F1 over .03), of which this is the form where the truth is known.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.evals.figure import Figure, Section
from interp.sae import SAE
from interp.sae.metrics import reconstruction
from interp.sae.rows import partners, random_rows, unit
from interp.statistics import bootstrap_means, bootstrap_ratio
from interp.types import InterpError

FLOORS = 5
"""Random dictionaries over which the floor is a mean."""
FOUND = 0.5
CARRIES = 0.25
SPLIT = 0.03
SEVERAL = 5
AT_ONCE = 4_096


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted."""

    direction_PD: Float[Tensor, "P D"]
    parent_P: Int[np.ndarray, " P"]
    """Number of each feature's parent; -1 for those that have none."""
    rows_ND: Float[Tensor, "N D"]
    """Rows that nothing was trained on."""
    on_NP: Bool[Tensor, "N P"]
    """Which features are on in them."""


@torch.no_grad()
def measure_planted(sae: SAE, truth: Truth, *, of: Mapping[str, Any] | None = None, seed: int = 0) -> Section:
    """What a dictionary found of what was planted; `of` says of which recipe and world it is.

    Raises InterpError when widths differ, or no feature is on in the rows.
    """
    if sae.d_in != truth.direction_PD.shape[1]:
        raise InterpError(
            f"{sae.name} reads rows of width {sae.d_in}, and the planted directions have {truth.direction_PD.shape[1]}; train it "
            "on rows of this world."
        )
    if not bool(truth.on_NP.any()):
        raise InterpError("no planted feature is on in these rows; draw more of them.")
    began = time.perf_counter()
    fires_NF = torch.cat([sae.active(part).dense() > 0 for part in truth.rows_ND.split(AT_ONCE)]).cpu()
    figures = (*_recovery(sae, truth, fires_NF, seed), *_hierarchy(sae, truth, fires_NF))
    return Section(
        name="planted",
        title="Planted features: how many the recipe finds where the truth is known",
        figures=figures,
        of={
            "rows": len(truth.rows_ND),
            "planted": len(truth.direction_PD),
            "width": sae.d_in,
            "d_sae": sae.d_sae,
            "seed": seed,
            "found": FOUND,
            "carries": CARRIES,
            "split": SPLIT,
            **(of or {}),
        },
        seconds=time.perf_counter() - began,
    )


# ---- recovery ----


def _recovery(sae: SAE, truth: Truth, fires_NF: Bool[Tensor, "N F"], seed: int) -> tuple[Figure, ...]:
    matched = partners(sae.W_dec, truth.direction_PD)
    count, width = sae.W_dec.shape
    floors = [partners(random_rows(count, width, seed + draw), truth.direction_PD).mcc for draw in range(FLOORS)]
    floor = float(np.mean(floors))
    low, high = (float(end[0]) for end in bootstrap_means(matched.cosine_M[None]))
    pairs: dict[str, Any] = {"n": len(matched.cosine_M), "unit": "pairs", "better": "higher"}
    sums, rows = reconstruction(sae, truth.rows_ND), len(truth.rows_ND)
    return (
        Figure(name="mcc", says="mean cosine of one-to-one pairs with planted directions", value=matched.mcc,
               interval=(low, high), **pairs),
        Figure(name="mcc_floor", says="the same of random rows", value=floor, n=FLOORS, unit="random dictionaries"),
        Figure(name="mcc_above_floor", says="(mcc - floor) / (1 - floor)", value=(matched.mcc - floor) / (1 - floor),
               interval=((low - floor) / (1 - floor), (high - floor) / (1 - floor)), **pairs),
        *_detection(sae, truth, fires_NF),
        Figure(name="fvu", says="squared error as a share of the variance, on rows not trained on", value=sums.fvu, n=rows,
               unit="rows", better="lower"),
        Figure(name="l0", says="latents that fire in a row", value=sums.l0, n=rows, unit="rows"),
        Figure(name="planted_l0", says="planted features that are on in a row", n=rows, unit="rows",
               value=float(truth.on_NP.sum()) / rows),
        Figure(name="dead_share", says="share of latents that fire on no row", value=sums.dead / sae.d_sae, n=sae.d_sae,
               unit="latents", better="lower"),
    )  # fmt: skip


def _detection(sae: SAE, truth: Truth, fires_NF: Bool[Tensor, "N F"]) -> tuple[Figure, ...]:
    cosine_FP = (unit(sae.W_dec.cpu()) @ unit(truth.direction_PD).T).abs()
    nearest_F = cosine_FP.argmax(1)
    scores = _scores(fires_NF, truth.on_NP[:, nearest_F])
    ends = [bootstrap_means(score_F[None]) for score_F in scores]
    says = {
        "precision": "of the positions at which a latent fires, those at which its nearest feature is on",
        "recall": "of the positions at which its nearest feature is on, those at which a latent fires",
        "f1": "harmonic mean of the two, latent by latent",
    }
    made = [
        Figure(name=name, says=f"{text}; mean over latents", value=float(score_F.mean()),
               interval=(float(low[0]), float(high[0])), n=sae.d_sae, unit="latents", better="higher")
        for (name, text), score_F, (low, high) in zip(says.items(), scores, ends, strict=True)
    ]  # fmt: skip
    unique = len(nearest_F.unique()) / sae.d_sae
    text = "distinct nearest features, as a share of the latents"
    return *made, Figure(name="uniqueness", says=text, value=unique, n=sae.d_sae, unit="latents", better="higher")


def _scores(
    said_NF: Bool[Tensor, "N F"], true_NF: Bool[Tensor, "N F"]
) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, " F"], Float[np.ndarray, " F"]]:
    """(precision, recall, F1) of each column; 0 where there is nothing to divide by."""
    hits, said, true = ((each.sum(0).double().numpy()) for each in (said_NF & true_NF, said_NF, true_NF))
    precision, recall = hits / np.maximum(said, 1), hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(said + true, 1)


# ---- the hierarchy ----


@dataclass(frozen=True)
class _Parent:
    """Positions counted of one parent."""

    found: bool
    with_child: int
    silent: int
    absorbed: int
    alone: int
    silent_alone: int
    split: bool
    """Whether several latents detect it better together."""
    one: int = 1


def _hierarchy(sae: SAE, truth: Truth, fires_NF: Bool[Tensor, "N F"]) -> tuple[Figure, ...]:
    """The figures of absorption and splitting; none where nothing was planted under anything, or was on."""
    W_FD, directions = unit(sae.W_dec.cpu()), unit(truth.direction_PD)
    cosine_FP = W_FD @ directions.T
    latent_P = cosine_FP.argmax(0)
    counts = []
    for parent in np.unique(truth.parent_P[truth.parent_P >= 0]).tolist():
        children = np.flatnonzero(truth.parent_P == parent).tolist()
        if bool((truth.on_NP[:, parent] & truth.on_NP[:, children].any(1)).any()):
            carriers = [c for c in children if _carries(W_FD[latent_P[c]], directions[c], directions[parent])]
            found = float(cosine_FP[latent_P[parent], parent]) >= FOUND
            counts.append(_count(truth, fires_NF, latent_P, parent, children, carriers, found))
    return _said(counts) if counts else ()


def _carries(row_D: Tensor, child_D: Tensor, parent_D: Tensor) -> bool:
    """Whether a child's row holds enough of the parent beside the child."""
    fit = torch.linalg.lstsq(torch.stack([child_D, parent_D], dim=1), row_D[:, None]).solution
    own, parent = float(fit[0]), float(fit[1])
    return own > 0 and parent >= CARRIES * own


def _count(
    truth: Truth,
    fires_NF: Bool[Tensor, "N F"],
    latent_P: Int[Tensor, " P"],
    parent: int,
    children: Sequence[int],
    carriers: Sequence[int],
    found: bool,
) -> _Parent:
    on_N, fires_N = truth.on_NP[:, parent], fires_NF[:, latent_P[parent]]
    child_N = on_N & truth.on_NP[:, children].any(1)
    carried_N = (truth.on_NP[:, carriers] & fires_NF[:, latent_P[carriers]]).any(1)
    silent_N, alone_N = child_N & ~fires_N, on_N & ~child_N
    return _Parent(
        found=found,
        with_child=int(child_N.sum()),
        silent=int(silent_N.sum()),
        absorbed=int((silent_N & carried_N).sum()),
        alone=int(alone_N.sum()),
        silent_alone=int((alone_N & ~fires_N).sum()),
        split=_rise(fires_NF, on_N) > SPLIT,
    )


def _rise(fires_NF: Bool[Tensor, "N F"], on_N: Bool[Tensor, " N"]) -> float:
    """How much better several latents detect a feature together than the best one, on rows that chose neither."""
    half = len(on_N) // 2
    chosen_NF, judged_NF = fires_NF[:half], fires_NF[half:]
    any_N, taken, best = torch.zeros(half, dtype=torch.bool), list[int](), 0.0
    for _ in range(SEVERAL):
        f1_F = _scores(chosen_NF | any_N[:, None], on_N[:half, None].expand(-1, fires_NF.shape[1]))[2]
        latent = int(f1_F.argmax())
        if f1_F[latent] <= best:
            break
        best, any_N = float(f1_F[latent]), any_N | chosen_NF[:, latent]
        taken.append(latent)
    if len(taken) < 2:
        return 0.0
    said = torch.stack([judged_NF[:, taken[0]], judged_NF[:, taken].any(1)], dim=1)
    one, several = _scores(said, on_N[half:, None].expand(-1, 2))[2]
    return float(several - one)


def _said(counts: Sequence[_Parent]) -> tuple[Figure, ...]:
    found = [one for one in counts if one.found]

    def share(name: str, says: str, of: Sequence[_Parent], hits: str, total: str) -> Figure:
        hit_U, all_U = (np.array([getattr(one, each) for one in of], dtype=np.float64) for each in (hits, total))
        known = bool(all_U.sum() > 0)
        return Figure(
            name=name,
            says=says,
            value=float(hit_U.sum() / all_U.sum()) if known else None,
            interval=bootstrap_ratio(hit_U, all_U) if known else None,
            n=len(of),
            unit="parents",
            better="lower",
            note="" if known else "no parent was found, so none can be silent or split",
        )

    found_U, ones = np.array([one.found for one in counts], float), np.ones(len(counts))
    return (
        Figure(
            name="parents_found", says=f"share of parents with a row at a cosine of at least {FOUND:g}",
            value=float(found_U.mean()), interval=bootstrap_ratio(found_U, ones), n=len(counts), unit="parents", better="higher",
        ),
        share("absorbed", "share of positions with a child at which the child's latent stands for the found parent's",
              found, "absorbed", "with_child"),
        share("silent", "share of positions with a child at which the found parent's latent is off", found, "silent", "with_child"),
        share("silent_alone", "share of positions without a child at which it is off", found, "silent_alone", "alone"),
        share("split", f"share of found parents that several latents detect better than one by over {SPLIT:g} in F1",
              found, "split", "one"),
    )  # fmt: skip
