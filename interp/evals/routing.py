"""What tells that a token is sent to an expert: features, beyond what the token and the one before it tell.

1. `read_routing` runs a mixture of experts over a text: at each counted position, to which experts of a layer it was sent, the
   token, the one before it, and which features of a dictionary fire.
2. Documents are drawn into two halves: on one everything is fitted and features are chosen, the other is measured.
3. `measure_routing` predicts the routing by the token, by the pair, by features and by both, and says what each leaves.
4. For each expert the features are chosen that fire where more tokens go to it than the pair predicts; on the other half each is
   measured (`measure_features`): the rate where it fires less what the pair predicts there, and, among positions of the *same* pair,
   the rate where it fires less the rate where it does not. Only the second is tested: the prediction for a pair that was seldom
   seen leans to that of its token, so that a feature of a rare pair may exceed it though it says nothing more.

Definitions
    pair         (the token before, the token).
    prediction   (sent + S · level below) / (seen + S), of the pair above the token above the expert's share; S is that of STRENGTHS
                 which predicts best between documents of the first half.
    within       Σ (f - f̄)(y - p) / Σ (f - f̄)²: f whether the feature fires, f̄ its mean at positions of the same pair, y whether the
                 token was sent, p the prediction. As Σ (f - f̄) is 0 for each pair, no p can make it anything but 0 in expectation
                 where routing hangs on the pair alone; a pair that the feature always (or never) fires at says nothing.
    told         within is surely above 0 (signs of documents flipped, q ≤ .05 over all features of all experts that are measured),
                 and so is the rate less the prediction.

A router is a linear map of what it reads, and features that rebuild that well must predict it in sum: that is no finding of its
own. That single ones do, and which, is.

Axes    P counted position, E expert, F feature, D document, T tested pair of expert and feature.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.codes import encode_rows, hooks_read, read_blocks
from interp.corpus import TokenBlocks
from interp.evals.documents import LEAST_DOCUMENTS, Documents
from interp.evals.figure import Figure, Section
from interp.mask import Mask
from interp.models import Model
from interp.progress import bar
from interp.sae.dictionary import Dictionary, join
from interp.statistics import benjamini_hochberg, bootstrap_difference, bootstrap_ratio, sign_flip_p
from interp.types import InterpError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""How many times a level counts as seen in what stands above it."""
CS = (0.003, 0.03, 0.3)
"""Inverse strengths of L2 of the logistic regressions."""
FOLDS = 5
CHOSEN = 20
"""Features of each expert that are measured."""
Q = 0.05
LEAST = 1e-4
"""Predictions stay so far from 0 and 1."""


@dataclass(frozen=True, eq=False)
class Routing:
    """Where the tokens of a text went in one layer, and what is known of each."""

    layer: int
    sent_PE: Bool[np.ndarray, "P E"]
    token_P: Int[np.ndarray, " P"]
    before_P: Int[np.ndarray, " P"]
    """The token before it; the separator at a document's first."""
    document_P: Int[np.ndarray, " P"]
    """Row of the text's documents."""
    activation_PF: "csr_matrix"
    """What each feature says, 0 where it does not fire."""
    position_P: Int[np.ndarray, " P"]
    """Where it stands in the text, counted through its blocks."""

    def __getitem__(self, rows_P: np.ndarray) -> "Routing":
        """The same of some positions."""
        known = (self.sent_PE, self.token_P, self.before_P, self.document_P, self.activation_PF, self.position_P)
        return Routing(self.layer, *(one[rows_P] for one in known))

    @property
    def pair_P(self) -> Int[np.ndarray, " P"]:
        """A number for each pair of tokens."""
        return self.before_P.astype(np.int64) * (1 << 32) + self.token_P


