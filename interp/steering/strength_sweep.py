"""Dose and response: one feature at many strengths, what each does, and what controls of the same size do.

Axes    P prompt, S seed. A rollout is a prompt with a seed; every figure is a mean over rollouts with a 95 % interval.

1. Everything that will run is looked up and checked.                                 `bind_sweep`
   Tokens that nobody named are measured, on openings of their own.                   `targets.measure_targets`
2. Every rollout is generated without edits, and under the edits of every strength.   `_generate`
3. The unsteered answers are read again under the same edits (shift, KL), and what was written is read by the unsteered
   model (perplexity, loops, whether the feature fires).                              `_measure`
4. The window and the verdict.                                                        `sweep_strengths`
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from interp.statistics import bootstrap
from interp.steering.binding import BoundEdit, check_strength
from interp.steering.controls import draw_controls, draw_noise, opposite
from interp.steering.curve import Figure, Point, StrengthSweep, StrengthSweepConfig
from interp.steering.edits import FeatureEdit, Named, describe_feature, matches, to_dict
from interp.steering.measures import TeacherForced, TextMeasures, measure_texts, teacher_force
from interp.steering.sampling import Sampling
from interp.steering.steerable import Steerable
from interp.steering.steered import SteeredModel, SteerRequest
from interp.steering.targets import measure_targets
from interp.steering.verdict import judge, perplexity_ratio
from interp.steering.window import find_window
from interp.types import InterpError

Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class _Series:
    """A series at one strength: of each rollout, the place of its edits in the request."""

    name: str
    factor: float
    variants: list[int]


@dataclass(frozen=True, eq=False)
class BoundSweep:
    """A sweep that was looked up and is known to be possible; made by `bind_sweep`."""

    steered: SteeredModel
    of: Steerable
    config: StrengthSweepConfig
    sampling: Sampling
    targets: list[int] | None
    """The tokens that are followed, where they were named."""
    request: SteerRequest
    """The prompts, and no edits, then those of every series."""
    hinted: SteerRequest
    """The prompts with the words of the prompt-only baseline in front."""
    series: list[_Series]

    @property
    def rollouts(self) -> list[tuple[int, int]]:
        """(place of the prompt, seed) of each."""
        return [(p, seed) for p in range(len(self.request.prompts)) for seed in self.config.seeds]

    @property
    def shape(self) -> tuple[int, int]:
        """Prompts and seeds."""
        return len(self.request.prompts), len(self.config.seeds)


@dataclass(frozen=True, eq=False)
class _Written:
    """What was written in a series at one strength, and under which edits: a list entry a rollout."""

    name: str
    factor: float
    prompts: list[list[int]]
    edits: list[list[BoundEdit]]
    answers: list[list[int]]
    forced: list[TeacherForced] = field(default_factory=list)
    texts: list[TextMeasures] = field(default_factory=list)


def bind_sweep(
    steered: SteeredModel,
    of: Steerable,
    config: StrengthSweepConfig,
    sampling: Sampling,
    *,
    target_tokens: Sequence[int] | None = None,
) -> BoundSweep:
    """All that the sweep will run, looked up and checked; `target_tokens` are followed where the config names no targets.

    Raises InterpError, before anything is generated, when the sweep cannot be made.
    """
    steered.model.check_causal("a sweep")
    check_strength(of.largest, describe_feature(of.feature))
    if of.largest <= 0:
        raise InterpError(
            f"{describe_feature(of.feature)} never fires in the index (its largest activation is "
            f"{of.largest:g}), so strengths have no unit; give one above 0 (largest=...)."
        )
    hints = [f"{of.words}\n\n{text}" if of.words else text for text in config.prompts]
    hinted = steered.request(steered.tokenize(hints, sampling), [[]], sampling)
    ids = steered.tokenize(config.prompts, sampling)
    held = [[_edit(of, config, factor)] for factor in config.factors]
    bound = steered.request(ids, held, sampling).variants[0][0]
    targets = _named_tokens(steered, config, target_tokens)
    if config.regex is not None:
        matches(config.regex, [""])
    rollouts = len(ids) * len(config.seeds)
    series = [_Series("feature", factor, [at + 1] * rollouts) for at, factor in enumerate(config.factors)]
    variants: list[list[FeatureEdit]] = [[], *held]
    for name, along in _controls(bound, of, rollouts).items() if config.controls else ():
        for factor in config.factors:
            # The sign changed at -1 is the feature at 1.
            if factor > 0 or (factor < 0 and name != "sign flipped"):
                used = along[:rollouts]
                series.append(_Series(name, factor, [len(variants) + c % len(used) for c in range(rollouts)]))
                variants += [[_edit(of, config, factor, other)] for other in used]
    return BoundSweep(steered, of, config, sampling, targets, steered.request(ids, variants, sampling), hinted, series)


def _edit(of: Steerable, config: StrengthSweepConfig, factor: float, along: Named | None = None) -> FeatureEdit:
    return of.edit(factor * of.largest, where=config.where, along=along, add=config.kind == "add")


def _controls(bound: BoundEdit, of: Steerable, rollouts: int) -> dict[str, list[Named]]:
    """By series, what is written along in turn: every rollout has its own matched feature and noise."""
    kinds: dict[str, list[Named]] = {}
    if of.matched:
        kinds["random features"] = draw_controls(bound, of.matched, 0, 0)
    return kinds | {"noise": list(draw_noise(rollouts, bound, seed=1)), "sign flipped": [opposite(bound)]}


def _named_tokens(
    steered: SteeredModel, config: StrengthSweepConfig, target_tokens: Sequence[int] | None
) -> list[int] | None:
    """The tokens that are followed, where somebody said which."""
    if not config.targets:
        size = len(steered.vocabulary())
        if target_tokens is not None and not all(0 <= t < size for t in target_tokens):
            raise InterpError(
                f"the tokens {list(target_tokens)} are not all of {steered.model.name}, which has {size:,}."
            )
        return list(target_tokens) if target_tokens else None
    tokens = []
    for text in config.targets:
        ids = steered.model.tokenize(text)
        if len(ids) != 1:
            raise InterpError(f"the target {text!r} is {len(ids)} tokens for {steered.model.name}; name single tokens.")
        tokens.append(ids[0])
    return tokens


def sweep_strengths(
    steered: SteeredModel,
    of: Steerable,
    config: StrengthSweepConfig,
    sampling: Sampling,
    note: Note = lambda text: None,
) -> StrengthSweep:
    """The feature at every strength on every prompt with every seed, beside its controls.

    All rows of a series are generated in batches that share the prompts' random numbers. `note` is told what begins.
    Raises InterpError, before anything is generated, when the sweep cannot be made.
    """
    return run_sweep(bind_sweep(steered, of, config, sampling), note)


def run_sweep(bound: BoundSweep, note: Note = lambda text: None) -> StrengthSweep:
    """What the sweep gives; `note` is told what begins."""
    steered, of, config = bound.steered, bound.of, bound.config
    measured = None
    if bound.targets is None or config.verdict:
        note("targets")
        measured = measure_targets(steered, of)
    targets = bound.targets if measured is None or bound.targets is not None else measured.tokens[0]
    assert targets is not None
    written = _generate(bound, note)
    note("measures")
    _measure(bound, targets, written)
    series: dict[str, list[Point]] = {}
    for one in written:
        series.setdefault(one.name, []).append(_point(bound, one, written[0]))
    (baseline,) = series.pop("baseline")
    note("verdict")
    verdict = judge(steered, of, targets=measured) if config.verdict else None
    return StrengthSweep(
        subject=to_dict(_edit(of, config, 1.0)),
        words=of.words,
        largest=of.largest,
        targets=[steered.vocabulary()[token] for token in targets],
        target_tokens=targets,
        targets_by="name" if bound.targets is not None else "measure",
        prompt_tokens=bound.request.prompts,
        baseline=baseline,
        series=series,
        window=find_window(series, baseline.loops[0]),
        verdict=verdict,
        config=asdict(config),
        sampling=bound.sampling.to_dict(),
        environment=steered.record(),
    )


def _generate(bound: BoundSweep, note: Note) -> list[_Written]:
    """The baseline, every series at every strength, and the prompt-only one."""
    request, rollouts = bound.request, bound.rollouts
    prompts = [request.prompts[p] for p, _ in rollouts]
    none: list[list[BoundEdit]] = [[] for _ in rollouts]
    note("baseline")
    answers = request.generate([(p, 0, seed) for p, seed in rollouts])
    written = [_Written("baseline", 0.0, prompts, none, answers)]
    for name in dict.fromkeys(one.name for one in bound.series):
        note(name)
        curve = [one for one in bound.series if one.name == name]
        answers = request.generate(
            [(p, variant, seed) for one in curve for (p, seed), variant in zip(rollouts, one.variants, strict=True)]
        )
        for at, one in enumerate(curve):
            edits = [request.variants[variant] for variant in one.variants]
            part = answers[at * len(rollouts) : (at + 1) * len(rollouts)]
            written.append(_Written(name, one.factor, prompts, edits, part))
    if bound.config.controls and bound.of.words:
        hinted = [bound.hinted.prompts[p] for p, _ in rollouts]
        answers = bound.hinted.generate([(p, 0, seed) for p, seed in rollouts])
        written.append(_Written("prompt only", 0.0, hinted, none, answers))
    return written


def _measure(bound: BoundSweep, targets: list[int], written: list[_Written]) -> None:
    """Put what each did to the baseline's text, and what its own text is, into every series."""
    base = written[0]
    for c, answer in enumerate(base.answers):
        reference, rest = teacher_force(
            bound.steered,
            answer,
            [one.prompts[c] for one in written[1:]],
            [one.edits[c] for one in written[1:]],
            base.prompts[c],
            targets,
        )
        for one, forced in zip(written, [reference, *rest], strict=True):
            one.forced.append(forced)
    answers = [answer for one in written for answer in one.answers]
    feature = next((edit.feature for edits in bound.request.variants for edit in edits), None)
    prompts = base.prompts * len(written)
    texts = measure_texts(bound.steered, prompts, answers, feature, targets, bound.config.regex)
    for at, one in enumerate(written):
        one.texts.extend(texts[at * len(base.answers) : (at + 1) * len(base.answers)])


def _point(bound: BoundSweep, one: _Written, base: _Written) -> Point:
    def figure(values: Sequence[float]) -> Figure:
        return bootstrap(np.array(values, dtype=np.float64).reshape(bound.shape))

    named = {
        name: figure([float(getattr(text, name)) for text in one.texts])
        for name in ("distinct_1", "distinct_2", "distinct_3", "loops", "fires", "says_target", "matches")
    }
    steered, unsteered = ([text.log_perplexity for text in each.texts] for each in (one, base))
    mean, low, high = figure(steered)
    return Point(
        factor=one.factor,
        strength=one.factor * bound.of.largest,
        shift=figure([a.target - b.target for a, b in zip(one.forced, base.forced, strict=True)]),
        kl=figure([a.kl for a in one.forced]),
        perplexity_ratio=perplexity_ratio(steered, unsteered, bound.shape),
        perplexity=(math.exp(mean), math.exp(low), math.exp(high)),
        texts=[bound.steered.decode(answer, bound.sampling.stop) for answer in one.answers],
        tokens=one.answers,
        **named,
    )
