"""What edits say of a label, as its evidence tells it: the part `edits`, whose table `falsified.py` makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from interp.evidence.excerpts import Stock
from interp.evidence.falsified import COLUMNS, FILE, NAME, column, read_edits
from interp.evidence.part import COUNT, Part, Record, Row, Said, about_part
from interp.evidence.rewriting import KINDS, rewrite, shown
from interp.evidence.trials import EditsConfig
from interp.render import visible
from interp.render.words import counted
from interp.statistics import bootstrap_ratio, wilson
from interp.types import InterpError

SAID = 3
"""Failures that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An edit after which claim and feature disagree."""

    kind: str
    position: int
    """Of the peak, in the index."""
    offset: int
    removed: int
    tokens: Sequence[int]
    was: str
    became: str
    before: float
    after: float
    """Activation in the stretch as it is, and edited."""
    holds: bool
    """Whether the claim holds after it; where it does not, the feature fires all the same."""

    @property
    def sentence(self) -> str:
        """In words: "still fires when ‘·France’ is ‘·Spain’"."""
        return f"{'is silent' if self.holds else 'still fires'} {self._when}"

    @property
    def _when(self) -> str:
        if self.kind.startswith("cut "):
            return f"when only {counted(int(self.kind.removeprefix('cut ')), 'token')} are left before it"
        if self.kind == "shuffled":
            return "when the words before it are shuffled"
        was, became = (f"‘{visible(text)}’" for text in (self.was, self.became.rstrip(" ")))
        if self.kind == "negation":
            return (
                f"when {became} is put before it"
                if not self.was
                else f"when {was} before it is {became if self.became else 'taken out'}"
            )
        return f"when {was} is {became}"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A stretch of text as it is and edited, each as what stands before its peak, the peak, and what follows."""

    untouched: tuple[str, str, str]
    edited: tuple[str, str, str]
    before: float
    after: float
    """Activation at the peak of either."""


def show_failure(failure: Failure, stock: Stock, config: EditsConfig, special: frozenset[int]) -> Shown:
    """The texts of a failure, out of the text that it was found in; `config` is what it was tried with.

    Raises InterpError when the text is not on this machine, or is another one.
    """
    text, position = stock.text, failure.position
    if position >= len(text.token_N) or not stock.testing_N[position]:
        raise InterpError(f"the text at position {position:,} is not on this machine, or not the one that was edited.")
    window = stock.window(position, config.before, config.after, special)
    pieces = [*window.before, window.peak, *window.after]
    at = len(window.before)
    untouched = _three(pieces, at)
    if failure.kind.startswith("cut "):
        other = _three(pieces[at - int(failure.kind.removeprefix("cut ")) :], int(failure.kind.removeprefix("cut ")))
    elif failure.kind == "shuffled":
        order = np.random.default_rng([config.seed, position, 2])
        made = next(one for kind, one in rewrite(window, order, english=False, nouns=None) if kind == "shuffled")
        end, begin = made.end, made.end - len(window.peak)
        other = shown(made.text[:begin]), shown(made.text[begin:end]), shown(made.text[end:])
    else:
        low, new = at + failure.offset, [stock.bytes_V[token] for token in failure.tokens]
        changed = [*pieces[:low], *new, *pieces[low + failure.removed :]]
        moved = len(new) - failure.removed
        other = _three(changed, at + moved)
    return Shown(untouched=untouched, edited=other, before=failure.before, after=failure.after)


def _three(pieces: Sequence[bytes], at: int) -> tuple[str, str, str]:
    return shown(b"".join(pieces[:at])), shown(pieces[at]), shown(b"".join(pieces[at + 1 :]))


@dataclass(frozen=True, kw_only=True)
class EditTest:
    """What edits say of one label."""

    feature: int
    claim: str
    level: float
    control_tried: int
    control_failed: int
    control_silent: int
    texts: int
    documents: int
    tried: int
    failed: int
    share: float | None
    share_low: float | None
    share_high: float | None
    kept: int
    kept_failed: int
    broken: int
    broken_failed: int
    shorter_tried: int
    shorter_failed: int
    excess: float | None
    excess_low: float | None
    excess_high: float | None
    kinds: Mapping[str, tuple[int, int]]
    """By kind of edit: how many were tried, and how many failed."""
    failures: Sequence[Failure]
    """The strongest, one of each kind first."""

    def intervals(self) -> dict[str, tuple[float, float, float]]:
        """By kind, the share that failed with Wilson's 95 % interval (a text is edited once in each way)."""
        return {kind: wilson(failed, tried) for kind, (tried, failed) in self.kinds.items()}

    def said(self) -> list[Said]:
        """Failures first, then what was tried."""
        if not self.tried:
            return [Said(self._untried, shown=False)]
        edits = counted(self.tried, "edit")
        texts = counted(self.texts, "text")
        alone = (
            f" The same texts unedited, with a quarter less before them: {self.shorter_failed} of {self.shorter_tried}."
            if self.shorter_tried
            else ""
        )
        if not self.failed:
            return [Said(f"What it claims is right in all of {edits} of {texts}.{alone}{self._control}")]
        named = "; ".join(list(dict.fromkeys(one.sentence for one in self.failures))[:SAID])
        assert self.share is not None
        figure = f"{self.share:.0%}, {_percent(self.share_low)} to {_percent(self.share_high)}"
        return [
            Said(
                f"Fails in {self.failed} of {edits} of {texts} ({figure}): {named}.{alone}{self._control}", shown=False
            )
        ]

    @property
    def _control(self) -> str:
        if not self.control_failed:
            return ""
        silent, more = self.control_silent, self.control_failed - self.control_silent
        why = " and ".join(
            said
            for count, said in (
                (more, f"in {more:,} the claim does not hold"),
                (silent, f"in {silent:,} the feature is silent"),
            )
            if count
        )
        return f" Before any edit it failed in {self.control_failed} of {counted(self.control_tried, 'text')}, read by itself: {why}."

    @property
    def _untried(self) -> str:
        if not self.control_tried:
            return "Not tried by editing: it fires nowhere above its level in the documents that are kept for it."
        return f"Not tried by editing:{self._control or ' the texts could not be edited.'}"


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.0%}"


