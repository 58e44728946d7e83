"""How well a dictionary stands in for the activations it writes: FVU, L0, dead features, and the loss and KL of the model.

An SAE writes what it reads, a transcoder another hook point, a crosscoder several: y is what stands at the hook points
that are written, side by side, and ŷ what the dictionary makes of what it reads.

Axes    N block, T position, P counted position, O d_out, F d_sae.

Definitions (docs/evaluation.md has them beside other libraries')
    FVU, EV      Σ‖y - ŷ‖² / Σ‖y - mean y‖², one global sum each, in float64; EV = 1 - FVU.
    median FVU   the median over positions of ‖y - ŷ‖² / ‖y - mean y‖².
    L0           Σ active features / counted positions.
    dead         features that are active at no counted position; their number depends on how many there are.
    dense        features active at more than a tenth of the counted positions.
    CE           mean next-token cross entropy in nats over predictions made at counted positions.
    ΔCE          CE with ŷ in place of y at every hook point that is written, less CE untouched; ŷ is made of what an
                 untouched pass gives.
    recovered    (CE ablated - CE with ŷ) / (CE ablated - CE untouched), against zero and against mean ablation.
    KL           mean KL(untouched ‖ changed) in nats over counted positions, with ŷ, with each ablation, and with y + u,
                 u of a random direction and as long as y - ŷ at each position.
    KL score     (KL ablated - KL with ŷ) / KL ablated.
    KL ratio     KL with ŷ / KL with y + u: 1 if the error does no more harm than any other of its size.
    KL floor     KL(float32 ‖ the model's own number type) of the model untouched.
Sinks and separators are left as they are in every one of these passes, ablations included, and are not counted.

Intervals are 95 % bootstraps: those of `measure_fidelity` draw documents, those of `evaluate`, which cards hold, blocks of
256 tokens, of which a single one has none. Where an ablation's effect on the loss cannot be told from 0 (its interval
reaches 0), no share of it is recovered: None.

Source  Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (loss with the SAE in place); Rajamanoharan et al.
        2024, "Improving dictionary learning with gated sparse autoencoders" (loss recovered, against zero ablation);
        Gurnee 2024, "SAE reconstruction errors are (empirically) pathological" (random error of the same norm).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from interp.corpus import TokenBlocks
from interp.evals.baseline import Baseline, Losses, Reconstructed, read_baseline, reconstruct
from interp.evals.figure import Figure, Section
from interp.evals.floor import number_floor
from interp.evals.in_place import measure_losses, passes, random_error
from interp.models import Model
from interp.progress import bar
from interp.render.words import counted
from interp.sae import SAE
from interp.statistics import bootstrap_ratio
from interp.types import InterpError

DENSE = 0.1
"""Share of the counted positions at which a dense feature is active, at least."""
FAR = 0.5
"""An EV of less than this share of what the card says is no SAE of this model and hook point, on any text that was seen."""
NOTHING_ADDED = "what the ablation adds cannot be told from 0, so no share of it is recovered"


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Held-out measurements of one dictionary; `*_interval` are 95 %."""

    tokens: int
    """Counted positions."""
    blocks: int
    fvu: float
    fvu_interval: tuple[float, float] | None
    l0: float
    dead: int
    """Features that fire on none of `tokens`."""
    dead_share: float
    ce: float | None
    """None, as what follows, of a model that predicts no next token."""
    ce_sae: float | None
    ce_zero: float | None
    ce_mean: float | None
    delta_ce: float | None
    delta_ce_interval: tuple[float, float] | None
    recovered_zero: float | None
    recovered_mean: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    model: Model,
    sae: SAE,
    blocks: TokenBlocks,
    *,
    norm_cutoff: float | Mapping[str, float],
    batch_blocks: int = 8,
) -> Fidelity:
    """The fidelity of an SAE, transcoder or crosscoder over the blocks; runs the model five times over them, once where it
    predicts no next token (pictures, sound, numbers, encoders), of which there is no loss.

    `norm_cutoff` is of the first hook point that it reads, or by hook point (`Card.mask`). Raises InterpError when the model lacks a hook point, when one
    that is written fires before the one that is read, and when no position counts, or none with a real token after it.
    """
    count = 5 if model.causal else 1
    with bar(f"evaluate, {counted(count, 'pass')}", count * blocks.positions, "tokens read") as step:
        base = read_baseline(model, sae, blocks, norm_cutoff=norm_cutoff, batch_blocks=batch_blocks, step=step)
        made = reconstruct(base, sae)
        losses = measure_losses(base, {"sae": made.change()}, step=step) if model.causal else {}
    return _report(base, made, losses)


