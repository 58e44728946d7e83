"""What does not depend on the SAE, read once: activations at the hook points, which positions count, and the model's loss.

Several SAEs of the same hook points (trained ones, nulls, other people's) are measured on one `Baseline`, which holds what
is common to them; an SAE's rows are encoded once (`reconstruct`), for all measures.

1. `read_baseline` runs the model up to the last hook point and keeps what passes there.
2. `reconstruct` encodes and decodes the rows of one SAE.
3. `measure_losses` runs the model once untouched and once for each `Change` that is put in its place, and gives loss and KL of
   every counted position. What is asked again under the same name is not run again.

Definitions
    counted      a document's own token whose norm is under the cut-off (`mask`). The others are left as they are in every
                 pass, ablations included.
    predicted    counted, and a token of the document follows.
    CE           -log q(next token) in nats at a predicted position.
    KL           Σ p (log p - log q) over the vocabulary in nats at a counted position; p untouched, q changed. The sum is taken
                 of p (log p - log q) + q - p, which is the same where p and q each sum to 1, and from which the rounding
                 of their sums drops out.

Axes    N block, T position, P counted position, D d_in, O d_out, W width of one hook point, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.codes import hooks_read, read_blocks
from interp.corpus import TokenBlocks
from interp.evals.documents import Documents
from interp.evals.figure import Figure
from interp.mask import Mask
from interp.models import Edit, Model, Site
from interp.sae import SAE
from interp.sae.dictionary import reads_what_it_writes
from interp.types import Hook, InterpError

ROWS = 4096
"""Encoded at a time."""
LOGITS = 110_000_000
"""Numbers in the logits of one pass: half a gigabyte in float32."""
SAME = 1e-9
"""Share of the squared norm under which the spread about the mean is rounding: all rows are the same."""

Change = Callable[[int, int], Float[Tensor, "P O"]]
"""What stands at the counted positions FIRST to LAST (of all P), instead of what the model has there."""
Step = Callable[[int], None]


def _quiet(tokens: int) -> None:
    """Nobody is told how many tokens were read."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Of one pass, by counted position."""

    ce_P: Float[np.ndarray, " P"]
    """Nats; 0 where nothing is predicted."""
    kl_P: Float[np.ndarray, " P"]
    """Nats, from the untouched pass; nan where KL was not asked for."""


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

    def check(self, sae: SAE) -> None:
        """Raises InterpError when the dictionary is of other hook points, or of another width."""
        if [(str(h), h.width) for h in (*sae.reads, *sae.writes)] != [
            (str(h), h.width) for h in (*self.reads, *self.writes)
        ]:
            raise InterpError(
                f"{sae.name} reads {_listed(sae.reads)} and writes {_listed(sae.writes)}, and the activations that were "
                f"read are of {_listed(self.reads)} and {_listed(self.writes)}; measure it on a baseline of its own."
            )


