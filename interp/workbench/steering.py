"""Steering with what the index and the labels know: the ways into `interp.steering` from an open SAE."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch

from interp import steering
from interp.checkpoint import Card, load
from interp.checkpoint.files import resolve
from interp.corpus import read_texts
from interp.sae.dictionary import one_written
from interp.steering import (
    Ablate,
    Ablation,
    Add,
    BoundEdit,
    Clamp,
    Direction,
    Effects,
    FeatureEdit,
    Hooked,
    Sampling,
    SamplingOptions,
    SteerBatch,
    SteerRequest,
    SteerRun,
    StrengthSweep,
    StrengthSweepConfig,
    Verdict,
    strength_sweep,
)
from interp.steering.binding import bind_all
from interp.steering.strength_sweep import BoundSweep, run_sweep
from interp.types import FeatureRef, InterpError
from interp.workbench.known import matched, own_feature, steerable
from interp.workbench.opening import Opened


@dataclass(frozen=True)
class Transcript:
    """What was heard in a file, without edits and with them."""

    file: str
    heard: str
    edited: str


def bind(wb: Opened, edits: Sequence[FeatureEdit]) -> list[BoundEdit]:
    """The edits with the SAEs that they name, which are opened here; before the SAE's own model is.

    Raises InterpError when one cannot be made.
    """
    for edit in edits:
        for named in (edit.feature, edit.along, edit.when.feature if edit.when else None):
            if isinstance(named, FeatureRef) and named.sae not in wb.saes:
                wb.saes[named.sae] = _other(wb, named.sae)
    return bind_all(edits, wb.saes)


def _bind_rows(wb: Opened, variants: Sequence[Sequence[FeatureEdit]]) -> list[list[BoundEdit]]:
    bound = iter(bind(wb, [edit for edits in variants for edit in edits]))
    return [[next(bound) for _ in edits] for edits in variants]


def check_edits(wb: Opened, edits: Sequence[FeatureEdit]) -> None:
    """Raises InterpError, before any model is opened, when an edit cannot be made."""
    bind(wb, edits)


def _other(wb: Opened, name: str) -> Hooked:
    """Another SAE that an edit names; InterpError when it was made for another model."""
    folder = resolve(name)
    card = Card.read(folder)
    if card.model_sha256 != wb.model.fingerprint_like(card.model_sha256):
        raise InterpError(
            f"{name} was made for {card.model} with weights {card.model_sha256[:12]}…, and {wb.card.name} for "
            f"{wb.card.model} with {wb.card.model_sha256[:12]}…; edits of one run need SAEs of one model."
        )
    sae = load(folder).to(wb.sae.device)
    return Hooked(sae, card.mask.cutoffs, card.separator, card.sae_sha256)


def steer(
    wb: Opened,
    prompt: str,
    edits: Sequence[FeatureEdit],
    *,
    on_text: Callable[[str, str], None] | None = None,
    **options: Unpack[SamplingOptions],
) -> SteerRun:
    """What the model says after the prompt, with and without the edits.

    Options are the fields of `interp.steering.Sampling`: max_new_tokens, seed, temperature, top_p, stop, chat, special.
    `on_text` is told the baseline and the steered text after every token. Raises InterpError, before anything is
    computed, when an edit cannot be made or the prompt cannot be continued.
    """
    sampling, bound = Sampling.of(options), bind(wb, edits)
    return steering.generate(wb.steered, prompt, bound, sampling, on_text)


def steer_many(
    wb: Opened,
    prompts: Sequence[str],
    variants: Sequence[Sequence[FeatureEdit]],
    *,
    seeds: Sequence[int] = (0,),
    **options: Unpack[SamplingOptions],
) -> SteerBatch:
    """Every prompt under every set of edits (an empty one is the baseline) with every seed, in one batch.

    Options and errors are those of `steer`.
    """
    sampling, bound = Sampling.of(options), _bind_rows(wb, variants)
    return steering.generate_many(wb.steered, prompts, bound, seeds, sampling)


def request(
    wb: Opened, prompts: Sequence[str], variants: Sequence[Sequence[FeatureEdit]], **options: Unpack[SamplingOptions]
) -> SteerRequest:
    """Prompts and sets of edits that were looked up and are known to be possible, any of which can be run with any.

    Options are those of `steer`. Raises InterpError, before anything is computed, when a prompt cannot be continued under
    one of the sets.
    """
    sampling, bound = Sampling.of(options), _bind_rows(wb, variants)
    return wb.steered.request(wb.steered.tokenize(prompts, sampling), bound, sampling)


def difference_of_means(
    wb: Opened,
    toward: Sequence[str] | str | Path,
    away: Sequence[str] | str | Path,
    *,
    hook_name: str | None = None,
    name: str = "contrast",
) -> Direction:
    """The difference of mean activations of two sets of texts, to steer by with `Add(feature=direction, ...)`.

    A set is a sequence of texts, or the name of a file or corpus of them, as `contrast:` of a search takes it. It is taken
    at what the SAE writes, unless `hook_name` names another hook point. Raises InterpError when a set is empty.
    """
    hook_name = hook_name or _own_hook(wb)
    cutoff = wb.card.norm_cutoff if hook_name == str(wb.sae.reads[0]) else None
    toward, away = (list(read_texts(x)) if isinstance(x, str | Path) else x for x in (toward, away))
    return steering.difference_of_means(wb.model, toward, away, hook_name, norm_cutoff=cutoff, name=name)


def _own_hook(wb: Opened) -> str:
    return str(one_written(wb.sae, "a direction without its hook point"))


def stand_in(wb: Opened) -> Direction:
    """A direction of the right hook point and width, to check a request with before the true one is computed."""
    ones = (1.0,) * wb.sae.d_out
    return Direction(name="contrast", hook_name=_own_hook(wb), vector=ones, norm_cutoff=wb.card.norm_cutoff)


def sweep(
    wb: Opened,
    feature: int | FeatureRef | Direction,
    *,
    config: StrengthSweepConfig | None = None,
    largest: float | None = None,
    words: str | None = None,
    target_tokens: Sequence[int] | None = None,
    note: Callable[[str], None] = lambda text: None,
    **options: Unpack[SamplingOptions],
) -> StrengthSweep:
    """Dose and response of a feature (or a direction), its controls and the verdict.

    Strengths are multiples of `largest`, by default the feature's largest activation in the index. `words` is
    the text of the prompt-only baseline, by default made of the label or of the tokens the feature fires on. Where the
    config names no targets, `target_tokens` (ids) are followed, by default those that the feature is measured to make likely.
    Options are those of `steer`. Raises InterpError, before anything is computed, when the sweep cannot be made.
    """
    bound = bind_sweep(wb, feature, config=config, largest=largest, words=words, target_tokens=target_tokens, **options)
    return run_sweep(bound, note)


def bind_sweep(
    wb: Opened,
    feature: int | FeatureRef | Direction,
    *,
    config: StrengthSweepConfig | None = None,
    largest: float | None = None,
    words: str | None = None,
    target_tokens: Sequence[int] | None = None,
    **options: Unpack[SamplingOptions],
) -> BoundSweep:
    """What `sweep` will run, looked up and checked; InterpError when it cannot be."""
    sampling, config = Sampling.of(options), config or StrengthSweepConfig()
    bind(wb, [Add(feature=feature, strength=largest or 1.0, where=config.where)])
    of = steerable(wb, feature, largest=largest, words=words)
    return strength_sweep.bind_sweep(wb.steered, of, config, sampling, target_tokens=target_tokens)


def verdict(wb: Opened, feature: int | FeatureRef | Direction, *, largest: float | None = None) -> Verdict:
    """Controller, detector, both or neither, and the figures that say so."""
    bind(wb, [Add(feature=feature, strength=largest or 1.0)])
    return steering.judge(wb.steered, steerable(wb, feature, largest=largest))


def ablate(wb: Opened, text: str, feature: int | FeatureRef) -> Ablation:
    """What ablating the feature changes in what the model gives for the text, beside features that fire about as often.

    For models of every family, those that continue nothing among them. Raises InterpError when there is no such feature, and
    for a text that is empty or too long.
    """
    own = own_feature(wb, feature)
    bind(wb, [Ablate(feature=own)])
    return steering.ablate(wb.steered, own, wb.model.prompt(text), matched(wb, own))


def transcribe(wb: Opened, clips: Sequence[str], edits: Sequence[FeatureEdit] = ()) -> list[Transcript]:
    """What a model of speech writes down of each file as it is, and with features of its encoder edited.

    Raises InterpError for a model that writes nothing down, an edit that cannot be made, and a file that cannot be read.
    """
    bound, model = bind(wb, edits), wb.model
    made = []
    for clip in clips:
        places = model.prompt(clip)
        rows = wb.steered.compile_bound([bound], torch.tensor([places], device=model.device))
        heard = model.transcribe([places])[0]
        made.append(Transcript(clip, heard, model.transcribe([places], rows)[0] if edits else heard))
    return made


def effects(
    wb: Opened, feature: int | FeatureRef, *, contexts: int = 45, length: int = 64, strength: float | None = None
) -> Effects:
    """What ablating the feature, and holding it at `strength` (its largest activation), does to the next token.

    Contexts are the index's examples, then other positions where it fires, in an order without meaning; each is cut
    to its last `length` tokens. Forward passes only. Beside both stand the same amounts along matched features and noise.
    Raises InterpError when the feature fires nowhere, or cannot be edited.
    """
    own = own_feature(wb, feature)
    if contexts < 1 or length < 2:
        raise InterpError(f"{contexts} contexts of {length} tokens: give at least 1 context of 2 tokens.")
    largest = float(wb.index.row(own)["max"]) if strength is None else strength
    bind(wb, [Clamp(feature=own, strength=largest)])
    rows = wb.index.sql("SELECT position FROM {examples} WHERE feature = ? ORDER BY band, rank", [own])
    positions = [int(p) for p in rows["position"]]
    if len(positions) < contexts:
        more = "SELECT position FROM {activations} WHERE feature = ? ORDER BY hash(position), position"
        positions += [int(p) for p in wb.index.sql(more, [own])["position"]]
    positions = list(dict.fromkeys(positions))[:contexts]
    tokens, block, separator = wb.index.tokens, wb.index.block, wb.card.separator
    texts, following = [], []
    for position in positions:
        start = max(position // block * block + 1, position + 2 - length)
        texts.append([separator, *(int(t) for t in tokens[start : position + 1])])
        after = int(tokens[position + 1]) if (position + 1) % block else separator
        following.append(-1 if after == separator else after)
    return steering.effects(wb.steered, own, texts, following, positions, largest, matched(wb, own))