def _report(base: Baseline, made: Reconstructed, losses: Mapping[str, Losses]) -> Fidelity:
    block_P = base.counted_NT.nonzero()[:, 0].numpy()

    def by_block(value_P: np.ndarray) -> np.ndarray:
        return np.bincount(block_P, weights=value_P, minlength=len(base.counted_NT))

    counts = by_block(base.predicted_P)
    names = {"clean": "ce", "sae": "ce_sae", "zero": "ce_zero", "mean": "ce_mean"}
    ce = {names[name]: (by_block(one.ce_P), counts) for name, one in losses.items()}
    mean: dict[str, float | None] = dict.fromkeys(names.values())
    mean |= {name: float(sum_N.sum() / counts.sum()) for name, (sum_N, _) in ce.items()}
    dead = int((made.fired_F == 0).sum())
    return Fidelity(
        tokens=base.positions,
        blocks=len(base.counted_NT),
        fvu=float(made.error_P.sum() / base.spread_P.sum()),
        fvu_interval=bootstrap_ratio(by_block(made.error_P), by_block(base.spread_P)),
        l0=float(made.l0_P.mean()),
        dead=dead,
        dead_share=dead / made.sae.d_sae,
        **mean,
        delta_ce=None if mean["ce"] is None or mean["ce_sae"] is None else mean["ce_sae"] - mean["ce"],
        delta_ce_interval=bootstrap_ratio(ce["ce_sae"][0] - ce["ce"][0], counts) if ce else None,
        recovered_zero=_recovered(ce, "ce_zero") if ce else None,
        recovered_mean=_recovered(ce, "ce_mean") if ce else None,
    )


def _recovered(losses: dict[str, tuple[np.ndarray, np.ndarray]], ablated: str) -> float | None:
    """The share of what the ablation adds to the loss that the dictionary does not; None where that is not surely above 0."""
    untouched, counts = losses["ce"]
    added = losses[ablated][0] - untouched
    interval = bootstrap_ratio(added, counts)
    if interval is None or interval[0] <= 0:
        return None
    return float(1 - (losses["ce_sae"][0] - untouched).sum() / added.sum())


# ---- the section of a report ----


def measure_fidelity(
    base: Baseline,
    made: Reconstructed,
    *,
    seed: int = 0,
    ev_said: float | None = None,
    losses: Mapping[str, Losses] | None = None,
) -> Section:
    """The section `fidelity` of one dictionary; runs the model three times, five on a new baseline.

    `seed` is of the random errors. `ev_said` is what the dictionary's card says of EV. `losses` are those of `fidelity_losses`, where
    they were measured for several dictionaries at once. Raises InterpError when EV is far below what the card says.
    """
    began = time.perf_counter()
    section = measure_reconstruction(base, made, ev_said=ev_said)
    losses = fidelity_losses(base, [made], seed=seed)[0] if losses is None else losses
    figures = (*section.figures, *_of_loss(base, losses), *_of_kl(base, losses, number_floor(base)))
    return replace(section, figures=figures, of={**section.of, "seed": seed}, seconds=time.perf_counter() - began)


def measure_reconstruction(base: Baseline, made: Reconstructed, *, ev_said: float | None = None) -> Section:
    """The section `fidelity` without what the model makes of it: no pass is run. `ev_said` is what the dictionary's card says of EV.

    Raises InterpError when EV is far below what the card says.
    """
    began = time.perf_counter()
    check_said(base, made, ev_said)
    figures, rows = _of_rows(base, made)
    of = {
        "hook points": [str(hook) for hook in base.writes],
        "counted": base.positions,
        "predicted": int(base.predicted_P.sum()),
        "documents": base.documents.count,
        "blocks": len(base.counted_NT),
        "tokens_sha256": base.blocks.sha256(),
        "model_dtype": base.model.dtype_name,
    }
    seconds = time.perf_counter() - began
    return Section(name="fidelity", title="Fidelity", figures=tuple(figures), rows=rows, of=of, seconds=seconds)


