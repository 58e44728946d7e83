"""The table of effects: a row a feature, its columns, and what is reckoned from what was measured at single positions.

What a position tells is one number of the feature and one of its control. A document's is the mean over its positions, a
feature's the mean over its documents, for positions of a document are alike; intervals and the test are over documents.

    p       Paired test over documents: were the feature's row like any other, the differences of KL (feature less control)
            would be as likely of the other sign. All patterns of signs up to 16 documents (`statistics.sign_flip_p`), so
            that of n documents p is at least 2^-n.
    q       Benjamini and Hochberg's, over all features of the table; a feature without positions counts with p = 1.
    rate    Sum of KL over sum of the squared length of the change, for small changes a number that does not depend on
            their length: how much the next token hangs on this direction, where the feature fires.
    null    The rates of the controls of the NEAR features that fire about as often: what other directions do in places
            like these. `null_95` is their 95th percentile, `null_p` how often they reach the feature's rate. Each of them
            is over several controls, so they lie closer together than rates of single features would.

Axes    F feature, M measured position, U document.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus.tables import decoding, read_parquet
from interp.evidence.positions import ABOVE, BELOW
from interp.statistics import benjamini_hochberg, bootstrap_means, permutation_p, sign_flip_p, wilson
from interp.types import InterpError

FORMAT = 1
Q = 0.1
NEAR = 200
"""Features on both sides, in order of density, whose controls are the null."""
META = b"interp.effects"

_REAL, _COUNT = pa.float32(), pa.uint32()
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (_COUNT, "number of the feature"),
    "positions": (_COUNT, "count: positions at which it fired and was ablated"),
    "documents": (_COUNT, "count: documents that these are of"),
    "testing": (_COUNT, "count: those of the positions that are in testing documents; the rest is in held-out ones"),
    "activation": (_REAL, "units of the SAE: mean activation that was taken away, over positions"),
    "amount": (_REAL, "length in the model's activations: mean of activation times norm of the decoder row"),
    "kl": (_REAL, "nats: KL(untouched || ablated) of the next token, mean over documents"),
    "kl_low": (_REAL, "nats: lower end of its 95 % bootstrap interval over documents"),
    "kl_high": (_REAL, "nats: upper end of it"),
    "control_kl": (_REAL, "nats: the same for the same amount along other features' rows, one at each position"),
    "control_kl_low": (_REAL, "nats: lower end of its interval"),
    "control_kl_high": (_REAL, "nats: upper end of it"),
    "loss": (_REAL, "nats: change of the loss at the token that follows; above 0 the feature had made it likelier"),
    "loss_low": (_REAL, "nats: lower end of its interval"),
    "loss_high": (_REAL, "nats: upper end of it"),
    "control_loss": (_REAL, "nats: the same for the controls"),
    "above_positions": (_COUNT, "count: positions above the feature's clean level"),
    "above_kl": (_REAL, "nats: KL there, mean over positions"),
    "above_control_kl": (_REAL, "nats: the controls' there"),
    "above_loss": (_REAL, "nats: change of the loss there"),
    "below_positions": (_COUNT, "count: positions at or below the clean level"),
    "below_kl": (_REAL, "nats: KL there, mean over positions"),
    "below_control_kl": (_REAL, "nats: the controls' there"),
    "below_loss": (_REAL, "nats: change of the loss there"),
    "rate": (_REAL, "nats per squared length: sum of KL over sum of the squared length of the change"),
    "control_rate": (_REAL, "nats per squared length: the same for the controls"),
    "null_95": (_REAL, "nats per squared length: 95th percentile of the control_rate of features of like density"),
    "null_p": (_REAL, "probability: how often these reach the feature's rate"),
    "p": (_REAL, "probability: paired sign-flip test over documents, one-sided, KL less the control's"),
    "q": (_REAL, "false discovery rate at which it is called (Benjamini and Hochberg, over all features of the table)"),
    "exceeds": (pa.bool_(), f"whether q is at most {Q:g}: it causes more than its controls"),
}
"""By name: type, and unit and meaning. A figure that could not be had is null."""
_KINDS = {
    name: "flag" if kind == pa.bool_() else "real" if kind == _REAL else "whole" for name, (kind, _) in COLUMNS.items()
}

Rows = Mapping[str, np.ndarray]
"""What was measured, by name: a value a position (`effects.MEASURED`)."""


def make_table(
    rows: Rows, features: np.ndarray, density_F: np.ndarray, testing_D: np.ndarray, about: Mapping[str, Any]
) -> pa.Table:
    """The table of what was measured, a row for each of the features (ascending); `about` goes with it."""
    count = len(features)
    own_M = np.searchsorted(features, rows["feature"])
    of_F: dict[str, np.ndarray] = {"feature": features}
    of_F["positions"] = np.bincount(own_M, minlength=count)
    of_F["testing"] = np.bincount(own_M, weights=testing_D[rows["document"]], minlength=count)
    for name in ("activation", "amount"):
        of_F[name] = _mean(own_M, rows[name], count)
    of_F |= _over_documents(own_M, rows, count)
    for side, level in (("above", ABOVE), ("below", BELOW)):
        here = rows["above"] == level
        of_F[f"{side}_positions"] = np.bincount(own_M[here], minlength=count)
        for name in ("kl", "control_kl", "loss"):
            of_F[f"{side}_{name}"] = _mean(own_M[here], rows[name][here], count)
    of_F |= _against_null(own_M, rows, density_F[features])
    of_F["q"] = benjamini_hochberg(of_F["p"]) if count else np.zeros(0)
    of_F["exceeds"] = of_F["q"] <= Q
    fields = [pa.field(name, kind, metadata={"about": words}) for name, (kind, words) in COLUMNS.items()]
    arrays = [pa.array(of_F[name], from_pandas=True).cast(kind, safe=False) for name, (kind, _) in COLUMNS.items()]
    meta = {META: json.dumps({"format": FORMAT, **about}).encode()}
    return pa.table(arrays, schema=pa.schema(fields, metadata=meta))


def _mean(own_M: np.ndarray, value_M: np.ndarray, count: int) -> np.ndarray:
    total, of = np.bincount(own_M, weights=value_M, minlength=count), np.bincount(own_M, minlength=count)
    return np.where(of > 0, total / np.maximum(of, 1), np.nan)


def _over_documents(own_M: np.ndarray, rows: Rows, count: int) -> dict[str, np.ndarray]:
    """Means over documents with their intervals, and the paired test; features of as many documents go together."""
    pair_M = own_M.astype(np.int64) << 32 | rows["document"].astype(np.int64)
    pairs, of_M = np.unique(pair_M, return_inverse=True)
    feature_P = pairs >> 32
    value = {name: _mean(of_M, rows[name], len(pairs)) for name in ("kl", "control_kl", "loss", "control_loss")}
    documents_F = np.bincount(feature_P, minlength=count)
    out = {"documents": documents_F, "p": np.full(count, np.nan)}
    for name in value:
        out |= {f"{name}{end}": np.full(count, np.nan) for end in ("", "_low", "_high")}
    first_F = np.cumsum(documents_F) - documents_F
    for size in np.unique(documents_F[documents_F > 0]):
        those = np.flatnonzero(documents_F == size)
        place_FU = first_F[those, None] + np.arange(size)
        for name, each in value.items():
            out[name][those] = each[place_FU].mean(1)
            out[f"{name}_low"][those], out[f"{name}_high"][those] = bootstrap_means(each[place_FU])
        out["p"][those] = sign_flip_p(value["kl"][place_FU] - value["control_kl"][place_FU])
    return out


def _against_null(own_M: np.ndarray, rows: Rows, density_F: np.ndarray) -> dict[str, np.ndarray]:
    """Each feature's rate, and the rates of the controls of features of like density."""
    count = len(density_F)
    square_F = np.bincount(own_M, weights=rows["amount"].astype(np.float64) ** 2, minlength=count)
    some = np.flatnonzero(square_F > 0)
    out = {name: np.full(count, np.nan) for name in ("rate", "control_rate", "null_95", "null_p")}
    for name, of in (("rate", "kl"), ("control_rate", "control_kl")):
        out[name][some] = np.bincount(own_M, weights=rows[of], minlength=count)[some] / square_F[some]
    order = some[np.argsort(density_F[some], kind="stable")]
    for rank, feature in enumerate(order):
        low = max(min(rank - NEAR // 2, len(order) - NEAR - 1), 0)
        near = order[low : low + NEAR + 1]
        null = out["control_rate"][near[near != feature]]
        if len(null):
            out["null_95"][feature] = np.percentile(null, 95)
            out["null_p"][feature] = permutation_p(float(out["rate"][feature]), null)
    return out


# ---- reading ----


def read_effects(path: Path, *, made_of: Callable[[Mapping[str, Any]], str] | None = None) -> pa.Table:
    """The table in a file that `measure_effects` wrote.

    `made_of` says of what the table says of itself why it is not the one that is wanted, or "". Raises InterpError when
    there is no such file, when it is another program's or of another format, and when it is not the one that is wanted.
    """
    table = read_parquet(path, _KINDS, others=True, nulls=True)
    about = about_effects(table, str(path))
    if about.get("format") != FORMAT:
        raise InterpError(
            f"{path} has format {about.get('format')}, and this version reads {FORMAT}; measure effects anew."
        )
    why = made_of(about) if made_of else ""
    if why:
        raise InterpError(f"{path} {why}; measure effects anew.")
    return table


def about_effects(table: pa.Table, name: str = "the table") -> dict[str, Any]:
    """What a table of effects was made of: model, SAE, hook points, seeds, and how it was computed.

    Raises InterpError when it does not say.
    """
    try:
        about = json.loads((table.schema.metadata or {})[META])
    except (KeyError, ValueError):
        raise InterpError(f"{name} does not say what it was measured on; it is no table of effects.") from None
    return dict(about)


def write_effects(table: pa.Table, path: Path) -> None:
    with decoding(path):
        pq.write_table(table, path, compression="zstd", compression_level=9)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a table of effects comes to."""

    features: int
    measured: int
    """Those that had a position."""
    exceed: int
    """Those that cause more than their controls at q at most Q."""
    share: tuple[float, float, float]
    """Of all features, with Wilson's 95 % interval."""
    by_null: int
    """Those whose rate is above the 95th percentile of the null."""
    kl: tuple[float, float]
    """Median over features of KL, and of the controls' KL, nats."""

    def sentence(self) -> str:
        """All of it in words."""
        share, low, high = self.share
        return (
            f"{self.exceed:,} of {self.features:,} features ({share:.1%}, {low:.1%} to {high:.1%}) change the next token "
            f"more than the same amount along other features does (q ≤ {Q:g}); {self.features - self.measured:,} were "
            f"nowhere to be measured. Median KL {self.kl[0]:.2g} nats, of controls {self.kl[1]:.2g}; {self.by_null:,} are "
            "above the 95th percentile of the null by density. This is the next token only, not what attention carries on."
        )


def summarise(table: pa.Table) -> Summary:
    """What the table comes to."""
    column = {name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS}
    exceed, measured = int(column["exceeds"].sum()), int((column["positions"] > 0).sum())
    middle = [float(np.nanmedian(column[name])) if measured else float("nan") for name in ("kl", "control_kl")]
    return Summary(
        features=len(table),
        measured=measured,
        exceed=exceed,
        share=wilson(exceed, len(table)),
        by_null=int((column["rate"] > column["null_95"]).sum()),
        kl=(middle[0], middle[1]),
    )