@torch.inference_mode()
def read_baseline(
    model: Model,
    sae: SAE,
    blocks: TokenBlocks,
    *,
    norm_cutoff: float | Mapping[str, float],
    batch_blocks: int = 8,
    step: Step = _quiet,
) -> Baseline:
    """The baseline for all dictionaries that read and write what `sae` does; runs the model once, up to the last hook point.

    `norm_cutoff` is of the first hook point that it reads, or by hook point (`Card.mask`). Raises InterpError when the
    model lacks a hook point or has another width there, when one that is written fires before the one that is read, when
    no position counts, or none with a real token after it, and when all counted rows are the same.
    """
    hooks = hooks_read(model, sae)
    check_order(model, hooks, [str(hook) for hook in sae.writes], sae.name)
    check_widths(model, sae)
    cutoffs = norm_cutoff if isinstance(norm_cutoff, Mapping) else {hooks[0]: norm_cutoff}
    mask, names = Mask(cutoffs), list(dict.fromkeys(str(hook) for hook in (*sae.reads, *sae.writes)))
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    counted = []
    for read in read_blocks(model, names, blocks.tokens_NT, separator=blocks.separator, at_once=batch_blocks):
        counted.append(mask.counted(read.x, read.real_BT).cpu())
        for name in names:
            kept[name].append(_compact(read.x[name].cpu(), model.dtype))
        step(read.tokens_BT.numel())
    counted_NT = torch.cat(counted)
    if not bool(counted_NT.any()):
        raise InterpError("no position of this text counts: all are separators or sinks; give more text.")
    x = {name: torch.cat(parts) for name, parts in kept.items()}
    following_NT = torch.zeros_like(counted_NT)
    following_NT[:, :-1] = blocks.tokens_NT[:, 1:] != blocks.separator
    predicted_P = following_NT[counted_NT].numpy()
    if not predicted_P.any():
        raise InterpError("no counted position of this text has a token after it to be predicted; give longer texts.")
    mean_O, square, spread_P = _spread([x[str(hook)][counted_NT] for hook in sae.writes])
    return Baseline(
        model=model, blocks=blocks, reads=sae.reads, writes=sae.writes, x=x, counted_NT=counted_NT, mean_O=mean_O,
        square=square, spread_P=spread_P, predicted_P=predicted_P,
        documents=Documents.number(blocks.document_NT[counted_NT].numpy()), batch_blocks=batch_blocks, cutoffs=dict(cutoffs),
    )  # fmt: skip


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

    sae: SAE
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
def reconstruct(base: Baseline, sae: SAE, keep_NT: Bool[Tensor, "N T"] | None = None) -> Reconstructed:
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


# ---- the model with something else in place ----


def zero(base: Baseline) -> Change:
    """Zero ablation."""
    return lambda first, last: torch.zeros(last - first, len(base.mean_O))


def mean(base: Baseline) -> Change:
    """Mean ablation."""
    mean_O = base.mean_O.float()
    return lambda first, last: mean_O.expand(last - first, -1)


def random_error(base: Baseline, made: Reconstructed, seed: int = 0) -> Change:
    """y + u, u of a random direction, at each hook point and position as long as the dictionary's error.

    The directions depend on the seed and the position alone, so that two dictionaries are compared along the same ones.
    """
    y_PO, widths = base.rows(base.writes), [hook.width for hook in base.writes]

    def change(first: int, last: int) -> Tensor:
        draw = torch.Generator().manual_seed((seed << 32) + first)
        y = y_PO[first:last]
        u = torch.randn(y.shape, generator=draw)
        parts = zip(u.split(widths, 1), (y - made.made_PO[first:last]).split(widths, 1), strict=True)
        return y + torch.cat([a * (e.norm(dim=1) / a.norm(dim=1))[:, None] for a, e in parts], dim=1)

    return change


ABLATIONS: Mapping[str, Callable[[Baseline], Change]] = {"zero": zero, "mean": mean}


def passes(base: Baseline, names: Sequence[str]) -> int:
    """How many times `measure_losses` will run the model for ablations of these names and the untouched pass."""
    return 1 + sum(name not in base.losses for name in names)