def layers_of_experts(model: Model) -> dict[int, list[str]]:
    """By layer, the hook points of its experts' outputs, in their order; {} of a model without experts."""
    found: dict[int, list[str]] = {}
    for name in model.hook_names():
        if match := re.fullmatch(r"blocks\.(\d+)\.mlp\.experts\.(\d+)\.hook_out", name):
            found.setdefault(int(match[1]), []).append(name)
    return {layer: sorted(names, key=lambda name: int(name.split(".")[4])) for layer, names in found.items()}


@torch.inference_mode()
def read_routing(
    model: Model, dictionary: Dictionary, blocks: TokenBlocks, layer: int, *, norm_cutoff: Mapping[str, float]
) -> Routing:
    """To which experts of the layer each counted position of the text was sent, and what fires there.

    `norm_cutoff` are norms beyond which positions are sinks, by hook point (see `Mask`). Raises InterpError where the layer has
    no experts, and where the dictionary is of other hook points than the model has.
    """
    from scipy.sparse import csr_matrix, vstack

    layers = layers_of_experts(model)
    if layer not in layers:
        there = f"its layers with experts are {', '.join(map(str, layers))}" if layers else "no layer of it has any"
        raise InterpError(f"{model.name} has no experts in layer {layer} that are known here: {there}.")
    experts, mask = layers[layer], Mask(norm_cutoff)
    hooks = list(dict.fromkeys([*hooks_read(model, dictionary), *experts]))
    parts: list[tuple[np.ndarray, ...]] = []
    features: list[Any] = []
    position_NT = torch.arange(blocks.positions).view(blocks.tokens_NT.shape)
    with bar(f"routing of {model.name}", blocks.positions) as advance:
        for read in read_blocks(model, hooks, blocks.tokens_NT, separator=blocks.separator):
            counted_BT = mask.counted(read.x, read.real_BT)
            sent_BTE = torch.stack([~read.x[name].isnan().any(-1) for name in experts], -1)
            entries = encode_rows(dictionary, join(dictionary, read.x).flatten(0, 1), counted_BT.flatten())
            shape = (counted_BT.numel(), dictionary.d_sae)
            kept = counted_BT.flatten().cpu().numpy()
            features.append(csr_matrix((entries.value_A, (entries.row_A, entries.feature_A)), shape=shape)[kept])
            document_BT, position_BT = (one[torch.from_numpy(read.item_B)] for one in (blocks.document_NT, position_NT))
            known = (sent_BTE, read.tokens_BT, read.tokens_BT.roll(1, 1), document_BT, position_BT)
            parts.append(tuple(one.cpu()[counted_BT.cpu()].numpy() for one in known))
            advance(read.tokens_BT.numel(), "")
    sent_PE, token_P, before_P, document_P, position_P = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Routing(layer, sent_PE, token_P, before_P, document_P, csr_matrix(vstack(features)), position_P)


# ---- what tokens predict ----


class Pairs:
    """How often tokens and pairs of a text were sent to each expert, and what that predicts of others."""

    def __init__(self, text: Routing, strength: float) -> None:
        self.strength, self.share_E = strength, text.sent_PE.mean(0)
        self._token = self._level(text.token_P, text.sent_PE, lambda known: np.tile(self.share_E, (len(known), 1)))
        before = dict(zip(text.pair_P.tolist(), text.token_P.tolist(), strict=True))
        self._pair = self._level(
            text.pair_P, text.sent_PE, lambda known: self.by_token(np.array([before[one] for one in known.tolist()]))
        )

    def _level(self, key_P: np.ndarray, sent_PE: np.ndarray, below: Any) -> tuple[np.ndarray, np.ndarray]:
        known, of_P = np.unique(key_P, return_inverse=True)
        sent = np.stack([np.bincount(of_P, sent_P, len(known)) for sent_P in sent_PE.T], 1)
        seen = np.bincount(of_P, minlength=len(known))[:, None]
        return known, (sent + self.strength * below(known)) / (seen + self.strength)

    @staticmethod
    def _found(level: tuple[np.ndarray, np.ndarray], key_P: np.ndarray, below_PE: np.ndarray) -> np.ndarray:
        known, rate = level
        at = np.searchsorted(known, key_P).clip(max=len(known) - 1)
        return np.where((known[at] == key_P)[:, None], rate[at], below_PE)

    def by_token(self, token_P: np.ndarray) -> Float[np.ndarray, "P E"]:
        """By the token alone."""
        return self._found(self._token, token_P, np.tile(self.share_E, (len(token_P), 1)))

    def by_pair(self, text: Routing) -> Float[np.ndarray, "P E"]:
        """By the token and the one before it."""
        return self._found(self._pair, text.pair_P, self.by_token(text.token_P))


