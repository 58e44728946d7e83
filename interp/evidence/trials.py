"""The texts that some labels are tried on, cut out and edited, and what claim and model say at their peaks.

See `edits.py`.

Axes    B text of a pass, T position, I text, P firing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from interp.codes import encode_rows, hooks_read, read_items
from interp.evidence.excerpts import Excerpt, Stock, as_text, read_again
from interp.evidence.falsified import CONTROL, Outcome, figures
from interp.evidence.positions import spread
from interp.evidence.rewriting import SHORTER, Rewritten, Window, rewrite, shorter
from interp.evidence.swaps import Swaps
from interp.grammar import terms
from interp.labels.testing import Label
from interp.mask import Mask
from interp.models import Model
from interp.predicates.language import LANGUAGES
from interp.predicates.wordnet import WordNet
from interp.sae import SAE
from interp.sae.dictionary import join
from interp.types import InterpError

ANY_LANGUAGE = (LANGUAGES.index("en"), -1)
"""Documents of which English is edited: short ones do not tell their language."""


@dataclass(frozen=True, kw_only=True)
class EditsConfig:
    """How labels are tried by editing."""

    texts: int = 8
    """Stretches of text a label, at most."""
    before: int = 32
    """Tokens of a stretch before the peak."""
    after: int = 16
    """And after it, as far as claims look."""
    seed: int = 0
    at_once: int = 64
    """Texts of a pass. What comes out depends on it in the last bits only."""
    restart: bool = False
    """Try anew what was tried."""

    def __post_init__(self) -> None:
        for name in ("texts", "before", "at_once"):
            if getattr(self, name) < 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.after < 0:
            raise InterpError(f"after is {self.after}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A text that is to be read by claim and model."""

    kind: str
    position: int
    excerpt: Excerpt
    was: str = ""
    became: str = ""


@dataclass(frozen=True, eq=False)
class Trials:
    """Everything that the trials of all labels share."""

    model: Model
    sae: SAE
    mask: Mask
    stock: Stock
    config: EditsConfig
    separator: int
    special: frozenset[int]
    nouns: WordNet | None

    @cached_property
    def swaps(self) -> Swaps:
        count_V = self.stock.count_V.copy()
        count_V[[token for token in self.special if token < len(count_V)]] = 0
        return Swaps(self.stock.text.vocabulary, count_V, self.model.text.embedding)


def try_labels(run: Trials, labels: Sequence[Label]) -> list[dict[str, Any]]:
    """The rows of some labels, whose texts share passes: as they are, and then edited."""
    windows = [_windows(run, one) for one in labels]
    untouched = [
        [trial for position, window in each.items() for trial in _unedited(run, position, window)] for each in windows
    ]
    outcomes = _outcomes(run, labels, untouched)
    edited = []
    for each, trials, found in zip(windows, untouched, outcomes, strict=True):
        right = {one.position for one in found if one.kind == CONTROL and one.holds and one.fires}
        control = {trial.position: trial.excerpt for trial in trials if trial.kind == CONTROL}
        edited.append([trial for p in sorted(right) for trial in _edited(run, p, each[p], control[p])])
    after = _outcomes(run, labels, edited, {t.position: t.excerpt for ts in untouched for t in ts if t.kind == CONTROL})
    return [figures(label, [*before, *then]) for label, before, then in zip(labels, outcomes, after, strict=True)]


def _windows(run: Trials, label: Label) -> dict[int, Window]:
    """By position, the stretches of text that a label is tried on."""
    position_P, value_P = run.stock.fired(label.feature)
    above = run.stock.testing_N[position_P] & (value_P.astype(np.float64) > label.level)
    position_P, value_P = position_P[above].astype(np.int64), value_P[above].astype(np.float64)
    document_P = run.stock.text.document_N[position_P]
    draw, none = np.random.default_rng([run.config.seed, label.feature]), np.zeros(0, dtype=np.int64)
    chosen = spread(np.arange(len(position_P)), value_P, document_P, run.config.texts, draw, none)
    found = sorted(int(position_P[i]) for i in chosen)
    return {p: run.stock.window(p, run.config.before, run.config.after, run.special) for p in found}


def _unedited(run: Trials, position: int, window: Window) -> Iterator[Trial]:
    """The stretch as it is, and with less context; nothing of one that the tokenizer reads otherwise by itself."""
    control = _read(run, window.untouched)
    if control is None or control.tokens[control.at] != run.stock.text.token_N[position]:
        return
    yield Trial(kind=CONTROL, position=position, excerpt=control)
    less = shorter(window)
    again = _read(run, less) if less else None
    if again is not None:
        yield Trial(kind=SHORTER, position=position, excerpt=again)