def measure_several(
    model: Model,
    saes: Sequence[SAE],
    blocks: TokenBlocks,
    *,
    norm_cutoff: float | Mapping[str, float],
    seed: int = 0,
) -> list[Section]:
    """The section `fidelity` of each of several dictionaries of the same hook points: the untouched and the ablated passes
    are run once for all of them.

    Raises InterpError as `read_baseline` does, and when they are not of the same hook points.
    """
    base = read_baseline(model, saes[0], blocks, norm_cutoff=norm_cutoff)
    made = [reconstruct(base, sae) for sae in saes]
    losses = fidelity_losses(base, made, seed=seed)
    return [measure_fidelity(base, one, seed=seed, losses=own) for one, own in zip(made, losses, strict=True)]


def fidelity_losses(base: Baseline, made: Sequence[Reconstructed], *, seed: int = 0) -> list[dict[str, Losses]]:
    """For each dictionary, the losses that `measure_fidelity` needs: `clean`, `zero`, `mean`, `sae` and `random`."""
    changes = {f"sae {i}": one.change() for i, one in enumerate(made)}
    changes |= {f"random {i}": random_error(base, one, seed) for i, one in enumerate(made)}
    count = passes(base, ("zero", "mean")) + len(changes)
    with bar(f"fidelity, {count} passes", count * base.blocks.positions, "tokens read") as step:
        found = measure_losses(base, changes, step=step)
    common = {name: found[name] for name in ("clean", "zero", "mean")}
    return [common | {"sae": found[f"sae {i}"], "random": found[f"random {i}"]} for i in range(len(made))]


def check_said(base: Baseline, made: Reconstructed, ev_said: float | None) -> None:
    """Raises InterpError when EV is so far below what the card says that model or hook point must be another."""
    ev = 1 - float(made.error_P.sum() / base.spread_P.sum())
    if ev_said is not None and ev_said > 0 and ev < FAR * ev_said:
        where = ", ".join(map(str, base.writes))
        raise InterpError(
            f"{made.sae.name} explains {ev:.1%} of the variance at {where} of {base.model.name} on this text, and its card "
            f"says {ev_said:.1%}: it was probably made for another model or hook point; compare `model` and `hook_name` of "
            "its card with these."
        )


def _of_rows(base: Baseline, made: Reconstructed) -> tuple[list[Figure], tuple[dict[str, Any], ...]]:
    """Figures of the reconstruction alone, and the table of features by how often they fire."""
    docs, error_P, spread_P = base.documents, made.error_P, base.spread_P
    apart = reconstruct(base, made.sae, base.apart_NT)
    place_U = base.apart_NT.nonzero()
    own_U = base.blocks.real_NT()[base.apart_NT].numpy()
    first_U = (place_U[:, 1] == 0).numpy()
    y_UO = base.rows(base.writes, base.apart_NT).double()
    spread_U = (y_UO - base.mean_O).square().sum(-1).numpy()
    about = "squared error over squared distance from the counted positions' mean; not counted in fvu"
    figures = [
        docs.ratio("ev", "share of the variance that is explained", error_P, spread_P, better="higher", less_from_one=True),
        docs.ratio("fvu", "share of the variance that is not explained", error_P, spread_P, better="lower"),
        docs.median(
            "fvu_median", "the median position's squared error over its squared distance from the mean",
            error_P / np.maximum(spread_P, 1e-300), better="lower",
        ),
        _apart("fvu_first", f"at the first position of every block: {about}", apart.error_P, spread_U, first_U),
        _apart("fvu_sinks", f"at sinks: {about}", apart.error_P, spread_U, own_U & ~first_U),
        _unmasked(base, made, apart, y_UO.numpy()),
        docs.mean("l0", "features active at a position, in the mean", made.l0_P),
        *_of_features(base, made),
    ]  # fmt: skip
    return figures, _decades(made.fired_F, base.positions)


def _apart(name: str, says: str, error_U: np.ndarray, spread_U: np.ndarray, some_U: np.ndarray) -> Figure:
    n, spread = int(some_U.sum()), float(spread_U[some_U].sum())
    value = float(error_U[some_U].sum()) / spread if spread > 0 else None
    note = "" if value is not None else "this text has none"
    return Figure(name=name, says=says, value=value, n=n, unit="tokens", better="lower", note=note)


