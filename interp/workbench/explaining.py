"""Names by a language model, for features of the open SAE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.labels.testing import Ground, try_labels
from interp.labels.testing import Label as Claimed
from interp.predicates import read_claim
from interp.types import InterpError
from interp.workbench.labelling import that_fire, trials
from interp.workbench.opening import Opened

if TYPE_CHECKING:
    from interp.labels.llm.asking import Question
    from interp.labels.llm.explaining import Explained, Named
    from interp.labels.llm.prompts import Said


@dataclass(frozen=True, kw_only=True)
class NamedByModel:
    """What a language model called one feature."""

    feature: int
    name: str
    claim: str
    """As `at:(…)` takes it; empty where the answer has no rule that can be read."""
    level: float
    """The activation above which its claim was tried."""
    tried: str
    """How: by claim, by model; empty where it was not."""
    verdict: str
    """confirmed, refuted, undecided, too few; empty where it was not tried."""
    figure: Sequence[float] | None
    """F1 of its claim, or the share of texts judged right by its name, each with the ends of its interval."""
    q: float | None
    outcome: str
    """What became of it in the book; empty where it was not written."""


@dataclass(frozen=True, kw_only=True)
class ModelNames:
    """What a run did."""

    model: str
    asked: int
    """Features that it was to name; those that never fire, or have a person's name, are not."""
    of_people: int
    """Features that were left alone, for a person named them."""
    names: Sequence[NamedByModel]
    without_text: int
    """Features with no firing in text that may be shown."""
    left_out: int
    """Firings in text that may not be passed on, which were not shown."""
    answers: int
    unparsable: int
    """Answers that hold no name."""
    misread_rules: int
    judgements: int
    unparsable_judgements: int
    kept: Path
    """The file with every prompt and answer."""
    tokens: int
    """Of the prompts, about."""
    first_prompt: str = ""
    """Where nothing was asked: the first question, as it would be sent."""
    lacks: Sequence[str] = field(default=())
    """What could not be done here, and what would bring it."""


def explain(
    wb: Opened,
    llm: str,
    features: Sequence[int] = (),
    *,
    limit: int | None = None,
    test: bool = False,
    send_withheld: bool = False,
    at_once: int = 2,
    timeout: float = 600.0,
    author: str = "",
    dry_run: bool = False,
    seed: int = 0,
) -> ModelNames:
    """Ask a language model for names of these features, or of all that fire; try them, and write them.

    `dry_run` asks nothing. Raises InterpError when the `llm` package or the model is not here, the model does not answer, or a trial is asked for
    that the index has no text for.
    """
    from interp.labels.llm import explaining
    from interp.labels.llm.asking import Kept, open_llm
    from interp.labels.llm.examples import Examples

    model = open_llm(llm)
    if test and wb.index.partial:
        raise InterpError(
            f"the index in {wb.index.folder} keeps examples only, so there is no text where a feature is known to be silent, and names "
            f"cannot be tried; `interp index {wb.folder}` builds the full one."
        )
    some = that_fire(wb, features, limit)
    asked = explaining.open_to_names(wb.labels, some)
    kept = Kept.of(model.model_id, wb.card.sae_sha256, seed)
    made = Examples(wb.index, explaining.MADE, send_withheld, seed)
    questions = explaining.naming_questions(made, asked)
    if dry_run:
        done = explaining.Explained(left_out=len(made.left_out))
        return _told(wb, model.model_id, some, asked, questions, done, {}, kept.path, dry_run=True)
    tested = Examples(wb.index, explaining.TESTED, send_withheld, seed) if test else None
    if tested is not None:
        Ground(wb.index.passages).position_P  # noqa: B018  (an error now, and not after the questions were paid for)
    done = explaining.explain(
        model,
        kept,
        questions,
        made,
        tested,
        lambda names: {} if wb.index.partial else _try_claims(wb, names, seed),
        at_once=at_once,
        timeout=timeout,
    )
    outcomes = explaining.write(wb.labels, done.names, model=model.model_id, author=author or model.model_id)
    return _told(wb, model.model_id, some, asked, questions, done, outcomes, kept.path)


def _told(
    wb: Opened,
    model: str,
    some: Sequence[int],
    asked: Sequence[int],
    questions: "Sequence[Question]",
    done: "Explained",
    outcomes: Mapping[int, str],
    kept: Path,
    *,
    dry_run: bool = False,
) -> ModelNames:
    lacks = []
    if wb.index.partial:
        lacks.append(
            f"the index in {wb.index.folder} keeps examples only: no counterexamples are shown, and rules are not tried; "
            f"`interp index {wb.folder}` builds the full one."
        )
    return ModelNames(
        model=model,
        asked=len(asked),
        of_people=len(some) - len(asked),
        names=[_named(one, outcomes.get(feature, "")) for feature, one in sorted(done.names.items())],
        without_text=len(asked) - len(questions),
        left_out=done.left_out,
        answers=0 if dry_run else len(questions),
        unparsable=len(done.unparsable),
        misread_rules=done.misread_rules,
        judgements=done.judgements,
        unparsable_judgements=done.unparsable_judgements,
        kept=kept,
        tokens=sum(one.tokens for one in questions),
        first_prompt=f"{questions[0].system}\n\n{questions[0].prompt}" if dry_run and questions else "",
        lacks=lacks,
    )


def _named(one: "Named", outcome: str) -> NamedByModel:
    figures = one.figures
    return NamedByModel(
        feature=one.feature,
        name=one.said.name,
        claim=str(one.said.claim) if one.said.claim else "",
        level=one.level,
        tried="" if not figures else "by model" if one.by_model else "by claim",
        verdict=one.verdict,
        figure=list(figures["f1"]) if figures else None,
        q=figures["q"] if figures else None,
        outcome=outcome,
    )


def _try_claims(wb: Opened, names: "Mapping[int, Said]", seed: int) -> "dict[int, tuple[float, Mapping[str, Any]]]":
    """(level, row of `testing.try_labels`) of each name with a claim, tried among what `interp autolabel` says of other features."""
    of = trials(wb, seed)
    tested, proposer = of.tried(wb, list(names)), of.proposer
    claimed = []
    for feature, one in names.items():
        assert one.claim is not None
        claimed.append(Claimed(feature=feature, claim=one.claim, level=proposer.weigh(feature, one.claim)[0]))
    others = [one.proposal for feature, one in tested.items() if feature not in names]
    claimed += [Claimed(feature=one.feature, claim=read_claim(one.claim), level=one.level) for one in others]
    near = {one.feature: [int(other) for other in wb.index.row(one.feature)["nearest"]] for one in claimed}
    rows = try_labels(claimed, Ground(proposer.text, seed=seed), proposer.fired, near)
    levels = {one.feature: one.level for one in claimed}
    return {row["feature"]: (levels[row["feature"]], row) for row in rows if row["feature"] in names}