def _edited(run: Trials, position: int, window: Window, control: Excerpt) -> Iterator[Trial]:
    """All edits that a stretch has."""
    document = run.stock.text.document_N[position]
    english = run.stock.text.values["language"][1][document] in ANY_LANGUAGE
    token = int(run.stock.text.token_N[position])
    draw = np.random.default_rng([run.config.seed, position, 1])
    for kind, others in (("near", run.swaps.near(token, draw)), ("far", run.swaps.far(token, draw))):
        for other in others:
            text = window.swapped(run.stock.bytes_V[other])
            excerpt = _read(run, text)
            # Only where the token stays one token: beside its neighbours the tokenizer might read another.
            if excerpt is not None and excerpt.tokens[excerpt.at] == other:
                yield Trial(kind=kind, position=position, excerpt=excerpt, was=text.was, became=text.became)
                break
    order = np.random.default_rng([run.config.seed, position, 2])
    for kind, text in rewrite(window, order, english=bool(english), nouns=run.nouns):
        excerpt = _read(run, text)
        if excerpt is not None and list(excerpt.tokens) != list(control.tokens):
            yield Trial(kind=kind, position=position, excerpt=excerpt, was=text.was, became=text.became)


def _read(run: Trials, text: Rewritten) -> Excerpt | None:
    return read_again(text, run.model, run.stock.bytes_V, run.separator)


# ---- by claim and model ----


def _outcomes(
    run: Trials, labels: Sequence[Label], trials: Sequence[Sequence[Trial]], control: dict[int, Excerpt] | None = None
) -> list[list[Outcome]]:
    """By label, what claim and model say of its texts; those whose peak does not count are left out, but for the unedited."""
    flat = [(label.feature, trial.excerpt) for label, each in zip(labels, trials, strict=True) for trial in each]
    value_I = _activations(
        run, [excerpt for _, excerpt in flat], np.array([feature for feature, _ in flat], dtype=np.int64)
    )
    found, start = [], 0
    for label, each in zip(labels, trials, strict=True):
        own_I, start = value_I[start : start + len(each)], start + len(each)
        holds_I = _holds(run, label, each)
        outcomes = []
        for trial, value, holds in zip(each, own_I.tolist(), holds_I.tolist(), strict=True):
            if np.isnan(value) and trial.kind != CONTROL:
                continue
            change = _difference(trial, control[trial.position]) if control else (0, 0, ())
            outcomes.append(_outcome(run, label, trial, value, holds, change))
        found.append(outcomes)
    return found


def _outcome(
    run: Trials, label: Label, trial: Trial, value: float, holds: bool, change: tuple[int, int, Sequence[int]]
) -> Outcome:
    activation = 0.0 if np.isnan(value) else value
    return Outcome(
        kind=trial.kind,
        position=trial.position,
        document=int(run.stock.text.document_N[trial.position]),
        holds=holds,
        activation=activation,
        fires=activation > max(label.level, 0.0),
        offset=change[0],
        removed=change[1],
        tokens=change[2],
        was=trial.was,
        became=trial.became,
    )


def _holds(run: Trials, label: Label, trials: Sequence[Trial]) -> np.ndarray:
    """At which peaks the claim holds."""
    if not trials:
        return np.zeros(0, dtype=bool)
    document_I = run.stock.text.document_N[[trial.position for trial in trials]]
    subject = any(term.key == "about" for term in terms(label.claim.root))
    excerpts = [trial.excerpt for trial in trials]
    text, peak_I = as_text(excerpts, document_I, run.stock, run.separator, subject=subject)
    return label.claim.holds(text.around(peak_I))


def _activations(run: Trials, excerpts: Sequence[Excerpt], feature_I: np.ndarray) -> np.ndarray:
    """What each feature's activation is at the peak of its text; nan where that does not count."""
    value_I = np.full(len(excerpts), np.nan)
    items = [one.tokens[: one.at + 1] if run.model.causal else one.tokens for one in excerpts]
    hooks, at_I = hooks_read(run.model, run.sae), np.array([one.at for one in excerpts], dtype=np.int64)
    for read in read_items(run.model, hooks, items, separator=run.separator, at_once=run.config.at_once):
        row_B, column_B = (read.place_BT.cpu() == torch.from_numpy(at_I[read.item_B])[:, None]).nonzero(as_tuple=True)
        x = {hook: x_BTD[row_B.to(x_BTD.device), column_B.to(x_BTD.device)] for hook, x_BTD in read.x.items()}
        counted_B = run.mask.counted(x, read.real_BT.cpu()[row_B, column_B].to(read.real_BT.device))
        entries = encode_rows(run.sae, join(run.sae, x), counted_B)
        value_I[read.item_B[counted_B.cpu().numpy()]] = 0.0
        own = entries.feature_A == feature_I[read.item_B[entries.row_A]]
        value_I[read.item_B[entries.row_A[own]]] = entries.value_A[own]
    return value_I


def _difference(trial: Trial, control: Excerpt) -> tuple[int, int, Sequence[int]]:
    """(where, seen from the peak, the token sequences begin to differ; how many tokens made way; for which): empty where context
    was taken off or put in another order, which the kind and the seed tell."""
    if trial.kind.startswith("cut ") or trial.kind in ("shuffled", SHORTER):
        return 0, 0, ()
    one, other = list(control.tokens), list(trial.excerpt.tokens)
    shortest = min(len(one), len(other))
    start = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    same = next((i for i in range(shortest - start) if one[-1 - i] != other[-1 - i]), shortest - start)
    return start - control.at, len(one) - start - same, other[start : len(other) - same]
