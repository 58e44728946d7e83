"""What of a dictionary's fidelity is left on other texts, and on a fine-tuned sibling of its model.

Each `Place` is a text and a model that reads it; the first is home. In each, `fidelity`'s EV, L0, ΔCE and KL are measured, and
what they differ by from home:

    difference   figure there - figure at home, with a 95 % bootstrap over documents: *paired*, document by document, where
                 both places read the same tokens (a sibling on the same text), else each side drawn for itself

A place may be restricted to part of its positions (`only`), such as conversations in the model's chat template.

Axes    N block, T position, P counted position, D document.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from interp.corpus import TokenBlocks
from interp.evals.baseline import Baseline, Losses, Reconstructed, read_baseline, reconstruct
from interp.evals.documents import Documents
from interp.evals.figure import Better, Figure, Section
from interp.evals.in_place import measure_losses
from interp.models import Model
from interp.sae import SAE
from interp.statistics import bootstrap_difference
from interp.types import InterpError

Sums = tuple[np.ndarray, np.ndarray]
"""Numerators and denominators of a figure, by counted position."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """A text and the model that reads it."""

    name: str
    """`code`, `chat template`, `fine-tuned`; unique among the places."""
    model: Model
    blocks: TokenBlocks
    norm_cutoff: float | Mapping[str, float]
    """As of the dictionary's card: the same everywhere, so that the same rows count."""
    only: Bool[Tensor, "N T"] | None = field(default=None, repr=False)
    """Positions that are measured, of those that count; all without."""


def in_template(model: Model, blocks: TokenBlocks) -> Bool[Tensor, "N T"]:
    """True in documents that are conversations rendered by the model's own chat template.

    Raises InterpError when the text has no conversations, or the model no template.
    """
    if model.conversation((("user", "Hello"), ("assistant", "Hello"))) is None:
        raise InterpError(
            f"the tokenizer of {model.name} has no chat template, so there is no instruct-format text of it; measure "
            "transfer on an instruct model."
        )
    chat_D = torch.tensor(blocks.documents["chat"].to_pylist(), dtype=torch.bool)
    if not bool(chat_D.any()):
        raise InterpError("this text has no conversations; add some (a corpus whose rows have `messages`).")
    return chat_D[blocks.document_NT]


def measure_transfer(sae: SAE, home: Place, others: Sequence[Place]) -> Section:
    """The section `transfer`: a row a place, and for each place but home the differences from it.

    Runs the model three times at each place. Raises InterpError when the dictionary does not fit the model of a place,
    when two places have one name, and when there is none but home.
    """
    began, places = time.perf_counter(), (home, *others)
    names = [place.name for place in places]
    if len(places) < 2 or len(set(names)) < len(names):
        raise InterpError(
            f"transfer is measured between places with names of their own, and these are {', '.join(names)}."
        )
    first = _measure(sae, home)
    rows, figures = [_row(home, home, first, first)], []
    for place in others:
        found = _measure(sae, place)
        rows.append(_row(home, place, first, found))
        figures += _differences(home, place, first, found)
    of = {
        name: {"model": p.model.name, "tokens_sha256": p.blocks.sha256()} for name, p in zip(names, places, strict=True)
    }
    return Section(
        name="transfer", title="On other texts and models", figures=tuple(figures), rows=tuple(rows),
        of={"home": home.name, "places": of}, seconds=time.perf_counter() - began,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Found:
    """What is measured at a place."""

    documents: Documents
    document_D: np.ndarray
    """Row of the documents table of each."""
    sums: Mapping[str, Sums]
    positions: int


SAYS: Mapping[str, tuple[str, Better]] = {
    "ev": ("EV", "higher"),
    "l0": ("L0", ""),
    "delta_ce": ("ΔCE in nats", "lower"),
    "kl": ("KL in nats", "lower"),
}


def _measure(sae: SAE, place: Place) -> _Found:
    base = read_baseline(place.model, sae, place.blocks, norm_cutoff=place.norm_cutoff)
    if place.only is not None:
        base = _restricted(base, place)
    made = reconstruct(base, sae)
    losses = measure_losses(base, {"sae": made.change()}, ablations=())
    document_D = np.unique(base.blocks.document_NT[base.counted_NT].numpy())
    return _Found(base.documents, document_D, _sums(base, made, losses), base.positions)


def _restricted(base: Baseline, place: Place) -> Baseline:
    """The baseline with fewer counted positions."""
    assert place.only is not None
    kept_P = place.only[base.counted_NT].numpy()
    if not kept_P.any() or not base.predicted_P[kept_P].any():
        raise InterpError(f"no position of {place.name} counts: all are separators or sinks; give more text.")
    counted_NT = base.counted_NT & place.only
    y_PO = torch.cat([base.x[str(hook)][counted_NT] for hook in base.writes], dim=-1).double()
    mean_O = y_PO.mean(0)
    return replace(
        base, counted_NT=counted_NT, mean_O=mean_O, square=float(y_PO.square().sum()),
        spread_P=(y_PO - mean_O).square().sum(-1).numpy(), predicted_P=base.predicted_P[kept_P], losses={}, floor=None,
        documents=Documents.number(base.blocks.document_NT[counted_NT].numpy()),
    )  # fmt: skip


def _sums(base: Baseline, made: Reconstructed, losses: Mapping[str, Losses]) -> dict[str, Sums]:
    ones = np.ones(base.positions)
    return {
        "ev": (base.spread_P - made.error_P, base.spread_P),
        "l0": (made.l0_P, ones),
        "delta_ce": (losses["sae"].ce_P - losses["clean"].ce_P, base.predicted_P.astype(np.float64)),
        "kl": (losses["sae"].kl_P, ones),
    }


def _paired(home: Place, place: Place, first: _Found, found: _Found) -> bool:
    return home.blocks.sha256() == place.blocks.sha256() and np.array_equal(first.document_D, found.document_D)


def _row(home: Place, place: Place, first: _Found, found: _Found) -> dict[str, Any]:
    row: dict[str, Any] = {"place": place.name, "model": place.model.name, "documents": found.documents.count, "counted": found.positions}  # fmt: skip
    for name, (top_P, bottom_P) in found.sums.items():
        figure = found.documents.ratio(name, name, top_P, bottom_P)
        low, high = figure.interval or (None, None)
        row |= {name: figure.value, f"{name} from": low, f"{name} to": high}
    return row | {"paired": place is not home and _paired(home, place, first, found)}


def _differences(home: Place, place: Place, first: _Found, found: _Found) -> list[Figure]:
    paired, figures = _paired(home, place, first, found), []
    few = first.documents.too_few or found.documents.too_few
    for name, (says, better) in SAYS.items():
        one, other = (_by_document(each, name) for each in (first, found))
        value = float(other[0].sum() / other[1].sum() - one[0].sum() / one[1].sum())
        ends = None if few else bootstrap_difference(one, other, paired=paired)
        figures.append(Figure(
            name=f"{name} {place.name}", says=f"{says} on {place.name}, less that on {home.name}", value=value, interval=ends,
            n=found.documents.count, unit="documents", better=better,
            note=few or ("paired by document" if paired else "of other documents than at home"),
        ))  # fmt: skip
    return figures


def _by_document(found: _Found, name: str) -> Sums:
    top_P, bottom_P = found.sums[name]
    return found.documents.sums(top_P), found.documents.sums(bottom_P)
