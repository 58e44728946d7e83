"""Is a feature found again? Its best match in SAEs that were trained apart, beside its best match where there is nothing to find.

1.  A pair of features of two SAEs has two likenesses, as in `labels.matching`: the cosine of decoder rows, and the correlation of
    activations over the same text. It is as alike as the lesser of the two.
2.  A feature's match in another SAE is the one whose decoder row has the largest cosine with its own. It *agrees* when no
    other feature's activations correlate more with its own. It is *mutual* when, by either likeness, the match in turn has no
    one nearer than this feature.
3.  The null is another dictionary of the same width: the SAE of a copy of the model with random weights, read on the same
    text. A feature's null are the NEAR features that fire about as often (itself among them): of each how alike it is to
    whatever is most alike to it there. Where no such SAE is given, rows are drawn at random with the mean and covariance of the
    first other SAE's; nobody knows where they would fire, so the cosine alone is taken, which is the more.
4.  *Found again* is a match that agrees, is mutual, is more alike than the 99th percentile of the null, and has q at most Q.
    p is how often the null reaches its likeness, and q Benjamini and Hochberg's over all features and all other SAEs; a
    feature that fires at fewer than FEW positions of the text is not judged, and counts there with p = 1.

The rule was fixed before anything was compared. How many features it would find in the null's own dictionary is told beside
(`null_found`, without q). The match by cosine alone is no evidence that two features mean the same, and one that is split
in two by another seed is not found by this rule, however much of it is there.

Intervals of a correlation are by the delta method over documents, on Fisher's scale: each document's influence on r, to
first order.

Axes    F feature of the SAE in question, G feature of another, L some of F, P position, U document, S other SAE.
Source  Bricken et al. 2023, "Towards Monosemanticity" (universality); Paulo & Belrose 2025, "Sparse Autoencoders Trained on the
        Same Data Learn Different Features"; Heap et al. 2025 (arXiv:2501.17727), for the null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from interp.evidence.part import COUNT, REAL, Part, Row, Said, about_part, make_part, read_part
from interp.labels.matching import AT_ONCE, FEW, Prepared, Side, likenesses
from interp.sae.rows import rows_by_chance
from interp.statistics import Z, benjamini_hochberg, permutation_p, wilson
from interp.types import InterpError

FORMAT = 1
FILE = "replication.parquet"
Q = 0.1
NEAR = 200
"""Features, in order of how often they fire, whose likenesses are the null of one."""
PERCENTILE = 99.0
RANDOM_MODEL, CHANCE = "the SAE of a random-weight copy of the model", "random rows"
RULE = (
    "the match by decoder cosine is also the best by correlation of activations, both ways, above the 99th percentile of the "
    f"null of features that fire about as often, q at most {Q:g}"
)
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (COUNT, "number of the feature"),
    "fires": (COUNT, "count: positions of the compared text at which it fires"),
    "of": (COUNT, "count: other SAEs in which it was looked for"),
    "found": (COUNT, f"count: those in which it is found again; null where it fires at fewer than {FEW} positions"),
    "likeness": (REAL, "share: the lesser of cosine and correlation with its match, mean over the other SAEs"),
    "null_99": (
        REAL,
        "share: 99th percentile of the likeness that features which fire about as often reach in the null",
    ),
    "null_likeness": (REAL, "share: its own largest likeness with any feature of the null's dictionary"),
    "null_found": (
        pa.bool_(),
        "whether the same rule, without q, finds it in the null's dictionary; null for random rows",
    ),
    "match": (pa.list_(COUNT), "number of its match, by decoder cosine, in each of the other SAEs"),
    "cosine": (pa.list_(REAL), "cosine of the decoder rows of the two, in each"),
    "correlation": (pa.list_(REAL), "correlation of the two's activations over all counted positions, in each"),
    "correlation_low": (pa.list_(REAL), "lower ends of their 95 % intervals over documents (delta method)"),
    "correlation_high": (pa.list_(REAL), "upper ends of them"),
    "agrees": (pa.list_(pa.bool_()), "whether the match is the best by correlation too, in each"),
    "mutual": (pa.list_(pa.bool_()), "whether the feature is in turn the match's best by both, in each"),
    "p": (pa.list_(REAL), "probability: how often the null reaches the likeness, in each"),
    "q": (pa.list_(REAL), "false discovery rate (Benjamini and Hochberg, over all features and other SAEs), in each"),
}
"""By name: type, and unit and meaning; lists have an entry for each other SAE, in the order that the metadata gives."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Of every feature of one dictionary, its match in another."""

    match_F: Int[np.ndarray, " F"]
    cosine_F: Float[np.ndarray, " F"]
    correlation_F: Float[np.ndarray, " F"]
    agrees_F: Bool[np.ndarray, " F"]
    mutual_F: Bool[np.ndarray, " F"]
    largest_F: Float[np.ndarray, " F"]
    """The largest lesser likeness with any feature, be it the match or not."""

    @property
    def likeness_F(self) -> Float[np.ndarray, " F"]:
        """The lesser of the match's likenesses."""
        return np.minimum(self.cosine_F, self.correlation_F)