def bits(sent_PE: np.ndarray, said_PE: np.ndarray) -> Float[np.ndarray, " P"]:
    """The log-loss of each position, a mean over experts, in bits."""
    p_PE = said_PE.clip(LEAST, 1 - LEAST)
    return np.asarray(-np.log2(np.where(sent_PE, p_PE, 1 - p_PE)).mean(1))


def found_among(sent_PE: np.ndarray, said_PE: np.ndarray) -> Float[np.ndarray, " P"]:
    """Of the experts that a position was sent to, the share that is among as many likeliest ones."""
    rank_PE = np.argsort(np.argsort(-said_PE, axis=1, kind="stable"), axis=1)
    count_P = sent_PE.sum(1)
    return np.asarray((sent_PE & (rank_PE < count_P[:, None])).sum(1) / np.maximum(count_P, 1))


def _folds(text: Routing, seed: int) -> Int[np.ndarray, " P"]:
    """A number under FOLDS for each position, the same for all of a document."""
    found, of_P = np.unique(text.document_P, return_inverse=True)
    return np.random.default_rng(seed).permutation(len(found))[of_P] % FOLDS


def _crossed(text: Routing, fold_P: np.ndarray, strength: float) -> Float[np.ndarray, "P E"]:
    """What the pairs of other folds predict."""
    said_PE = np.zeros(text.sent_PE.shape)
    for fold in range(FOLDS):
        said_PE[fold_P == fold] = Pairs(text[fold_P != fold], strength).by_pair(text[fold_P == fold])
    return said_PE


# ---- what features predict ----


def _scaled(text: Routing, by: Routing, offset_PE: np.ndarray | None) -> list[Any]:
    """For each expert a matrix of the features in units of their root mean square, after the log odds of `offset_PE` if given."""
    from scipy.sparse import csr_matrix, diags, hstack

    fires = np.maximum(by.activation_PF.getnnz(axis=0), 1)
    size_F = np.sqrt(np.asarray(by.activation_PF.multiply(by.activation_PF).sum(0)).ravel() / fires)
    x = csr_matrix(text.activation_PF @ diags(1 / np.where(size_F > 0, size_F, 1.0)))
    if offset_PE is None:
        return [x] * text.sent_PE.shape[1]
    p_PE = offset_PE.clip(LEAST, 1 - LEAST)
    return [csr_matrix(hstack([csr_matrix(odds_P[:, None]), x])) for odds_P in np.log(p_PE / (1 - p_PE)).T]