@torch.inference_mode()
def measure_losses(
    base: Baseline,
    changes: Mapping[str, Change],
    ablations: Sequence[str] = tuple(ABLATIONS),
    *,
    kl: bool = True,
    step: Step = _quiet,
) -> dict[str, Losses]:
    """Losses of the model untouched (`clean`), ablated (by name in ABLATIONS) and with each change in place.

    Runs the model once untouched, once for each change, and once for each ablation that the baseline does not hold yet;
    what it finds of these it leaves there.
    """
    run = {name: ABLATIONS[name](base) for name in ablations if name not in base.losses} | dict(changes)
    tokens_NT, size = base.blocks.tokens_NT, base.positions
    made = {name: Losses(np.zeros(size), np.full(size, np.nan)) for name in ("clean", *run)}
    blocks = max(1, min(base.batch_blocks, LOGITS // (tokens_NT.shape[1] * base.model.embedded_tokens)))
    last = 0
    for tokens, counted_NT in zip(tokens_NT.split(blocks), base.counted_NT.split(blocks), strict=True):
        first, last = last, last + int(counted_NT.sum())
        log_p = log_probabilities(base.model, tokens, counted_NT)
        made["clean"].kl_P[first:last] = 0
        _add(made["clean"], first, log_p, None, tokens, counted_NT, base)
        step(tokens.numel())
        for name, change in run.items():
            edits = _edits(base.writes, counted_NT, change(first, last))
            log_q = log_probabilities(base.model, tokens, counted_NT, edits)
            _add(made[name], first, log_q, log_p if kl else None, tokens, counted_NT, base)
            step(tokens.numel())
    for name in ("clean", *(name for name in ablations if name not in base.losses)):
        base.losses[name] = made[name]
    return {name: base.losses[name] for name in ("clean", *ablations)} | {name: made[name] for name in changes}


def _edits(writes: Sequence[Hook], counted_NT: Tensor, rows_PO: Tensor) -> list[Edit]:
    parts = rows_PO.split([hook.width for hook in writes], dim=-1)

    def put(rows_PW: Tensor) -> Callable[[Tensor, Site], Tensor]:
        def swap(x_NTW: Float[Tensor, "N T W"], site: Site) -> Float[Tensor, "N T W"]:
            out = x_NTW.clone()
            out[counted_NT.to(x_NTW.device)] = rows_PW.to(x_NTW)
            return out

        return swap

    return [Edit(str(hook), put(part)) for hook, part in zip(writes, parts, strict=True)]


def log_probabilities(model: Model, tokens_NT: Tensor, counted_NT: Tensor, edits: Sequence[Edit] = ()) -> list[Tensor]:
    """float32 log-probabilities at the counted positions of each block."""
    logits = model.run(tokens_NT, edits=edits, logits=True).logits
    assert logits is not None
    keep_NT = counted_NT.to(logits.device)
    return [torch.log_softmax(row[keep].float(), dim=-1) for row, keep in zip(logits, keep_NT, strict=True)]


def _add(
    losses: Losses,
    first: int,
    log_q: list[Tensor],
    log_p: list[Tensor] | None,
    tokens_NT: Tensor,
    counted_NT: Tensor,
    base: Baseline,
) -> None:
    """Put in the loss and, beside `log_p`, the KL of each counted position of some blocks."""
    for n, log_q_PV in enumerate(log_q):
        some = slice(first, first + len(log_q_PV))
        following_T = tokens_NT[n].roll(-1)[counted_NT[n]].to(log_q_PV.device)
        ce_P = -log_q_PV.gather(1, following_T[:, None]).squeeze(1).double().cpu().numpy()
        losses.ce_P[some] = np.where(base.predicted_P[some], ce_P, 0.0)
        if log_p is not None:
            losses.kl_P[some] = kl_divergence(log_p[n], log_q_PV).cpu().numpy()
        first += len(log_q_PV)


def kl_divergence(log_p_PV: Float[Tensor, "P V"], log_q_PV: Float[Tensor, "P V"]) -> Float[Tensor, " P"]:
    """KL(p‖q) of each row in nats, of log-probabilities; 0 where they are the same."""
    p_PV = log_p_PV.exp()
    # A token that the untouched model rules out (-inf) adds q - p alone.
    along_PV = torch.where(p_PV > 0, p_PV * (log_p_PV - log_q_PV), 0.0)
    terms_PV = along_PV.add_(log_q_PV.exp()).sub_(p_PV)
    return terms_PV.cpu().double().sum(-1) if terms_PV.device.type == "mps" else terms_PV.sum(-1, dtype=torch.float64)


def _listed(hooks: Sequence[Hook]) -> str:
    return ", ".join(f"{hook} ({hook.width})" for hook in hooks)