def edit_test(row: Row, prefix: str = "") -> EditTest:
    """The test that a row of the table, or with its prefix of the joined evidence, tells of."""
    own = {
        name: row[f"{prefix}{name}"]
        for name in EditTest.__dataclass_fields__
        if name not in ("feature", "kinds", "failures")
    }
    counts = {name: own[name] or 0 for name in own if COLUMNS[name][0] == COUNT}
    kinds = {
        kind: (int(row[f"{prefix}{column(kind)}_tried"] or 0), int(row[f"{prefix}{column(kind)}_failed"] or 0))
        for kind in KINDS
    }
    failures = [Failure(**one) for one in row[f"{prefix}examples"] or ()]
    return EditTest(
        **(own | counts | {"claim": own["claim"] or "", "level": own["level"] or 0.0}),
        feature=int(row["feature"]),
        kinds=kinds,
        failures=failures,
    )


def summarise_edits(table: pa.Table, prefix: str = "") -> str:
    """What edits say of all labels, a sentence; shares over edits with intervals by a bootstrap over labels."""
    of = {name: np.array([x or 0 for x in table[f"{prefix}{name}"].to_pylist()]) for name, (kind, _) in COLUMNS.items() if kind == COUNT and name != "feature"}  # fmt: skip
    some = of["tried"] > 0
    if not some.any():
        return "No label was tried by editing."
    failing = int((of["failed"] > 0).sum())
    kinds = ", ".join(
        f"{kind} {_ratio(of, f'{column(kind)}_failed', f'{column(kind)}_tried', ends=False)}" for kind in KINDS
    )
    return (
        f"Of {counted(int(some.sum()), 'label')} tried by editing {failing:,} fail in some edit. "
        f"{_ratio(of, 'failed', 'tried')} of {int(of['tried'].sum()):,} edits fail ({kinds}); it fires where it should not in "
        f"{_ratio(of, 'broken_failed', 'broken')} and is silent where it should fire in {_ratio(of, 'kept_failed', 'kept')}. Unedited "
        f"texts with less context fail in {_ratio(of, 'shorter_failed', 'shorter_tried')}, and of all that were cut out "
        f"{_ratio(of, 'control_failed', 'control_tried')} failed before any edit."
    )


def _ratio(of: Mapping[str, np.ndarray], failed: str, tried: str, *, ends: bool = True) -> str:
    total = int(of[tried].sum())
    if not total:
        return "none"
    share = f"{of[failed].sum() / total:.1%}"
    interval = bootstrap_ratio(of[failed], of[tried]) if ends else None
    return f"{share} ({interval[0]:.1%} to {interval[1]:.1%})" if interval else share


@dataclass(frozen=True, kw_only=True)
class _Outdated:
    """A test of a claim that the label no longer makes."""

    claim: str

    def said(self) -> list[Said]:
        return [Said(f"Tried by editing of another claim only ({self.claim}); {_HOW}.", shown=False)]


@dataclass(frozen=True, kw_only=True)
class _NotTried:
    """A feature without a label that claims something, or one that a run with a limit left out."""

    def said(self) -> list[Said]:
        return [
            Said(
                "Not tried by editing; `interp evidence SAE --parts edits` tries labels that claim something.",
                shown=False,
            )
        ]


def _record(row: Row) -> Record:
    """Of a feature's joined evidence."""
    claim, now = row["edit_claim"], row.get("label_claim")
    if row["edit_tried"] is None:
        return _NotTried()
    return _Outdated(claim=claim) if claim and now and claim != now else edit_test(row, "edit_")


_HOW = "`interp evidence SAE --parts edits` tries it"
PART = Part(
    name=NAME,
    prefix="edit",
    file=FILE,
    columns=COLUMNS,
    question="in which edited texts labels are wrong",
    how=_HOW,
    read=read_edits,
    about=about_part,
    record=_record,
    summary=lambda table: summarise_edits(table, "edit_"),
)
