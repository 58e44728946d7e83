"""What does not depend on the SAE, read once: activations at the hook points, which positions count, and the model's loss.

Several SAEs of the same hook points (trained ones, nulls, other people's) are measured on one `Baseline`, which holds what
is common to them; an SAE's rows are encoded once (`reconstruct`), for all measures.

1. `read_baseline` runs the model up to the last hook point and keeps what passes there.
2. `reconstruct` encodes and decodes the rows of one SAE.
3. `in_place.measure_losses` runs the model with something else in place of what stands there.

Definitions
    counted      a document's own token whose norm is under the cut-off (`mask`). The others are left as they are in every
                 pass, ablations included.
    predicted    counted, and a token of the document follows.

Axes    N block, T position, P counted position, D d_in, O d_out, W width of one hook point.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.activations.harvesting import given_of
from interp.codes import Read, hooks_read, read_blocks
from interp.corpus import TokenBlocks
from interp.evals.documents import Documents
from interp.evals.figure import Figure
from interp.mask import Mask
from interp.models import Model
from interp.sae import SAE
from interp.sae.dictionary import reads_what_it_writes
from interp.sae.sparser import Sparser
from interp.types import Hook, InterpError

ROWS = 4096
"""Encoded at a time."""
SAME = 1e-9
"""Share of the squared norm under which the spread about the mean is rounding: all rows are the same."""

Change = Callable[[int, int], Float[Tensor, "P O"]]
"""What stands at the counted positions FIRST to LAST (of all P), instead of what the model has there."""
Step = Callable[[int], None]


def quiet(tokens: int) -> None:
    """Nobody is told how many tokens were read."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Of one pass, by counted position."""

    ce_P: Float[np.ndarray, " P"]
    """Nats; 0 where nothing is predicted."""
    kl_P: Float[np.ndarray, " P"]
    """Nats, from the untouched pass."""

    def put(self, some: slice, ce_P: np.ndarray, kl_P: np.ndarray, predicted_P: np.ndarray) -> None:
        """Fill in some positions; the loss counts where something is predicted."""
        self.ce_P[some] = np.where(predicted_P[some], ce_P, 0.0)
        self.kl_P[some] = kl_P


@dataclass(eq=False)
class Baseline:
    """Text as the model reads it at some hook points, untouched."""

    model: Model
    blocks: TokenBlocks
    reads: tuple[Hook, ...]
    writes: tuple[Hook, ...]
    x: Mapping[str, Float[Tensor, "N T W"]]
    """On the CPU, in the model's own number type where nothing is lost by it."""
    counted_NT: Bool[Tensor, "N T"]
    mean_O: Float[Tensor, " O"]
    """Of what is written, over counted positions, float64."""
    square: float
    """Σ‖y‖² over counted positions."""
    spread_P: Float[np.ndarray, " P"]
    """‖y - mean y‖²."""
    predicted_P: Bool[np.ndarray, " P"]
    documents: Documents
    cutoffs: Mapping[str, float]
    """Norms beyond which positions are sinks, by hook point."""
    batch_blocks: int = 8
    """Read in one pass, at most."""
    losses: dict[str, Losses] = field(default_factory=dict)
    """What was run before: `clean` and the ablations."""
    floor: Figure | None = None
    """See `floor.number_floor`."""

    @property
    def positions(self) -> int:
        """Counted."""
        return len(self.spread_P)

    @property
    def apart_NT(self) -> Bool[Tensor, "N T"]:
        """Positions that do not count."""
        return ~self.counted_NT

    def rows(self, hooks: Sequence[Hook], keep_NT: Bool[Tensor, "N T"] | None = None) -> Float[Tensor, "P D"]:
        """float32 rows of hook points side by side at the counted (or the given) positions."""
        keep_NT = self.counted_NT if keep_NT is None else keep_NT
        parts = [self.x[str(hook)][keep_NT].float() for hook in hooks]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def check(self, sae: SAE | Sparser) -> None:
        """Raises InterpError when the dictionary is of other hook points, or of another width."""
        if [(str(h), h.width) for h in (*sae.reads, *sae.writes)] != [
            (str(h), h.width) for h in (*self.reads, *self.writes)
        ]:
            raise InterpError(
                f"{sae.name} reads {_listed(sae.reads)} and writes {_listed(sae.writes)}, and the activations that were "
                f"read are of {_listed(self.reads)} and {_listed(self.writes)}; measure it on a baseline of its own."
            )