def _unmasked(base: Baseline, made: Reconstructed, apart: Reconstructed, y_UO: np.ndarray) -> Figure:
    """EV over all positions about their own mean, as a library that leaves none out has it."""
    n = base.positions + len(y_UO)
    total_O = base.mean_O.numpy() * base.positions + y_UO.sum(0)
    spread = base.square + float(np.square(y_UO).sum()) - float(total_O @ total_O) / n
    error = float(made.error_P.sum() + apart.error_P.sum())
    says = "share of the variance that is explained over all positions, first positions, separators and sinks included"
    note = "says little: the few largest rows make most of this variance"
    return Figure(name="ev_unmasked", says=says, value=1 - error / spread, n=n, unit="tokens", note=note)


def _of_features(base: Baseline, made: Reconstructed) -> list[Figure]:
    d_sae, n = made.sae.d_sae, base.positions
    dead, dense = int((made.fired_F == 0).sum()), int((made.fired_F > DENSE * n).sum())
    seen = f"in {n:,} counted tokens; more text finds fewer"
    return [
        Figure(name="dead", says="features that never fire", value=dead, n=n, unit="tokens", better="lower", note=seen),
        Figure(name="dead_share", says="share of the features that never fire", value=dead / d_sae, n=n, unit="tokens", better="lower", note=seen),
        Figure(name="density_over_tenth", says=f"share of the features that fire at more than {DENSE:.0%} of the positions", value=dense / d_sae, n=n, unit="tokens"),
    ]  # fmt: skip


def _decades(fired_F: np.ndarray, positions: int) -> tuple[dict[str, Any], ...]:
    """How many features fire how often, by decade of the share of positions."""
    rate_F, count = fired_F / positions, len(fired_F)
    lowest = int(np.floor(np.log10(1 / positions)))
    rows: list[dict[str, Any]] = [{"fires at": "no position", "features": int((fired_F == 0).sum())}]
    for decade in range(lowest, 0):
        low, high = 10.0**decade, 10.0 ** (decade + 1)
        inside_F = (rate_F >= low) & ((rate_F < high) | (decade == -1))
        rows.append({"fires at": f"{low:g} to {high:g}", "features": int(inside_F.sum())})
    return tuple(row | {"share": row["features"] / count} for row in rows)


def _of_loss(base: Baseline, losses: Mapping[str, Losses]) -> list[Figure]:
    docs, count_P = base.documents, base.predicted_P.astype(np.float64)
    ce = {name: one.ce_P for name, one in losses.items()}
    said = {"clean": "untouched", "sae": "with the reconstruction in place", "zero": "with zeros in place", "mean": "with the mean in place"}  # fmt: skip
    figures = [
        docs.ratio(
            "ce" if name == "clean" else f"ce_{name}", f"loss of the model {words}, in nats a token", ce[name], count_P
        )
        for name, words in said.items()
    ]
    figures.append(docs.ratio(
        "delta_ce", "what the reconstruction in place adds to the loss, in nats a token", ce["sae"] - ce["clean"], count_P,
        better="lower",
    ))  # fmt: skip
    for name in ("zero", "mean"):
        figures.append(docs.ratio(
            f"recovered_{name}", f"CE score: share of the loss that {name} ablation adds and the reconstruction does not",
            ce["sae"] - ce["clean"], ce[name] - ce["clean"], better="higher", less_from_one=True, certain=NOTHING_ADDED,
        ))  # fmt: skip
    return figures


def _of_kl(base: Baseline, losses: Mapping[str, Losses], floor: Figure) -> list[Figure]:
    docs, kl = base.documents, {name: one.kl_P for name, one in losses.items()}
    figures = [
        docs.mean(
            "kl",
            "KL of the next token's distribution, untouched from with the reconstruction, in nats",
            kl["sae"],
            better="lower",
        )
    ]
    figures.append(
        docs.mean(
            "kl_random", "the same with a random error, as long as the reconstruction's at each position", kl["random"]
        )
    )
    figures.append(
        docs.ratio(
            "kl_ratio",
            "KL with the reconstruction over KL with the random error",
            kl["sae"],
            kl["random"],
            better="lower",
            certain=NOTHING_ADDED,
        )
    )
    for name in ("zero", "mean"):
        figures.append(docs.mean(f"kl_{name}", f"KL with {name} ablation, in nats", kl[name]))
        figures.append(docs.ratio(
            f"kl_score_{name}", f"KL score: 1 less KL with the reconstruction over KL with {name} ablation",
            kl["sae"], kl[name], better="higher", less_from_one=True, certain=NOTHING_ADDED,
        ))  # fmt: skip
    return [*figures, floor]
