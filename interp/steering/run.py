"""Generate with and without edits, from the same random numbers, and write down all that is needed to do it again."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from numbers import Integral
from typing import Any, TypedDict

import torch
from torch import Tensor

from interp import places
from interp.models import Edit, Model
from interp.render import Html, table_html, tokens_html
from interp.steering.apply import Vocabulary, compile_edits
from interp.steering.edits import (
    FeatureEdit,
    Saes,
    check_edit,
    check_positions,
    conflicts,
    describe,
    describe_source,
    hook_of,
    hooked,
    row,
    to_dict,
)
from interp.types import InterpError, unknown

FORMAT = 1
ROWS = 96
"""Rows that are generated at a time."""
OnStep = Callable[[list[int | None]], None]
OnText = Callable[[str, str], None]
"""Told the baseline and the steered text so far."""


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, as keywords of a script."""

    max_new_tokens: int
    seed: int
    temperature: float
    top_p: float
    stop: Sequence[str]
    chat: bool
    special: bool


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; `seed` counts only above temperature 0."""

    max_new_tokens: int = 40
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Sequence[str] = ()
    """Strings that end an answer; it is cut before them."""
    chat: bool = False
    """Put the prompt into the model's chat template."""
    special: bool = False
    """Read special tokens that the prompt spells, a rendered template's, as such."""

    @staticmethod
    def of(options: Mapping[str, Any]) -> "Sampling":
        """From keywords; InterpError for one that is no field."""
        known = [each.name for each in fields(Sampling)]
        for name in options:
            if name not in known:
                raise unknown("setting of sampling", name, known)
        return Sampling(**options)

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
            raise InterpError(f"stop is {self.stop!r}; give a string or a list of strings.")
        if any(not text for text in stop):
            raise InterpError("a stop string is empty; leave it out.")
        object.__setattr__(self, "stop", tuple(stop))
        object.__setattr__(self, "seed", check_seed(self.seed))
        object.__setattr__(self, "max_new_tokens", check_whole("max_new_tokens", self.max_new_tokens, 1, 2**31))
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InterpError(f"{name} is {value!r}; give a number.")
        for name in ("chat", "special"):
            if not isinstance(getattr(self, name), bool):
                raise InterpError(f"{name} is {getattr(self, name)!r}; it is true or false.")
        if self.chat and self.special:
            raise InterpError("chat puts the template's special tokens in itself; leave special out.")


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """The whole number, or an InterpError that says which are allowed."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise InterpError(f"{name} is {value!r}; give a whole number from {low} to {high}.")
    return int(value)


def check_seed(value: Any) -> int:
    """The seed; a row's generator takes a million times as much, in 64 bits."""
    return check_whole("seed", value, -(2**40), 2**40)


