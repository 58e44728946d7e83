"""What features do on texts of one's own, for which the model runs: `fires:`, `only:`, `contrast:`.

Axes    F feature.
"""

import numpy as np

from interp.render.terminal import say
from interp.search import contrast as contrasts
from interp.search.answer import Activated, Answer, Collection
from interp.search.clean import ALL, below_only, counts_clean, left_out
from interp.search.query import Term
from interp.statistics import benjamini_hochberg
from interp.types import InterpError, unknown

SURE = 0.05
"""Largest q-value of what `contrast:` and `only:` call different."""


def find_fires(term: Term, collection: Collection) -> Answer:
    """Activation on the text: the largest, the mean over counted tokens, or that at one token; of features that are above
    their clean level there, if they have one (`fires@all:`, `fires@mean,all:`: of all that are active).

    Raises InterpError for a token that the text has not, and where no model is at hand.
    """
    index, parts = collection.index, term.option.split(",") if term.option else []
    clean = index.has_clean_levels and ALL not in parts
    option = ",".join(part for part in parts if part != ALL) or "max"
    active = _run(term, collection)
    rows = np.ones(len(active.rows), dtype=bool)
    where = "on the text"
    if option not in ("max", "mean"):
        token = _token(term, option, active)
        rows, where = active.rows == token, f"at {active.tokens[token]!r}"
    features, values = active.features[rows], active.values[rows]
    peak, shown = np.zeros(index.d_sae), np.zeros(index.d_sae)
    np.maximum.at(peak, features, values)
    passed = peak > (index.clean_above.clip(min=0.0) if clean else 0.0)
    if option == "mean":
        np.add.at(shown, features, values / max(sum(active.counted), 1))
    else:
        shown = peak
    called = f"{option} activation" if option in ("max", "mean") else "activation"
    note = below_only(term, passed, peak > 0) if clean else ""

    def why(f: int) -> str:
        return f"{called} {shown[f]:.2f} {where}" + (left_out(index, f) if clean else "")

    return Answer(passed, shown, why, note=note)


def _token(term: Term, option: str, active: Activated) -> int:
    """The token that `fires@` names; InterpError when the text has none of that number."""
    if not option.removeprefix("-").isdecimal():
        known = ["max", "mean", "a token's number", ALL]
        raise unknown("fires@", option, known, try_=f"(At character {term.at}.)")
    token = int(option) + (len(active.tokens) if int(option) < 0 else 0)
    if not 0 <= token < len(active.tokens):
        raise InterpError(f"fires@{option}: the text has tokens 0 to {len(active.tokens) - 1}, the first a separator.")
    return token


def _run(term: Term, collection: Collection) -> Activated:
    if collection.activations is None:
        raise InterpError(f"{term.key}: runs the model, which this search has not been given; use Workbench.search.")
    return collection.activations(term.value)


def find_only(term: Term, collection: Collection) -> Answer:
    """Features active on more of the text's tokens than their density explains: a binomial tail, Benjamini–Hochberg over
    all features. Tokens of a text are not independent, so the p-values order features; they are no proof. Here and in the
    density, a feature is active where it is above its clean level, if it has one (`only@all:`: wherever it fires)."""
    from scipy import stats

    index = collection.index
    clean = counts_clean(term, index)
    active = _run(term, collection)
    tokens = int(sum(active.counted))
    above = active.values > index.clean_above[active.features] if clean else np.ones(len(active.rows), dtype=bool)
    active_F = np.bincount(active.features[above], minlength=index.d_sae)
    fires_F, kept = index.features["fires"].to_numpy(), max(int(np.count_nonzero(index.kept)), 1)
    fires_F = index.clean_fires if clean else fires_F
    density_F = (fires_F + 0.5) / (kept + 1)
    p_F = np.where(active_F > 0, stats.binom.sf(active_F - 1, tokens, density_F), 1.0)
    q_F = benjamini_hochberg(p_F)

    def why(f: int) -> str:
        figures = (
            f"active on {active_F[f]} of {tokens} tokens, {tokens * density_F[f]:.2g} by its density, q {q_F[f]:.1e}"
        )
        return figures + (left_out(index, f) if clean else "")

    note = ""
    if clean:
        some = np.bincount(active.features, minlength=index.d_sae) > 0
        note = below_only(term, active_F > 0, some)
    return Answer((active_F > 0) & (q_F <= SURE), -np.log10(np.maximum(p_F, 1e-300)), why, note=note)


def find_contrast(term: Term, collection: Collection) -> Answer:
    """AUROC of each feature's largest activation between two sets of texts, either way round.

    Raises InterpError for sets that cannot be compared, and where no model is at hand.
    """
    if collection.largest is None:
        raise InterpError("contrast: runs the model, which this search has not been given; use Workbench.search.")
    first, second = contrasts.sets(term)
    note = contrasts.warning((len(first), len(second)), collection.index.d_sae, SURE)
    if note:
        say(f"{term}: {note}")
    both = collection.largest([*first, *second], contrasts.TOKENS)
    apart = contrasts.contrast(both[: len(first)], both[len(first) :])
    score = np.maximum(apart.auroc_F, 1 - apart.auroc_F)

    def why(f: int) -> str:
        side = "first" if apart.auroc_F[f] >= 0.5 else "second"
        return (
            f"larger on the {side} set: AUROC {score[f]:.2f}, effect {_effect_size(abs(apart.effect_F[f]))}, "
            f"p {apart.p_F[f]:.1e}, q {apart.q_F[f]:.1e} ({apart.sizes[0]} and {apart.sizes[1]} texts)"
        )

    return Answer(apart.q_F <= SURE, score, why, note=note)


def _effect_size(size: float) -> str:
    return f"{size:.2f} sd" if size < float("inf") else "without measure (neither set varies)"
