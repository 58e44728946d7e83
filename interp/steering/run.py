"""Generate with and without edits, from the same random numbers, and write down all that is needed to do it again."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from interp import places
from interp.render import Html, table_html, tokens_html
from interp.steering.binding import BoundEdit
from interp.steering.conflicts import find_conflicts
from interp.steering.edits import FeatureEdit, to_dict
from interp.steering.sampling import Sampling, check_seed
from interp.steering.steered import SteeredModel
from interp.types import InterpError

OnText = Callable[[str, str], None]
"""Told the baseline and the steered text so far."""


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
    kind: Literal["steer"] = "steer"

    def to_json(self) -> str:
        """The record, from which `interp replay` runs it again."""
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
    kind: Literal["batch"] = "batch"

    def to_json(self) -> str:
        """The record, from which `interp replay` runs it again."""
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


def generate(
    steered: SteeredModel,
    prompt: str,
    edits: Sequence[FeatureEdit | BoundEdit],
    sampling: Sampling,
    on_text: OnText | None = None,
) -> SteerRun:
    """The prompt continued with and without the edits, as two rows of one batch that draw the same random numbers.

    `on_text` is told both texts after every token. Raises InterpError, before anything is computed, when an edit cannot be
    made or the prompt cannot be continued.
    """
    (ids,) = steered.tokenize([prompt], sampling)
    request = steered.request([ids], [[], edits], sampling)
    so_far: list[list[int]] = [[], []]

    def show(step: list[int | None]) -> None:
        for answer, token in zip(so_far, step, strict=True):
            answer += [] if token is None else [token]
        if on_text is not None:
            on_text(*(steered.decode(answer, sampling.stop) for answer in so_far))

    rows = [(0, variant, sampling.seed) for variant in (0, 1)]
    baseline, changed = request.generate(rows, show if on_text else None)
    return SteerRun(
        prompt=prompt,
        edits=[to_dict(bound.edit) for bound in request.variants[1]],
        baseline=steered.decode(baseline, sampling.stop),
        steered=steered.decode(changed, sampling.stop),
        prompt_tokens=ids,
        baseline_tokens=baseline,
        steered_tokens=changed,
        sampling=sampling.to_dict(),
        conflicts=find_conflicts(request.variants[1]),
        environment=steered.record(),
    )


def generate_many(
    steered: SteeredModel,
    prompts: Sequence[str],
    variants: Sequence[Sequence[FeatureEdit | BoundEdit]],
    seeds: Sequence[int],
    sampling: Sampling,
) -> SteerBatch:
    """Every prompt under every set of edits with every seed, in one batch. Raises InterpError as `generate` does."""
    ids = steered.tokenize(prompts, sampling)
    if not variants or not seeds:
        raise InterpError(
            "nothing to generate: give at least one set of edits (an empty one is the baseline) and one seed."
        )
    seeds = [check_seed(seed) for seed in seeds]
    request = steered.request(ids, variants, sampling)
    chosen = [(p, v, s) for p in range(len(ids)) for v in range(len(variants)) for s in range(len(seeds))]
    answers = request.generate([(p, v, seeds[s]) for p, v, s in chosen])
    return SteerBatch(
        prompts=list(prompts),
        prompt_tokens=ids,
        variants=[[to_dict(bound.edit) for bound in edits] for edits in request.variants],
        seeds=seeds,
        outputs=[
            {"prompt": p, "variant": v, "seed": s, "tokens": tokens, "text": steered.decode(tokens, sampling.stop)}
            for (p, v, s), tokens in zip(chosen, answers, strict=True)
        ],
        sampling=sampling.to_dict(),
        conflicts=[find_conflicts(edits) for edits in request.variants],
        environment=steered.record(),
    )


def as_json(record: Any) -> str:
    """A record as strict JSON: what could not be measured (nan) is null."""
    return places.strict_json(asdict(record), indent=1)
