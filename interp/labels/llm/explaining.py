"""Names by a language model for some features: asked, tried, and written into the label book.

1. Each feature's examples (`examples`, of training and held-out documents) become one question (`prompts.naming`), which is asked (`asking`).
2. A name that comes with a rule is tried as `labels.automatic` tries its own, among claims of other features. One without a rule is tried where
   that is asked for, by the model's own judgement of testing documents (`detecting`).
3. Labels get the method `llm:MODEL`. What a person gave, changed or took back stays; and a name that was confirmed gives way only to
   one that is confirmed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp.labels.automatic import METHOD as AUTOMATIC
from interp.labels.automatic import STATUS, automatic, interval
from interp.labels.book import LabelBook
from interp.labels.label import Label, checked, revised, said
from interp.labels.llm import detecting
from interp.labels.llm.asking import AT_ONCE, TIMEOUT, Kept, Question, ask
from interp.labels.llm.examples import Examples
from interp.labels.llm.prompts import Said, naming, read_name

if TYPE_CHECKING:
    import llm

METHOD = "llm:"
MADE, TESTED = ("train", "heldout"), ("labels",)
"""Splits that names are made from, and tried on."""
OUTCOMES = ("written", "the same", "a person's", "taken back", "confirmed before")
Try = Callable[[Mapping[int, Said]], Mapping[int, tuple[float, Mapping[str, Any]]]]
"""From names with a claim to, by feature, the level that it is claimed above and the row of `testing.try_labels`."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A name that came back, and what became of it."""

    feature: int
    said: Said
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Of its trial; empty where it was not tried."""
    level: float = 0.0
    """The activation above which its claim was tried."""
    by_model: bool = False
    """Whether it was tried by the model's judgement, and not by its claim."""

    @property
    def verdict(self) -> str:
        """confirmed, refuted, undecided, too few; empty where it was not tried."""
        return str(self.figures.get("verdict", ""))

    @property
    def status(self) -> str:
        return STATUS.get(self.verdict, "proposed")

    @property
    def note(self) -> str:
        """What the label rests on; it begins with the status, by which it is known that nobody has changed that since."""
        if not self.figures:
            return f"{self.status}: not tried"
        figure, null = interval(self.figures["f1"]), self.figures["null_shuffled"]
        if self.by_model:
            others = (
                f"95th percentile of other names {null:.2f}"
                if math.isfinite(null)
                else "too few other names to compare"
            )
            return (
                f"{self.status}: the same model finds that it fits where it fires and not elsewhere, {figure} of "
                f"{self.figures['texts']} texts that it was not made from (.5 is a coin's); against random texts "
                f"{self.figures['random']:.2f}, hard ones {self.figures['hard']:.2f}; {others}; q {self.figures['q']:.2g}"
            )
        above = f"above {self.level:.3g}" if self.level else "at all its firings"
        return f"{self.status}: {above}, F1 {figure} on documents that it was not made from; 95th percentile of other claims {null:.2f}; q {self.figures['q']:.2g}"


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What a run did."""

    names: Mapping[int, Named] = field(default_factory=dict)
    unparsable: Sequence[int] = ()
    """Features whose answer holds no name."""
    misread_rules: int = 0
    """Names whose rule cannot be read."""
    judgements: int = 0
    unparsable_judgements: int = 0
    """Answers about texts that cannot be read."""
    left_out: int = 0
    """Firings in text that may not be passed on, which were not shown."""


def explain(
    model: "llm.Model",
    kept: Kept,
    questions: Sequence[Question],
    made: Examples,
    tested: Examples | None,
    try_claims: Try,
    *,
    at_once: int = AT_ONCE,
    timeout: float = TIMEOUT,
) -> Explained:
    """Ask for names by `naming_questions`, and try them; `tested` are the examples of testing documents where names without a rule are to be
    tried.

    Raises InterpError, with all answers kept that came, when the model cannot be reached.
    """
    answers = ask(model, questions, kept, what="names", at_once=at_once, timeout=timeout)
    read = {one.feature: read_name(answer.text) for one, answer in zip(questions, answers, strict=True)}
    names = {feature: Named(feature=feature, said=one) for feature, one in read.items() if one is not None}
    claimed = {feature: one.said for feature, one in names.items() if one.said.claim is not None}
    for feature, (level, figures) in (try_claims(claimed) if claimed else {}).items():
        names[feature] = Named(feature=feature, said=claimed[feature], figures=figures, level=level)
    unread = asked = 0
    if tested is not None:
        some = {feature: one.said.name for feature, one in names.items() if not one.figures}
        found, unread, asked = _judge(model, kept, tested, some, at_once, timeout)
        for row in found:
            feature = int(row["feature"])
            names[feature] = Named(feature=feature, said=names[feature].said, figures=row, by_model=True)
    return Explained(
        names=names,
        unparsable=[feature for feature, one in read.items() if one is None],
        misread_rules=sum(bool(one.said.misread) for one in names.values()),
        unparsable_judgements=unread,
        judgements=asked,
        left_out=len(made.left_out | (tested.left_out if tested else set())),
    )


def naming_questions(made: Examples, features: Sequence[int]) -> list[Question]:
    """A question for each feature that has firings in text that may be shown."""
    questions = []
    for feature in features:
        firings = made.firings(feature)
        if firings:
            questions.append(naming(feature, firings, made.silent(feature, firings)))
    return questions


def _judge(
    model: "llm.Model", kept: Kept, examples: Examples, names: Mapping[int, str], at_once: int, timeout: float
) -> tuple[list[dict[str, Any]], int, int]:
    """(rows of the names' trials, answers that cannot be read, answers)."""
    trials = detecting.trials(names, examples)
    questions = [question for trial in trials for question in trial.questions]
    if not questions:
        return [], 0, 0
    answers = iter(ask(model, questions, kept, what="do names fit", at_once=at_once, timeout=timeout))
    done, unread = [], 0
    for trial in trials:
        own_K, other_K, bad = detecting.judged(trial, [next(answers) for _ in trial.questions])
        done.append((trial, own_K, other_K))
        unread += bad
    return detecting.rows(done, examples.seed), unread, len(questions)


# ---- into the book ----


def open_to_names(book: LabelBook, features: Sequence[int]) -> list[int]:
    """Those features whose name nobody gave, changed or took back: the others keep theirs, and need not be asked about."""
    histories = book.histories()
    return [feature for feature in features if not _of_a_person(histories.get(feature, ()))]


def write(book: LabelBook, names: Mapping[int, Named], *, model: str, author: str) -> dict[int, str]:
    """Write the names; what became of each (OUTCOMES) comes back."""
    planned: list[tuple[int, str, Label | None]] = []

    def follows(histories: Mapping[int, list[Label]]) -> list[Label]:
        planned[:] = _plan(names, histories, METHOD + model, author, book.d_sae)
        return [label for _, _, label in planned if label]

    if names:
        book.add_after(follows)
    return {feature: outcome for feature, outcome, _ in planned}


def _of_a_person(history: Sequence[Label]) -> bool:
    return any(label.text for label in history) and not automatic(history, (AUTOMATIC, METHOD))


def _plan(
    names: Mapping[int, Named], histories: Mapping[int, Sequence[Label]], method: str, author: str, d_sae: int
) -> Iterator[tuple[int, str, Label | None]]:
    for feature, one in names.items():
        history = histories.get(feature, ())
        before = history[-1] if history else None
        if _of_a_person(history):
            yield feature, "a person's" if history[-1].text else "taken back", None
            continue
        if before is not None and before.status == "confirmed" and one.status != "confirmed":
            yield feature, "confirmed before", None
            continue
        given = {"feature": feature, "text": one.said.name, "author": author, "note": one.note, "status": one.status}
        given |= {"method": method, "predicate": f"at:({one.said.claim})" if one.said.claim else ""}
        label = checked(revised(before, given), d_sae)
        same = before is not None and said(before) == said(label)
        yield feature, "the same" if same else "written", None if same else label
