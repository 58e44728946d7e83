"""Dose and response: one feature at many strengths, what each does, and what controls of the same size do.

Axes    P prompt, S seed. A cell is a prompt with a seed; every figure is a mean over cells with a 95 % interval.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from interp.render import table_html, title_html
from interp.statistics import bootstrap
from interp.steering.edits import (
    Add,
    Clamp,
    Direction,
    FeatureEdit,
    Source,
    check_strength,
    describe_source,
    matches,
    row,
    to_dict,
)
from interp.steering.measures import Forced, TextMeasures, forced, text_measures
from interp.steering.run import Sampling, Stage, as_json, check_request, check_seed, continue_rows, plain
from interp.steering.verdict import (
    OPENINGS,
    Subject,
    Verdict,
    controls,
    flipped,
    judge,
    noise,
    perplexity_ratio,
    place,
    promoted,
)
from interp.steering.window import Window, window
from interp.types import InterpError

FACTORS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
Figure = tuple[float, float, float]
"""(mean, low, high)"""
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Which strengths, on which prompts, with what beside them."""

    factors: Sequence[float] = FACTORS
    """Multiples of the feature's largest activation on text."""
    prompts: Sequence[str] = OPENINGS
    seeds: Sequence[int] = (0,)
    kind: str = "clamp"
    """`clamp` or `add`; a direction is always added."""
    where: str = "all"
    targets: Sequence[str] = ()
    """Tokens whose probability is followed; without, the 20 that the feature promotes."""
    regex: str | None = None
    """Looked for in the generated text."""
    controls: bool = True
    verdict: bool = True

    def __post_init__(self) -> None:
        for name in ("factors", "prompts", "seeds", "targets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name) and name != "targets":
                raise InterpError(f"the sweep has no {name}; give at least one.")
        object.__setattr__(self, "seeds", tuple(map(check_seed, self.seeds)))
        for name in ("prompts", "targets"):
            if not all(isinstance(text, str) for text in getattr(self, name)):
                raise InterpError(f"the sweep's {name} are {list(getattr(self, name))}; give strings.")
        if not isinstance(self.regex, str | None):
            raise InterpError(f"the sweep's regex is {self.regex!r}; give a string.")
        for name in ("controls", "verdict"):
            if not isinstance(getattr(self, name), bool):
                raise InterpError(f"the sweep's {name} is {getattr(self, name)!r}; it is true or false.")
        if not all(map(math.isfinite, self.factors)):
            raise InterpError(
                f"the strengths {list(self.factors)} are not all finite; give numbers such as -1, 0.5, 2."
            )
        if self.kind not in ("clamp", "add"):
            raise InterpError(f"a sweep cannot {self.kind!r}; it is clamp or add.")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One strength of one series."""

    factor: float
    strength: float
    shift: Figure
    """Of the target tokens' log-probability while the baseline's text is read, nats."""
    kl: Figure
    """KL(steered ‖ unsteered) while the baseline's text is read, nats a token."""
    perplexity: Figure
    """Of the generated text under the unsteered model (the mean is geometric)."""
    perplexity_ratio: Figure
    """The same over that of the unsteered text, prompt by prompt."""
    distinct_1: Figure
    distinct_2: Figure
    distinct_3: Figure
    loops: Figure
    """Share of texts that end in a loop."""
    fires: Figure
    """Share of texts on which the feature fires when the unsteered model reads them."""
    says_target: Figure
    matches: Figure
    texts: list[str]
    tokens: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The curve of a feature, its controls, the verdict, and all that is needed to do it again."""

    subject: Any
    words: str
    """The text put in front for the prompt-only baseline."""
    largest: float
    targets: list[str]
    target_tokens: list[int]
    prompt_tokens: list[list[int]]
    baseline: Point
    series: dict[str, list[Point]]
    """`feature`, then the controls: `random features`, `noise`, `sign flipped`, `prompt only`."""
    window: Window
    """The strengths at which the feature moves the text and the text stays text."""
    verdict: Verdict | None
    config: dict[str, Any]
    sampling: dict[str, Any]
    environment: dict[str, Any]
    kind: str = "sweep"

    @property
    def curve(self) -> list[Point]:
        return self.series["feature"]

    def to_json(self) -> str:
        return as_json(self)

    def rows(self) -> list[dict[str, Any]]:
        """A row a series and strength, with the means and the intervals of shift and KL."""
        out = []
        for name, points in (("baseline", [self.baseline]), *self.series.items()):
            for p in points:
                figures = {key: getattr(p, key)[0] for key in FIGURES}
                out.append(
                    {"series": name, "factor": p.factor, "strength": p.strength}
                    | figures
                    | {"shift_low": p.shift[1], "shift_high": p.shift[2], "kl_low": p.kl[1], "kl_high": p.kl[2]}
                )
        return out

    def _repr_html_(self) -> str:
        rows = self.rows()
        said = title_html(self.verdict.sentence) if self.verdict else ""
        return said + title_html(self.window.sentence) + table_html(list(rows[0]), [list(row.values()) for row in rows])


FIGURES = (
    "shift",
    "kl",
    "perplexity",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "loops",
    "fires",
    "says_target",
    "matches",
)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The prompts with their seeds, and what the unsteered model makes of them."""

    prompts: list[list[int]]
    """Of each cell."""
    hinted: list[list[int]]
    """The same with the prompt-only baseline's words in front."""
    seeds: list[int]
    answers: list[list[int]]
    shape: tuple[int, int]


def check_sweep(stage: Stage, subject: Subject, config: SweepConfig, sampling: Sampling) -> None:
    """Raises InterpError, before anything is generated, when the sweep cannot be made."""
    check_strength(subject.largest, describe_source(subject.source))
    if subject.largest <= 0:
        raise InterpError(
            f"{describe_source(subject.source)} never fires in the index (its largest activation is "
            f"{subject.largest:g}), so strengths have no unit; give one above 0 (largest=...)."
        )
    prompts = stage.prompts([_hint(subject, text) for text in config.prompts], sampling.chat, sampling.special)
    check_request(stage, prompts, [], sampling)
    held = [[_edit(subject.source, config, factor * subject.largest)] for factor in config.factors]
    check_request(stage, stage.prompts(config.prompts, sampling.chat, sampling.special), held, sampling)
    target_tokens(stage, subject, config)
    if config.verdict:
        promoted(stage, row(subject.source, stage.saes)[None])
    if config.regex is not None:
        matches(config.regex, [""])


def target_tokens(stage: Stage, subject: Subject, config: SweepConfig) -> list[int]:
    """The tokens that are followed: those named, else those that the feature promotes."""
    if not config.targets:
        return promoted(stage, row(subject.source, stage.saes)[None])[0]
    found = []
    for text in config.targets:
        ids = stage.model.tokenize(text)
        if len(ids) != 1:
            raise InterpError(f"the target {text!r} is {len(ids)} tokens for {stage.model.name}; name single tokens.")
        found.append(ids[0])
    return found


def sweep(
    stage: Stage, subject: Subject, config: SweepConfig, sampling: Sampling, note: Note = lambda text: None
) -> Sweep:
    """The feature at every strength on every prompt with every seed, beside its controls.

    All rows of a series are generated in batches that share the prompts' random numbers. `note` is told what begins.
    """
    check_sweep(stage, subject, config, sampling)
    targets = target_tokens(stage, subject, config)
    note("baseline")
    cells = _cells(stage, subject, config, sampling)
    made: dict[str, list[tuple[float, list[list[FeatureEdit]]]]] = {"feature": []}
    for factor in config.factors:
        edit = _edit(subject.source, config, factor * subject.largest)
        made["feature"].append((factor, [[edit]] * len(cells.prompts)))
    if config.controls:
        made |= _control_rows(stage, subject, config, len(cells.prompts))
    points = _measure(stage, subject, config, sampling, cells, targets, made, note)
    (baseline,) = points.pop("baseline")
    note("verdict")
    verdict = judge(stage, subject) if config.verdict else None
    return Sweep(
        subject=to_dict(_edit(subject.source, config, subject.largest)),
        words=subject.words,
        largest=subject.largest,
        targets=[stage.vocabulary()[token] for token in targets],
        target_tokens=targets,
        prompt_tokens=stage.prompts(config.prompts, sampling.chat, sampling.special),
        baseline=baseline,
        series=points,
        window=window(points, baseline.loops[0]),
        verdict=verdict,
        config=asdict(config),
        sampling=plain(sampling),
        environment=stage.record(),
    )


def _edit(source: Source, config: SweepConfig, strength: float, along: Source | None = None) -> FeatureEdit:
    kind = Add if isinstance(source, Direction) or config.kind == "add" else Clamp
    return kind(feature=source, strength=strength, where=config.where, along=along)


def _hint(subject: Subject, text: str) -> str:
    return f"{subject.words}\n\n{text}" if subject.words else text


def _cells(stage: Stage, subject: Subject, config: SweepConfig, sampling: Sampling) -> _Cells:
    ids = stage.prompts(config.prompts, sampling.chat, sampling.special)
    hinted = stage.prompts([_hint(subject, text) for text in config.prompts], sampling.chat, sampling.special)
    pairs = [(p, seed) for p in range(len(ids)) for seed in config.seeds]
    prompts = [ids[p] for p, _ in pairs]
    seeds = [seed for _, seed in pairs]
    answers = continue_rows(stage, prompts, [[]] * len(prompts), seeds, sampling)
    return _Cells(prompts, [hinted[p] for p, _ in pairs], seeds, answers, (len(ids), len(config.seeds)))


def _control_rows(
    stage: Stage, subject: Subject, config: SweepConfig, cells: int
) -> dict[str, list[tuple[float, list[list[FeatureEdit]]]]]:
    """Of each control and strength, the edits of each cell: every cell has its own matched feature and noise."""
    hook_name, cutoff = place(subject.source, stage)
    like = row(subject.source, stage.saes)
    kinds: dict[str, list[Source]] = {}
    if subject.matched:
        kinds["random features"] = controls(stage, subject, len(subject.matched), 0, 0)
    kinds["noise"] = list(noise(cells, like, hook_name, cutoff, seed=1))
    kinds["sign flipped"] = [flipped(like, hook_name, cutoff)]
    return {
        name: [
            (
                factor,
                [
                    [_edit(subject.source, config, factor * subject.largest, along[c % len(along)])]
                    for c in range(cells)
                ],
            )
            for factor in config.factors
            # The sign flipped at -1 is the feature at 1.
            if factor > 0 or (factor < 0 and name != "sign flipped")
        ]
        for name, along in kinds.items()
    }


def _measure(
    stage: Stage,
    subject: Subject,
    config: SweepConfig,
    sampling: Sampling,
    cells: _Cells,
    targets: list[int],
    made: dict[str, list[tuple[float, list[list[FeatureEdit]]]]],
    note: Note,
) -> dict[str, list[Point]]:
    """The points of every series, the baseline's and the prompt-only one's among them."""
    labels: list[tuple[str, float]] = [("baseline", 0.0)]
    rows: list[list[list[FeatureEdit]]] = [[[]] * len(cells.prompts)]
    before = [cells.prompts]
    answers = [cells.answers]
    for name, curve in made.items():
        note(name)
        flat = [edits for _, by_cell in curve for edits in by_cell]
        found = continue_rows(stage, cells.prompts * len(curve), flat, cells.seeds * len(curve), sampling)
        for at, (factor, by_cell) in enumerate(curve):
            labels.append((name, factor))
            rows.append(by_cell)
            before.append(cells.prompts)
            answers.append(found[at * len(cells.prompts) : (at + 1) * len(cells.prompts)])
    if config.controls and subject.words:
        labels.append(("prompt only", 0.0))
        rows.append([[]] * len(cells.prompts))
        before.append(cells.hinted)
        answers.append(continue_rows(stage, cells.hinted, rows[-1], cells.seeds, sampling))
    note("measures")
    read = _forced(stage, cells, before, rows, targets)
    flat_answers = [answer for group in answers for answer in group]
    texts = text_measures(stage, cells.prompts * len(answers), flat_answers, subject.source, targets, config.regex)
    points: dict[str, list[Point]] = {}
    for at, (name, factor) in enumerate(labels):
        part = slice(at * len(cells.prompts), (at + 1) * len(cells.prompts))
        point = _point(stage, subject, sampling, cells, factor, answers[at], read[at], read[0], texts[part], texts)
        points.setdefault(name, []).append(point)
    return points


def _forced(
    stage: Stage,
    cells: _Cells,
    before: list[list[list[int]]],
    rows: list[list[list[FeatureEdit]]],
    targets: list[int],
) -> list[list[Forced]]:
    """By group, then cell."""
    found: list[list[Forced]] = [[] for _ in rows]
    for c, answer in enumerate(cells.answers):
        base, rest = forced(
            stage,
            answer,
            [group[c] for group in before[1:]],
            [group[c] for group in rows[1:]],
            cells.prompts[c],
            targets,
        )
        for group, one in zip(found, [base, *rest], strict=True):
            group.append(one)
    return found


def _point(
    stage: Stage,
    subject: Subject,
    sampling: Sampling,
    cells: _Cells,
    factor: float,
    answers: list[list[int]],
    read: Sequence[Forced],
    base: Sequence[Forced],
    texts: Sequence[TextMeasures],
    every: Sequence[TextMeasures],
) -> Point:
    """`texts` are this point's, and of `every` the first are the baseline's."""

    def figure(values: Sequence[float]) -> Figure:
        return bootstrap(np.array(values, dtype=np.float64).reshape(cells.shape))

    named = {
        name: figure([float(getattr(text, name)) for text in texts])
        for name in ("distinct_1", "distinct_2", "distinct_3", "loops", "fires", "says_target", "matches")
    }
    mean, low, high = figure([text.log_perplexity for text in texts])
    return Point(
        factor=factor,
        strength=factor * subject.largest,
        shift=figure([a.target - b.target for a, b in zip(read, base, strict=True)]),
        kl=figure([a.kl for a in read]),
        perplexity_ratio=perplexity_ratio(
            [text.log_perplexity for text in texts],
            [text.log_perplexity for text in every[: len(texts)]],
            cells.shape,
        ),
        perplexity=(math.exp(mean), math.exp(low), math.exp(high)),
        texts=[stage.text(answer, sampling.stop) for answer in answers],
        tokens=answers,
        **named,
    )