def read_baseline(
    model: Model,
    sae: SAE,
    blocks: TokenBlocks,
    *,
    norm_cutoff: float | Mapping[str, float],
    batch_blocks: int = 8,
    step: Step = quiet,
) -> Baseline:
    """The baseline for all dictionaries that read and write what `sae` does; runs the model once, up to the last hook point.

    `norm_cutoff` is of the first hook point that it reads, or by hook point (`Card.mask`). Raises InterpError as `read_baselines` does.
    """
    cutoffs = norm_cutoff if isinstance(norm_cutoff, Mapping) else {hooks_read(model, sae)[0]: norm_cutoff}
    return read_baselines(model, [sae], blocks, cutoffs=cutoffs, batch_blocks=batch_blocks, step=step)[0]


@torch.inference_mode()
def read_baselines(
    model: Model,
    saes: Sequence[SAE],
    blocks: TokenBlocks,
    *,
    cutoffs: Mapping[str, float],
    batch_blocks: int = 8,
    step: Step = quiet,
) -> list[Baseline]:
    """A baseline for each dictionary, over the positions that count at every hook point of `cutoffs`; those of the same hook points
    share one. Runs the model once, up to the last hook point.

    Raises InterpError when the model lacks a hook point or has another width there, when one that is written fires before
    the one that is read, when no position counts, or of a causal model none with a real token after it, and when all counted rows are the same.
    """
    for sae in saes:
        check_order(model, hooks_read(model, sae), [str(hook) for hook in sae.writes], sae.name)
        check_widths(model, sae)
    mask = Mask(cutoffs)
    names = list(dict.fromkeys(str(hook) for sae in saes for hook in (*sae.reads, *sae.writes)))
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    counted = []
    for read in _reads(model, names, blocks, batch_blocks):
        counted.append(mask.counted(read.x, read.real_BT).cpu())
        for name in names:
            kept[name].append(_compact(read.x[name].cpu(), model.dtype))
        step(read.tokens_BT.numel())
    counted_NT = torch.cat(counted)
    if not bool(counted_NT.any()):
        raise InterpError("no position of this text counts: all are separators or sinks; give more text.")
    x = {name: torch.cat(parts) for name, parts in kept.items()}
    following_NT = torch.zeros_like(counted_NT)
    following_NT[:, :-1] = (blocks.tokens_NT[:, 1:] != blocks.separator) & model.causal
    predicted_P = following_NT[counted_NT].numpy()
    if model.causal and not predicted_P.any():
        raise InterpError("no counted position of this text has a token after it to be predicted; give longer texts.")
    documents, made = Documents.number(blocks.document_NT[counted_NT].numpy()), {}
    for reads, writes in dict.fromkeys((sae.reads, sae.writes) for sae in saes):
        mean_O, square, spread_P = _spread([x[str(hook)][counted_NT] for hook in writes])
        made[reads, writes] = Baseline(
            model=model, blocks=blocks, reads=reads, writes=writes, x=x, counted_NT=counted_NT, mean_O=mean_O, square=square,
            spread_P=spread_P, predicted_P=predicted_P, documents=documents, batch_blocks=batch_blocks, cutoffs=dict(cutoffs),
        )  # fmt: skip
    return [made[sae.reads, sae.writes] for sae in saes]


def _reads(model: Model, names: Sequence[str], blocks: TokenBlocks, at_once: int) -> Iterator[Read]:
    """The activations on the blocks, in their order; of pictures, clips and items what they hold is read as it is needed."""
    for first in range(0, len(blocks.tokens_NT), at_once):
        some = range(first, min(first + at_once, len(blocks.tokens_NT)))
        tokens_NT, given_N = blocks.tokens_NT[first : some.stop], given_of(model, blocks, some)
        yield from read_blocks(model, names, tokens_NT, separator=blocks.separator, at_once=at_once, given_N=given_N)


