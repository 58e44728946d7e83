"""The one way in which a lens is fitted: in rounds of text, until its two halves say the same.

1.  Rounds go in turn to one half and the other; no stretch of text is in both.
2.  When the rounds have doubled (2, 4, 8, …) the halves' lenses are compared (`agreement`). It is enough when the scores of
    tokens would correlate at `enough` between two fits of all the text each, for every lens that is being fitted.
3.  What is summed so far is written after each pass, so that a fit that is ended goes on where it was, to the same lens. Where it
    was not enough the sums stay, and a fit of more rounds goes on from them.

Axes    S stretch, L token of a stretch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from interp.lenses.agreement import Agreement, Readers
from interp.lenses.files import load_kept, load_state, lock, save_lenses, save_state, state_path
from interp.lenses.lens import Lens
from interp.mask import Mask, norm_cutoff, own_tokens
from interp.models import Model
from interp.models.passes import Run
from interp.progress import bar
from interp.types import InterpError

MEASURED = 64
"""Stretches whose norms the cut-off for sinks is taken from."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How much text is read, and in what portions."""

    texts: int = 8
    """Stretches of one forward pass."""
    coordinates: int = 64
    """Rows of the matrices that are got from one forward pass (Jacobian); the next ones are got from other text."""
    rounds: int = 64
    """At most; a round is one pass (tuned), or as many as there are groups of coordinates (Jacobian)."""
    enough: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("texts", "coordinates"):
            if getattr(self, name) < 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.rounds < 2 or not 0 < self.enough < 1:
            raise InterpError(
                f"{self.rounds} rounds until {self.enough} is enough: give at least 2 rounds (one a half), and a share "
                "between 0 and 1."
            )


@runtime_checkable
class Work(Protocol):
    """What is summed while a lens is fitted."""

    kind: str
    passes: int
    """Forward passes of a round."""

    def add(self, tokens_SL: Tensor, number: int, half: int) -> None:
        """Sum what one pass gives; `number` counts all passes of the fit from 0."""

    def sums(self) -> dict[str, Tensor]:
        """All that a fit must remember; the tensors themselves, which are added to."""

    def matrices(self, half: int | None) -> dict[str, Tensor]:
        """By lens, its matrix from one half, or from both."""

    def positions(self) -> int:
        """Positions that each entry of the matrices rests on."""


def fit(
    work: Work,
    model: Model,
    hook_name: str,
    tokens_SL: Int[Tensor, "S L"],
    readers: Readers,
    folder: Path,
    config: FitConfig,
    *,
    text: str,
    restart: bool,
) -> dict[str, Lens]:
    """The lenses in the folder where they were fitted so before; else fitted, and written there.

    Raises InterpError when there is not text enough for one round of each half.
    """
    needed = 2 * work.passes * config.texts
    if len(tokens_SL) < needed:
        raise InterpError(
            f"{len(tokens_SL):,} stretches of text are too few to fit the {work.kind} lens of {hook_name}: its two halves need "
            f"{needed:,}; give more text, or fewer texts a pass."
        )
    recipe = _recipe(work, model, hook_name, tokens_SL, config, text)
    with lock(folder, work.kind):
        kept = None if restart else load_kept(folder, work.kind, recipe, hook_name)
        if kept is not None:
            return kept
        done, agreements = (0, []) if restart else load_state(folder, work.kind, recipe, work.sums())
        agreements = _rounds(work, tokens_SL, readers, config, folder, recipe, done, agreements)
        enough = _is_enough(agreements[-1], config.enough)
        about = {"recipe": recipe, "positions": work.positions(), "agreement": agreements, "enough": enough}
        save_lenses(folder, work.kind, work.matrices(None), about)
        if enough:
            state_path(folder, work.kind).unlink(missing_ok=True)
    made = load_kept(folder, work.kind, recipe, hook_name)
    assert made is not None
    return made


def _rounds(
    work: Work,
    tokens_SL: Tensor,
    readers: Readers,
    config: FitConfig,
    folder: Path,
    recipe: Mapping[str, Any],
    done: int,
    agreements: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Sum passes until it is enough or the text ends; the agreements at each doubling."""
    rounds = min(config.rounds, len(tokens_SL) // (work.passes * config.texts)) // 2 * 2
    if agreements and _is_enough(agreements[-1], config.enough):
        return agreements
    total = rounds * work.passes
    with bar(f"{work.kind} lens", total, "passes", done=done) as advance:
        for number in range(done, total):
            some_SL = tokens_SL[number * config.texts : (number + 1) * config.texts]
            work.add(some_SL, number, (number // work.passes) % 2)
            advance(1)
            ended = (number + 1) // work.passes if (number + 1) % work.passes == 0 else 0
            if ended and (ended == rounds or (ended >= 2 and ended & (ended - 1) == 0)):
                agreements = [*agreements, _agreements(work, readers)]
            save_state(folder, work.kind, recipe, work.sums(), number + 1, agreements)
            if agreements and ended and _is_enough(agreements[-1], config.enough):
                break
    return agreements


def _agreements(work: Work, readers: Readers) -> dict[str, Any]:
    halves = work.matrices(0), work.matrices(1)
    each: dict[str, Agreement] = {
        name: readers.agreement(halves[0][name].cpu(), halves[1][name].cpu(), work.positions()) for name in halves[0]
    }
    return {name: agreement.to_json() for name, agreement in each.items()}


def _is_enough(agreement: Mapping[str, Any], enough: float) -> bool:
    return all(each["whole"] >= enough for each in agreement.values())


def _recipe(
    work: Work, model: Model, hook_name: str, tokens_SL: Tensor, config: FitConfig, text: str
) -> dict[str, Any]:
    """What makes a fit what it is; two of one recipe are one lens."""
    digest = hashlib.sha256(tokens_SL.to(torch.int32).contiguous().numpy().tobytes()).hexdigest()
    return {
        "kind": work.kind,
        "model": model.name,
        "model_sha256": model.fingerprint(),
        "dtype": model.dtype_name,
        "hook_name": hook_name,
        "text": text,
        "tokens_sha256": digest,
        "length": int(tokens_SL.shape[1]),
    } | asdict(config)


def mask_of(
    model: Model, hook_names: tuple[str, str], tokens_SL: Int[Tensor, "S L"], texts: int, separator: int
) -> Mask:
    """The norms beyond which positions are sinks at both hook points, from the first stretches."""
    norms: dict[str, list[Tensor]] = {name: [] for name in hook_names}
    some_SL = tokens_SL[:MEASURED]
    for each_SL in some_SL.split(texts):
        run = model.run(each_SL, hook_names)
        for name in norms:
            norms[name].append(run.activations[name].float().norm(dim=-1).cpu())
    real_SL = own_tokens(some_SL, separator)
    return Mask({name: norm_cutoff(torch.cat(each), real_SL) for name, each in norms.items()})


def counted_of(run: Run, mask: Mask, tokens_SL: Int[Tensor, "S L"], separator: int) -> Tensor:
    """Positions of a pass that are fitted on and to: a text's own tokens that are no sinks, at both hook points."""
    x = {name: run.activations[name].detach() for name in mask.cutoffs}
    real_SL = own_tokens(tokens_SL, separator).to(next(iter(x.values())).device)
    return mask.counted(x, real_SL)