@dataclass(frozen=True, eq=False)
class Compared:
    """The matches in another SAE, with intervals of their correlations; nan where a feature fires too seldom."""

    matches: Matches
    low_F: Float[np.ndarray, " F"]
    high_F: Float[np.ndarray, " F"]


def prepare(side: Side) -> Prepared:
    """A side as the comparisons need it, with activations in float32."""
    return Prepared.of(side, np.float32)


def check_sides(own: Side, other: Side) -> None:
    """Raises InterpError when the two cannot be compared."""
    if own.W_dec.shape[1] != other.W_dec.shape[1]:
        raise InterpError(
            f"decoder rows of widths {own.W_dec.shape[1]} and {other.W_dec.shape[1]} cannot be compared; give SAEs that write "
            "the same hook point."
        )
    if own.active.shape[0] != other.active.shape[0] or not own.active.shape[0]:
        raise InterpError(
            f"{own.active.shape[0]:,} and {other.active.shape[0]:,} positions are not one text to compare firing on."
        )


def find_matches(own: Prepared, other: Prepared) -> Matches:
    """Every feature's match in the other dictionary; AT_ONCE features are held against all of it together."""
    count, others = len(own.unit), len(other.unit)
    of: dict[str, np.ndarray] = {name: np.empty(count) for name in ("cosine", "correlation", "best", "largest")}
    match_F = np.empty(count, dtype=np.int64)
    nearest_G, together_G = np.full(others, -np.inf), np.full(others, -np.inf)
    for start in range(0, count, AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, count))
        cosine_LG, correlation_LG = likenesses(own, some, other)
        match_F[some] = cosine_LG.argmax(1)
        row = np.arange(len(some)), match_F[some]
        of["cosine"][some], of["correlation"][some] = cosine_LG[row], correlation_LG[row]
        of["best"][some] = correlation_LG.max(1)
        of["largest"][some] = np.minimum(cosine_LG, correlation_LG).max(1)
        nearest_G, together_G = np.maximum(nearest_G, cosine_LG.max(0)), np.maximum(together_G, correlation_LG.max(0))
    agrees_F = (of["correlation"] >= of["best"]) & (of["correlation"] > 0)
    mutual_F = (of["cosine"] >= nearest_G[match_F]) & (of["correlation"] >= together_G[match_F])
    return Matches(
        match_F, of["cosine"], of["correlation"], agrees_F, mutual_F & (of["correlation"] > 0), of["largest"]
    )


def compare(own: Prepared, other: Prepared, document_P: Int[np.ndarray, " P"]) -> Compared:
    """The matches in another SAE; `document_P` says which document each position is of."""
    matches = find_matches(own, other)
    low_F, high_F = (np.full(len(own.unit), np.nan) for _ in range(2))
    documents, number_P = np.unique(document_P, return_inverse=True)
    positions = np.arange(len(document_P))
    by_document = csr_matrix((np.ones(len(positions)), (number_P, positions)), shape=(len(documents), len(positions)))
    often = np.flatnonzero((own.fires >= FEW) & (other.fires[matches.match_F] >= FEW))
    for start in range(0, len(often), AT_ONCE):
        some = often[start : start + AT_ONCE]
        low_F[some], high_F[some] = _interval(
            own, some, other, matches.match_F[some], matches.correlation_F[some], by_document
        )
    return Compared(matches, low_F, high_F)