def _compact(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In a number type of fewer bytes, unless that changes a value."""
    small = x.to(dtype)
    return small if torch.equal(small.float(), x) else x


def _spread(y: Sequence[Tensor]) -> tuple[Tensor, float, np.ndarray]:
    """(mean, Σ‖y‖², ‖y - mean‖² of each row) in float64."""
    mean_O = torch.cat([sum(part.double().sum(0) for part in rows.split(ROWS)) / len(rows) for rows in y])
    square, spread = 0.0, []
    for parts in zip(*(rows.split(ROWS) for rows in y), strict=True):
        y_BO = torch.cat([part.double() for part in parts], dim=-1)
        square += float(y_BO.square().sum())
        spread.append((y_BO - mean_O).square().sum(-1))
    spread_P = torch.cat(spread).numpy()
    if spread_P.sum() <= SAME * square:
        raise InterpError(
            "the activations at the counted positions are all the same: FVU has no meaning; give more text."
        )
    return mean_O, square, spread_P


def check_order(model: Model, read: Sequence[str], written: Sequence[str], name: str) -> None:
    """Raises InterpError when what is written cannot be made of what is read in the same pass."""
    for hook in written:
        model.check_hook(hook)
    if len(read) > 1 or list(read) == list(written):
        return
    order = model.hook_names()
    if any(hook in order and read[0] in order and order.index(hook) < order.index(read[0]) for hook in written):
        raise InterpError(
            f"{name} writes {', '.join(written)}, which the model reaches before {read[0]}, which it reads; nothing can "
            "be put in there. Name the hook points the other way round."
        )


def check_widths(model: Model, sae: SAE) -> None:
    """Raises InterpError when the model has other widths at the dictionary's hook points than the dictionary."""
    for does, hooks in (("reads", sae.reads), ("writes", sae.writes)):
        for hook in hooks:
            if (width := model.width(hook.name)) != hook.width:
                raise InterpError(
                    f"{hook} of {model.name} has width {width} and {sae.name} {does} {hook.width} there: it was made for "
                    "another model or hook point; its card or cfg.json says which."
                )


# ---- one dictionary's rows ----


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What a dictionary makes of the baseline's rows: encoded and decoded once."""

    sae: SAE | Sparser
    made_PO: Float[Tensor, "P O"]
    """ŷ at counted positions, float32, on the CPU."""
    error_P: Float[np.ndarray, " P"]
    """‖y - ŷ‖²."""
    length_P: Float[np.ndarray, " P"]
    """‖ŷ‖²."""
    along_P: Float[np.ndarray, " P"]
    """⟨y, ŷ⟩."""
    l0_P: Float[np.ndarray, " P"]
    fired_F: Float[np.ndarray, " F"]
    """Counted positions at which each feature is active."""

    def change(self) -> Change:
        """ŷ in place of y."""
        return lambda first, last: self.made_PO[first:last]


@torch.inference_mode()
def reconstruct(base: Baseline, sae: SAE | Sparser, keep_NT: Bool[Tensor, "N T"] | None = None) -> Reconstructed:
    """The reconstruction of counted rows (or those of `keep_NT`) of the baseline.

    Raises InterpError when the dictionary is not of the baseline's hook points.
    """
    base.check(sae)
    x_PD = base.rows(sae.reads, keep_NT)
    y_PO = x_PD if reads_what_it_writes(sae) else base.rows(sae.writes, keep_NT)
    made_PO = torch.empty(len(y_PO), sae.d_out)
    sums, l0, fired_F = [], [], torch.zeros(sae.d_sae, dtype=torch.float64)
    for first in range(0, len(x_PD), ROWS):
        some = slice(first, first + ROWS)
        active = sae.active(x_PD[some])
        made_PO[some] = made = sae.decode_active(active, x_PD[some]).cpu()
        y, made = y_PO[some].double(), made.double()
        sums.append(torch.stack([(y - made).square().sum(-1), made.square().sum(-1), (y * made).sum(-1)]))
        l0.append(active.offsets.diff().double().cpu())
        fired_F += torch.bincount(active.features, minlength=sae.d_sae).double().cpu()
    error, length, along = torch.cat(sums, 1).numpy() if sums else np.zeros((3, 0))
    l0_P = torch.cat(l0).numpy() if l0 else np.zeros(0)
    return Reconstructed(sae, made_PO, error, length, along, l0_P, fired_F.numpy())


def _listed(hooks: Sequence[Hook]) -> str:
    return ", ".join(f"{hook} ({hook.width})" for hook in hooks)