@dataclass(frozen=True, eq=False)
class Stage:
    """A model with the SAEs whose features are edited in it."""

    model: Model
    saes: Saes
    vocabulary: Vocabulary
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Names and hashes for the record."""

    def check(self, edits: Sequence[FeatureEdit]) -> None:
        """Raises InterpError when the edits cannot be made in this model: see `check_edit`, and widths."""
        for edit in edits:
            check_edit(edit, self.saes)
            sources = (
                [edit.feature] if edit.when is None or edit.when.feature is None else [edit.feature, edit.when.feature]
            )
            for source in sources:
                home = hooked(source, self.saes)
                hook_name = home.hook_name if home is not None else hook_of(edit, self.saes)
                width, found = self.model.width(hook_name), len(row(source, self.saes))
                if found != width:
                    raise InterpError(
                        f"{describe_source(source)} has width {found}, and {hook_name} of {self.model.name} has {width}; "
                        "was it made for another model or hook point?"
                    )

    def compile(self, rows: Sequence[Sequence[FeatureEdit]]) -> list[Edit]:
        """The rows' edits as the model takes them."""
        edits = [edit for row in rows for edit in row]
        self.check(edits)
        hooks = {hook_of(edit, self.saes) for edit in edits}
        several = len(hooks) > 1 or any(edit.when is not None and edit.when.feature is not None for edit in edits)
        order = self.model.hook_names() if several else ()
        return compile_edits(rows, self.saes, order=order, vocabulary=self.vocabulary)

    @cached_property
    def unembedding(self) -> tuple[Tensor, Tensor]:
        return self.model.unembedding()

    @cached_property
    def folded(self) -> list[str]:
        """The text of every token without case and spaces (spaces alone stay)."""
        return [text.strip().lower() or text for text in self.vocabulary()]

    def prompts(self, texts: Sequence[str], chat: bool, special: bool = False) -> list[list[int]]:
        """Token ids of the prompts (see `Sampling`); InterpError for an empty or too long one."""
        if not texts:
            raise InterpError("there is no prompt; give at least one.")
        for text in texts:
            if not isinstance(text, str):
                raise InterpError(f"the prompt {text!r} is no text; give strings.")
        if chat:
            return [self.model.chat([{"role": "user", "content": text}]) for text in texts]
        return [self.model.prompt(text, special=special) for text in texts]

    def text(self, tokens: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The answer as text, cut before the first stop string."""
        text = self.model.decode(tokens)
        return text[: min([text.find(each) for each in stop if each in text], default=len(text))]

    def record(self) -> dict[str, Any]:
        """What a replay depends on besides the request."""
        return {
            "format": FORMAT,
            **self.identity,
            "saes": {name: home.sha256 for name, home in self.saes.items() if name},
            "dtype": self.model.dtype_name,
            "attention": self.model.attention,
            "device": self.model.device.type,
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability() + " " + platform.machine(),
        }


@dataclass(frozen=True, kw_only=True)
class SteerRun:
    """What the model says with and without the edits, and all that is needed to do it again."""

    prompt: str
    edits: list[dict[str, Any]]
    baseline: str
    steered: str
    prompt_tokens: list[int]
    baseline_tokens: list[int]
    steered_tokens: list[int]
    sampling: dict[str, Any]
    conflicts: list[str]
    """Edits that undo or disturb each other."""
    environment: dict[str, Any]
    """Hashes of model and SAEs, dtype, attention, device, threads and library versions."""
    kind: str = "steer"

    def to_json(self) -> str:
        return as_json(self)

    def _repr_html_(self) -> str:
        def shown(text: str) -> Html:
            return Html(tokens_html([text], [0.0], 1.0))

        return table_html(["", self.prompt], [("baseline", shown(self.baseline)), ("steered", shown(self.steered))])


@dataclass(frozen=True, kw_only=True)
class SteerBatch:
    """Answers to several prompts, each under several sets of edits and with several seeds."""

    prompts: list[str]
    prompt_tokens: list[list[int]]
    variants: list[list[dict[str, Any]]]
    seeds: list[int]
    outputs: list[dict[str, Any]]
    """Of each (prompt, variant, seed), by their places in the lists above: tokens and text."""
    sampling: dict[str, Any]
    conflicts: list[list[str]]
    """Of each set of edits: those that undo or disturb each other."""
    environment: dict[str, Any]
    kind: str = "batch"

    def to_json(self) -> str:
        return as_json(self)

    def texts(self, variant: int) -> list[str]:
        """The answers under one set of edits, by prompt, then seed."""
        return [output["text"] for output in self.outputs if output["variant"] == variant]

    def _repr_html_(self) -> str:
        rows = [
            (self.prompts[o["prompt"]], o["variant"], o["seed"], Html(tokens_html([o["text"]], [0.0], 1.0)))
            for o in self.outputs
        ]
        return table_html(["prompt", "edits", "seed", "text"], rows)


def check_request(
    stage: Stage, prompts: Sequence[Sequence[int]], variants: Sequence[Sequence[FeatureEdit]], sampling: Sampling
) -> None:
    """Raises InterpError when the prompts cannot be continued under these edits."""
    for edits in variants:
        stage.check(edits)
        check_positions(edits, prompts)
    stage.model.check_generation(prompts, sampling.max_new_tokens, sampling.temperature, sampling.top_p)


def continue_rows(
    stage: Stage,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Sequence[FeatureEdit]],
    seeds: Sequence[int],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> list[list[int]]:
    """New tokens of each prompt under its own edits and seed; `ROWS` of them run at a time."""
    check_request(stage, prompts, rows, sampling)
    answers: list[list[int]] = []
    for start in range(0, len(prompts), ROWS):
        part = slice(start, start + ROWS)
        made: list[list[int]] = [[] for _ in prompts[part]]
        steps = stage.model.stream(
            prompts[part],
            edits=stage.compile(rows[part]),
            seed=list(seeds[part]),
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
        )
        for step in steps:
            for answer, token in zip(made, step, strict=True):
                if token is not None:
                    answer.append(token)
            if on_step is not None:
                on_step(step)
        answers += made
    return answers


def generate(
    stage: Stage, prompt: str, edits: Sequence[FeatureEdit], sampling: Sampling, on_text: OnText | None = None
) -> SteerRun:
    """The prompt continued with and without the edits, as two rows of one batch that draw the same random numbers."""
    (ids,) = stage.prompts([prompt], sampling.chat, sampling.special)
    so_far: list[list[int]] = [[], []]

    def show(step: list[int | None]) -> None:
        for answer, token in zip(so_far, step, strict=True):
            answer += [] if token is None else [token]
        if on_text is not None:
            on_text(*(stage.text(answer, sampling.stop) for answer in so_far))

    rows = [[], list(edits)]
    baseline, steered = continue_rows(stage, [ids, ids], rows, [sampling.seed] * 2, sampling, show if on_text else None)
    return SteerRun(
        prompt=prompt,
        edits=[to_dict(edit) for edit in edits],
        baseline=stage.text(baseline, sampling.stop),
        steered=stage.text(steered, sampling.stop),
        prompt_tokens=ids,
        baseline_tokens=baseline,
        steered_tokens=steered,
        sampling=plain(sampling),
        conflicts=conflicts(edits, stage.saes),
        environment=stage.record(),
    )


def generate_many(
    stage: Stage,
    prompts: Sequence[str],
    variants: Sequence[Sequence[FeatureEdit]],
    seeds: Sequence[int],
    sampling: Sampling,
) -> SteerBatch:
    """Every prompt under every set of edits with every seed, in one batch."""
    ids = stage.prompts(prompts, sampling.chat, sampling.special)
    if not variants or not seeds:
        raise InterpError(
            "nothing to generate: give at least one set of edits (an empty one is the baseline) and one seed."
        )
    seeds = [check_seed(seed) for seed in seeds]
    cells = [(p, v, s) for p in range(len(ids)) for v in range(len(variants)) for s in range(len(seeds))]
    answers = continue_rows(
        stage,
        [ids[p] for p, _, _ in cells],
        [variants[v] for _, v, _ in cells],
        [seeds[s] for *_, s in cells],
        sampling,
    )
    return SteerBatch(
        prompts=list(prompts),
        prompt_tokens=ids,
        variants=[[to_dict(edit) for edit in edits] for edits in variants],
        seeds=seeds,
        outputs=[
            {"prompt": p, "variant": v, "seed": s, "tokens": tokens, "text": stage.text(tokens, sampling.stop)}
            for (p, v, s), tokens in zip(cells, answers, strict=True)
        ],
        sampling=plain(sampling),
        conflicts=[conflicts(edits, stage.saes) for edits in variants],
        environment=stage.record(),
    )


def plain(sampling: Sampling) -> dict[str, Any]:
    return asdict(sampling) | {"stop": list(sampling.stop)}


def as_json(record: Any) -> str:
    """A record as strict JSON: what could not be measured (nan) is null."""
    return places.strict_json(asdict(record), indent=1)


# ---- replay ----


def check_record(record: Any) -> Mapping[str, Any]:
    """The record's environment; InterpError when this is no record of a run, or of another format."""
    then = record.get("environment") if isinstance(record, Mapping) else None
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if not isinstance(then, Mapping) or kind not in ("steer", "batch", "sweep"):
        raise InterpError("this file is no record of a steering run; `interp steer --record FILE` writes one.")
    if then.get("format") != FORMAT:
        raise InterpError(
            f"the record has format {then.get('format')!r}, and this version of interp replays format {FORMAT}; "
            "make the run again to record it."
        )
    for key, type_ in (("sae", str), ("versions", Mapping)):
        if not isinstance(then.get(key), type_):
            raise InterpError(
                f"the record is not whole: its environment has {key} {then.get(key)!r}; record the run again."
            )
    check_whole("the record's threads", then.get("threads"), 1, 1024)
    return then


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Whether a recorded run came out the same again."""

    identical: bool
    difference: str
    """Where it first differs; empty when it does not."""
    environment: list[str]
    """What of the machine and its libraries is not as recorded."""

    def sentence(self) -> str:
        if self.identical:
            return "identical: every recorded token and number came out again."
        because = f" Not as recorded: {'; '.join(self.environment)}." if self.environment else ""
        return f"it first differs at {self.difference}.{because}"


def compare(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> Replay:
    """The record against the same request run anew; what identifies the machine is told apart from results."""
    then, now = dict(recorded), json.loads(places.strict_json(again))
    before, after = then.pop("environment", {}), now.pop("environment", {})
    older = then.get("kind") == "sweep" and "window" not in then
    if older:  # made before text had to stay text: its verdict is by another rule
        _forget_fluency(then, now)
    changed = [
        f"{key} {before.get(key)} is {after.get(key)} here"
        for key in sorted({*before, *after})
        if key != "versions" and before.get(key) != after.get(key)
    ]
    changed += ["its verdict is by an earlier rule and is not compared"] if older else []
    old, new = before.get("versions", {}), after.get("versions", {})
    changed += [f"{key} {old.get(key)} is {new.get(key)} here" for key in sorted(old) if old.get(key) != new.get(key)]
    difference = first_difference(then, now)
    return Replay(identical=not difference, difference=difference, environment=changed)


def _forget_fluency(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Take from both what a sweep's record did not have at first, and the verdict."""
    for record in (then, now):
        record.pop("window", None)
        record.pop("verdict", None)
    series = now.get("series", {}).values()
    for point in [now.get("baseline", {}), *(point for points in series for point in points)]:
        point.pop("perplexity_ratio", None)


def first_difference(recorded: Any, again: Any, path: str = "") -> str:
    """The place of the first unequal value in two JSON values, with both; empty when they are equal.

    What a record does not speak of, for it is older than the field, cannot differ.
    """
    if isinstance(recorded, dict) and isinstance(again, dict):
        # Token ids before the texts and numbers that follow from them.
        for key in sorted(recorded, key=lambda key: ("tokens" not in key, key != "outputs", key)):
            found = first_difference(recorded.get(key), again.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return ""
    if isinstance(recorded, list) and isinstance(again, list):
        for place, (a, b) in enumerate(zip(recorded, again, strict=False)):
            found = first_difference(a, b, f"{path}[{place}]")
            if found:
                return found
        if len(recorded) != len(again):
            return f"{path}: {len(recorded)} entries recorded, {len(again)} now"
        return ""
    return "" if recorded == again else f"{path}: {recorded!r} recorded, {again!r} now"


def summary(edits: Sequence[FeatureEdit]) -> str:
    return "; ".join(describe(edit) for edit in edits) or "no edit"