def _logistic(xs: Sequence[Any], sent_PE: np.ndarray, others: Sequence[Any], c: float) -> Float[np.ndarray, "P E"]:
    """What a logistic regression for each expert says of other positions."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    said = []
    for x, sent_P, other in zip(xs, sent_PE.T, others, strict=True):
        if sent_P.all() or not sent_P.any():
            said.append(np.full(other.shape[0], float(sent_P.all())))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # how good it is then, the other half says
            made = LogisticRegression(C=c, max_iter=200).fit(x, sent_P)
        said.append(made.predict_proba(other)[:, 1])
    return np.stack(said, 1)


def _by_features(
    one: Routing, other: Routing, fold_P: np.ndarray, offsets: tuple[np.ndarray, np.ndarray] | None = None
) -> Float[np.ndarray, "P E"]:
    """What the features of the other half predict, by a regression on the first, whose C is chosen on one of its folds."""
    here, there = (_scaled(text, one, offsets and offsets[i]) for i, text in enumerate((one, other)))
    held_P = fold_P == 0
    trials = [
        bits(one.sent_PE[held_P], _logistic([x[~held_P] for x in here], one.sent_PE[~held_P], [x[held_P] for x in here], c)).mean()
        for c in CS
    ]  # fmt: skip
    return _logistic(here, one.sent_PE, there, CS[int(np.argmin(trials))])


# ---- the measure ----


def measure_routing(text: Routing, *, seed: int = 0, chosen: int = CHOSEN) -> Section:
    """How well the routing is told by the token, the pair, features, and pair and features; and the features that tell of an expert.

    Figures are of the measured half, intervals over its documents. Rows are the `chosen` features of each expert, those that are
    told first. Raises InterpError where there are too few documents for two halves.
    """
    one, other = halves(text, seed)
    fold_P = _folds(one, seed)
    strength = min(STRENGTHS, key=lambda s: bits(one.sent_PE, _crossed(one, fold_P, s)).mean())
    crossed_PE, pairs = _crossed(one, fold_P, strength), Pairs(one, strength)
    pair_PE = pairs.by_pair(other)
    said = {
        "share": np.tile(pairs.share_E, (len(other.token_P), 1)),
        "token": pairs.by_token(other.token_P),
        "pair": pair_PE,
        "features": _by_features(one, other, fold_P),
        "both": _by_features(one, other, fold_P, (crossed_PE, pair_PE)),
    }
    of = {"layer": text.layer, "seed": seed, "strength": strength, "experts": text.sent_PE.shape[1]}
    of |= {"positions": [len(one.token_P), len(other.token_P)], "features": text.activation_PF.shape[1]}
    seen = np.isin(other.pair_P, one.pair_P).mean()
    return Section(
        name="routing",
        title="What tells to which expert a token is sent",
        figures=tuple(_figures(other, said)),
        rows=tuple(measure_features(other, other.activation_PF, choose(one, crossed_PE, chosen), pair_PE)),
        of=of | {"pairs seen in the first half": round(float(seen), 4)},
    )


def halves(text: Routing, seed: int) -> tuple[Routing, Routing]:
    """The documents drawn into two halves: to choose on, and to measure.

    Raises InterpError where there are too few.
    """
    found, of_P = np.unique(text.document_P, return_inverse=True)
    if len(found) < 2 * LEAST_DOCUMENTS:
        raise InterpError(
            f"{len(found)} documents are too few to choose on one half and measure on the other, which needs "
            f"{2 * LEAST_DOCUMENTS}; give more text."
        )
    first_P = np.random.default_rng(seed + 1).permutation(len(found))[of_P] % 2 == 0
    return text[first_P], text[~first_P]


WORDS = {
    "share": "the expert's share alone",
    "token": "the token",
    "pair": "the token and the one before it",
    "features": "features",
    "both": "the pair and features",
}


def _figures(text: Routing, said: Mapping[str, np.ndarray]) -> list[Figure]:
    documents = Documents.number(text.document_P)
    loss = {name: bits(text.sent_PE, said_PE) for name, said_PE in said.items()}
    made = []
    for name, words in WORDS.items():
        says = f"log-loss of the routing by {words}, a mean over experts, bits"
        made.append(documents.mean(f"bits_{name}", says, loss[name], better="lower"))
    for name, words in WORDS.items():
        says = f"of the experts a token was sent to, the share among the likeliest by {words}"
        made.append(documents.mean(f"found_{name}", says, found_among(text.sent_PE, said[name]), better="higher"))
    count_D = documents.sums(np.ones(len(text.token_P)))
    for with_it, without in (("pair", "token"), ("both", "pair")):
        gain = float(loss[without].mean() - loss[with_it].mean())
        sides = ((documents.sums(loss[name]), count_D) for name in (with_it, without))
        ends = None if documents.too_few else bootstrap_difference(*sides, paired=True)
        says = f"bits that {WORDS[with_it]} leave less than {WORDS[without]}"
        made.append(documents.figure(f"gain_{with_it}", says, gain, ends, better="higher"))
    return made


def choose(text: Routing, said_PE: Float[np.ndarray, "P E"], most: int) -> list[tuple[int, int]]:
    """(expert, feature): for each expert those that fire where more tokens go to it than is said, by the sum over documents in its
    standard errors; LEAST_DOCUMENTS at least."""
    from scipy.sparse import csr_matrix

    documents = Documents.number(text.document_P)
    count = len(text.token_P)
    into_DP = csr_matrix((np.ones(count), (documents.of_P, np.arange(count))), shape=(documents.count, count))
    fires_PF = (text.activation_PF > 0).astype(np.float64).tocsr()
    enough_F = (into_DP @ fires_PF).getnnz(axis=0) >= LEAST_DOCUMENTS
    pairs: list[tuple[int, int]] = []
    for expert, over_P in enumerate((text.sent_PE - said_PE).T):
        over_DF = into_DP @ fires_PF.multiply(over_P[:, None]).tocsr()
        size_F = np.sqrt(np.asarray(over_DF.multiply(over_DF).sum(0)).ravel())
        z_F = np.asarray(over_DF.sum(0)).ravel() / np.maximum(size_F, 1e-12)
        order = [int(f) for f in np.argsort(-z_F, kind="stable") if enough_F[f] and z_F[f] > 0]
        pairs += [(expert, feature) for feature in order[:most]]
    return pairs


def measure_features(
    text: Routing, column_PF: "csr_matrix", pairs: Sequence[tuple[int, int]], said_PE: Float[np.ndarray, "P E"]
) -> list[dict[str, Any]]:
    """A row for each (expert, column): how much more of the tokens where the column is above 0 go to the expert than is said, and than
    of others of the same pair of tokens. Those that are told first, then by how much more.

    Columns are features' activations, or anything else that is known of positions. `said_PE` comes from other documents.
    """
    if not pairs:
        return []
    documents = Documents.number(text.document_P)
    _, pair_P = np.unique(text.pair_P, return_inverse=True)
    seen = np.bincount(pair_P)
    column = column_PF.tocsc()
    rows: list[dict[str, Any]] = []
    score_TD = np.zeros((len(pairs), documents.count))
    for number, (expert, feature) in enumerate(pairs):
        f_P = np.asarray(column[:, [feature]].todense()).ravel() > 0
        over_P = text.sent_PE[:, expert] - said_PE[:, expert]
        apart_P = f_P - (np.bincount(pair_P, f_P) / seen)[pair_P]
        score_TD[number], spread_D = documents.sums(apart_P * over_P), documents.sums(apart_P**2)
        over = bootstrap_ratio(documents.sums(f_P * over_P), documents.sums(f_P))
        within = bootstrap_ratio(score_TD[number], spread_D)
        compared = int((spread_D > 0).sum())
        rows.append({
            "expert": expert, "feature": feature, "fires": int(f_P.sum()), "documents": int((documents.sums(f_P) > 0).sum()),
            "rate": _mean(text.sent_PE[f_P, expert]), "predicted": _mean(said_PE[f_P, expert]), "over": over,
            "within": float(score_TD[number].sum() / spread_D.sum()) if compared else None, "within_interval": within,
            "compared": compared, "enough": compared >= LEAST_DOCUMENTS and over is not None and within is not None,
        })  # fmt: skip
    p_T = np.where([row["enough"] for row in rows], sign_flip_p(score_TD), np.nan)
    q_T = benjamini_hochberg(p_T)
    for row, p, q in zip(rows, p_T, q_T, strict=True):
        row["p"], row["q"] = (float(p), float(q)) if row["enough"] else (None, None)
        row["told"] = bool(row.pop("enough") and q <= Q and row["over"][0] > 0 and row["within_interval"][0] > 0)
    return sorted(rows, key=lambda row: (not row["told"], row["expert"], -(row["within"] or 0.0)))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