def _interval(
    own: Prepared,
    feature_L: Int[np.ndarray, " L"],
    other: Prepared,
    match_L: Int[np.ndarray, " L"],
    r_L: Float[np.ndarray, " L"],
    by_document: csr_matrix,
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """95 % intervals of correlations by the influence of each document; see the head of the file."""
    documents, positions = by_document.shape
    x, y = own.by_feature[:, feature_L].astype(np.float64), other.by_feature[:, match_L].astype(np.float64)
    x_UL, y_UL, xx_UL, yy_UL, xy_UL = (
        (by_document @ each).toarray() for each in (x, y, x.multiply(x), y.multiply(y), x.multiply(y))
    )
    n_U1 = np.asarray(by_document.sum(1)).reshape(-1, 1)
    mean_x, mean_y = own.total[feature_L] / positions, other.total[match_L] / positions
    spread_x, spread_y = (each / np.sqrt(positions) for each in (own.spread[feature_L], other.spread[match_L]))
    both_UL = (xy_UL - mean_x * y_UL - mean_y * x_UL + n_U1 * mean_x * mean_y) / (spread_x * spread_y)
    own_UL = (xx_UL - 2 * mean_x * x_UL + n_U1 * mean_x**2) / spread_x**2
    other_UL = (yy_UL - 2 * mean_y * y_UL + n_U1 * mean_y**2) / spread_y**2
    influence_UL = both_UL - r_L / 2 * (own_UL + other_UL)
    more = documents / max(documents - 1, 1) if documents > 1 else np.nan
    error_L = np.sqrt((influence_UL**2).sum(0) * more) / positions
    left_L = 1 - np.minimum(r_L**2, 1.0)
    away_L = Z * np.divide(error_L, left_L, out=np.zeros_like(error_L), where=left_L > 1e-6)
    middle_L = np.arctanh(r_L.clip(-1 + 1e-7, 1 - 1e-7))
    return np.minimum(np.tanh(middle_L - away_L), r_L), np.maximum(np.tanh(middle_L + away_L), r_L)


@dataclass(frozen=True, eq=False)
class Null:
    """What features are like where there is nothing to find."""

    largest_F: Float[np.ndarray, " F"]
    """Of each, its largest likeness with anything there."""
    matches: Matches | None = None
    """Those in a dictionary that reads the text; None for random rows."""


def null_of(own: Prepared, other: Prepared) -> Null:
    """The null of a dictionary that reads the same text, such as the SAE of a random-weight copy of the model."""
    matches = find_matches(own, other)
    return Null(matches.largest_F, matches)


def null_by_chance(own: Prepared, other: Prepared, seed: int = 0) -> Null:
    """The null of random rows with the mean and covariance of another dictionary's: the largest cosines."""
    random = next(rows_by_chance(other.unit, 1, seed))
    largest = [(some @ random.T).amax(1) for some in own.unit.split(AT_ONCE)]
    return Null(torch.cat(largest).double().numpy())


# ---- the table ----


def make_replication(
    fires_F: Int[np.ndarray, " F"], compared: Sequence[Compared], null: Null, about: Mapping[str, Any]
) -> pa.Table:
    """The part's table, a row for every feature; `about` says of which weights and text (`others`, `null` by name)."""
    count = len(fires_F)
    judged_F = fires_F >= FEW
    null_99_F, near = _null(fires_F, null.largest_F)
    p_SF = np.full((len(compared), count), np.nan)
    for p_F, each in zip(p_SF, compared, strict=True):
        for feature, some in near.items():
            p_F[feature] = permutation_p(float(each.matches.likeness_F[feature]), null.largest_F[some])
    q_SF = benjamini_hochberg(p_SF.ravel()).reshape(p_SF.shape)
    alike = [_by_rule(each.matches, null_99_F) for each in compared]
    found_SF = np.stack([one_F & (q_F <= Q) for one_F, q_F in zip(alike, q_SF, strict=True)])
    values: dict[str, Any] = {"feature": np.arange(count), "fires": fires_F, "of": np.full(count, len(compared))}
    values["found"] = [int(m) if ok else None for m, ok in zip(found_SF.sum(0), judged_F, strict=True)]
    values["likeness"] = np.where(judged_F, np.mean([each.matches.likeness_F for each in compared], axis=0), np.nan)
    values["null_99"], values["null_likeness"] = null_99_F, np.where(judged_F, null.largest_F, np.nan)
    would_F = np.zeros(count, dtype=bool) if null.matches is None else _by_rule(null.matches, null_99_F)
    known_F = judged_F & (null.matches is not None)
    values["null_found"] = [bool(would) if known else None for would, known in zip(would_F, known_F, strict=True)]
    of = [each.matches for each in compared]
    lists: dict[str, Sequence[np.ndarray]] = {name: [getattr(one, f"{name}_F") for one in of] for name in EACH}
    lists |= {
        "correlation_low": [each.low_F for each in compared],
        "correlation_high": [each.high_F for each in compared],
        "p": list(p_SF),
        "q": [np.where(judged_F, q_F, np.nan) for q_F in q_SF],
    }
    for name, each_SF in lists.items():
        values[name] = [[_plain(value) for value in row] for row in zip(*each_SF, strict=True)]
    return make_part("replication", FORMAT, COLUMNS, values, {"rule": RULE, "few": FEW, "near": NEAR, **about})


EACH = ("match", "cosine", "correlation", "agrees", "mutual")


def _plain(value: Any) -> Any:
    """As Arrow takes it; None for what is not known."""
    plain = value.item()
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain


def _by_rule(matches: Matches, null_99_F: Float[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """What the rule finds, but for q."""
    return np.asarray(matches.agrees_F & matches.mutual_F & (matches.likeness_F > null_99_F))


def _null(
    fires_F: Int[np.ndarray, " F"], largest_F: Float[np.ndarray, " F"]
) -> tuple[Float[np.ndarray, " F"], dict[int, np.ndarray]]:
    """(the null's 99th percentile, the features whose likenesses are the null) of each that fires often enough."""
    often = np.flatnonzero(fires_F >= FEW)
    order = often[np.argsort(fires_F[often], kind="stable")]
    null_99_F, near = np.full(len(fires_F), np.nan), {}
    for rank, feature in enumerate(order):
        low = max(min(rank - NEAR // 2, len(order) - NEAR - 1), 0)
        near[int(feature)] = order[low : low + NEAR + 1]
        null_99_F[feature] = np.percentile(largest_F[near[int(feature)]], PERCENTILE)
    return null_99_F, near


def read_replication(path: Path) -> pa.Table:
    """The table in a file; InterpError as `part.read_part`."""
    return read_part(path, "replication", FORMAT, COLUMNS)


# ---- told ----


@dataclass(frozen=True, kw_only=True)
class Replication:
    """Whether other trainings found one feature again."""

    found: int | None
    """None where it fires too seldom in the compared text."""
    of: int
    fires: int
    likeness: float | None
    null_99: float | None
    match: Sequence[int]
    cosine: Sequence[float]
    correlation: Sequence[float | None]

    def said(self) -> list[Said]:
        """In how many it is found, and how like its matches are."""
        if self.found is None or self.likeness is None:
            often = f"it fires at {self.fires} positions of the compared text"
            return [Said(f"Whether other trainings find it again could not be judged: {often}.", shown=False)]
        nearest = ", ".join(
            f"{match} (cosine {cosine:.2f}, correlation {0.0 if r is None else r:.2f})"
            for match, cosine, r in zip(self.match, self.cosine, self.correlation, strict=True)
        )
        head = f"It is found again in {self.found} of {self.of} other trainings"
        chance = "not known" if self.null_99 is None else f"{self.null_99:.2f}"
        return [Said(f"{head}: nearest there {nearest}; chance reaches {chance}.", shown=self.found > 0)]


def _record(row: Row) -> Replication:
    own = {name: row[f"again_{name}"] for name in Replication.__dataclass_fields__}
    return Replication(**(own | {name: own[name] or [] for name in ("match", "cosine", "correlation")}))


def _summary(table: pa.Table) -> str:
    judged = table.filter(pc.is_valid(table["again_found"]))
    of = int(pc.max(table["again_of"]).as_py() or 0)
    found = judged["again_found"].to_numpy()
    by_null = pc.sum(judged["again_null_found"]).as_py()
    told = []
    for least, words in ((of, f"all {of} other trainings" if of > 1 else "the other training"), (1, "at least one")):
        share, low, high = wilson(int((found >= least).sum()), len(judged))
        told.append(f"{int((found >= least).sum()):,} ({share:.1%}, {low:.1%} to {high:.1%}) in {words}")
    sentence = (
        f"Of {len(table):,} features {len(judged):,} fire at {FEW} or more positions of the compared text; of these are found "
        f"again {', '.join(told[: 1 + (of > 1)])}."
    )
    if by_null is None:
        return f"{sentence} The null is of random rows; no SAE of a random-weight model was compared."
    share, low, high = wilson(int(by_null), len(judged))
    return (
        f"{sentence} In the SAE of a random-weight copy of the model the rule would find {by_null:,} ({share:.1%}, "
        f"{max(low, 0.0):.1%} to {high:.1%})."
    )


PART = Part(
    name="replication",
    prefix="again",
    file=FILE,
    columns=COLUMNS,
    question="whether other trainings find features again",
    how="`Workbench.replication` compares an SAE with those of other seeds (docs/replication.md)",
    read=read_replication,
    about=about_part,
    record=_record,
    summary=_summary,
)
