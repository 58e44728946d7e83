"""The model with something else in place of what stands at a hook point: its loss and KL at every counted position.

`measure_losses` runs the model once untouched and once for each `Change`, and for each ablation that the baseline does not hold
yet: what is asked again under the same name is not run again.

Definitions
    CE           -log q(next token) in nats at a predicted position.
    KL           Σ p (log p - log q) over the vocabulary in nats at a counted position; p untouched, q changed.

Axes    N block, T position, P counted position, O d_out, W width of one hook point, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.evals.baseline import Baseline, Change, Losses, Reconstructed, Step, quiet
from interp.models import Edit, Model, Site
from interp.types import Hook

LOGITS = 110_000_000
"""Numbers in the logits of one pass: half a gigabyte in float32."""
CACHED = 400_000
"""Numbers of the logits that a processor looks at at once: eight rows of 49,152, a few megabytes with what is made of them."""


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
    step: Step = quiet,
) -> dict[str, Losses]:
    """Losses of the model untouched (`clean`), ablated (by name in ABLATIONS) and with each change in place.

    Runs the model once untouched, once for each change, and once for each ablation that the baseline does not hold yet;
    what it finds of these it leaves there. Raises InterpError for a model that reads a text in both directions.
    """
    base.model.check_causal("the loss of the next token")
    run = {name: ABLATIONS[name](base) for name in ablations if name not in base.losses} | dict(changes)
    tokens_NT, size = base.blocks.tokens_NT, base.positions
    made = {name: Losses(np.zeros(size), np.full(size, np.nan)) for name in ("clean", *run)}
    blocks = max(1, min(base.batch_blocks, LOGITS // (tokens_NT.shape[1] * base.model.embedded_tokens)))
    last = 0
    reads = _begins(base)
    for number, (tokens, counted_NT) in enumerate(
        zip(tokens_NT.split(blocks), base.counted_NT.split(blocks), strict=True)
    ):
        first, last = last, last + int(counted_NT.sum())
        some = slice(first, last)
        whole = None if reads is None else reads[number * blocks : (number + 1) * blocks]
        here = Predictions(tokens, counted_NT, _logits(base, tokens, counted_NT, whole))
        made["clean"].put(some, here.ce_P.numpy(), np.zeros(last - first), base.predicted_P)
        step(tokens.numel())
        for name, change in run.items():
            logits = _logits(base, tokens, counted_NT, whole, change(first, last))
            made[name].put(some, *here.ce_and_kl(logits), base.predicted_P)
            step(tokens.numel())
    for name in ("clean", *(name for name in ablations if name not in base.losses)):
        base.losses[name] = made[name]
    return {name: base.losses[name] for name in ("clean", *ablations)} | {name: made[name] for name in changes}


def _begins(base: Baseline) -> Float[Tensor, "N T W"] | None:
    """What passes the hook point that is written, where the passes may begin there and the layers below be left out."""
    name = str(base.writes[0])
    return base.x[name] if len(base.writes) == 1 and base.model.above.begins(name) else None


def _logits(
    base: Baseline, tokens_NT: Tensor, counted_NT: Tensor, whole_NTW: Tensor | None, rows_PO: Tensor | None = None
) -> Float[Tensor, "N T V"]:
    """The model's logits with `rows_PO` at the counted positions of what is written, or untouched; a pass begins at
    `whole_NTW`, where that is given."""
    if whole_NTW is None:
        edits = () if rows_PO is None else _edits(base.writes, counted_NT, rows_PO)
        return logits_of(base.model, tokens_NT, edits)
    x_NTW = whole_NTW.clone()
    if rows_PO is not None:
        x_NTW[counted_NT] = rows_PO.to(x_NTW)
    return base.model.above.logits(str(base.writes[0]), tokens_NT, x_NTW)


def _edits(writes: Sequence[Hook], counted_NT: Tensor, rows_PO: Tensor) -> list[Edit]:
    parts = rows_PO.split([hook.width for hook in writes], dim=-1)

    def put(rows_PW: Tensor) -> Callable[[Tensor, Site], Tensor]:
        def swap(x_NTW: Float[Tensor, "N T W"], site: Site) -> Float[Tensor, "N T W"]:
            out = x_NTW.clone()
            out[counted_NT.to(x_NTW.device)] = rows_PW.to(x_NTW)
            return out

        return swap

    return [Edit(str(hook), put(part)) for hook, part in zip(writes, parts, strict=True)]


def logits_of(model: Model, tokens_NT: Tensor, edits: Sequence[Edit] = ()) -> Float[Tensor, "N T V"]:
    """The model's logits at all positions of some blocks."""
    logits = model.run(tokens_NT, edits=edits, logits=True).logits
    assert logits is not None
    return logits


class Predictions:
    """The counted positions of some blocks, and what an untouched pass says at each.

    Changed passes are held against it a few rows of logits at a time, which stay in the processor's cache. With p untouched, d the
    change of the logits and c = Σ p d:

        KL(p‖q) = log Σ p exp(d - c)        CE of q = CE of p + c + KL - d of the next token

    so that d = 0 gives exactly 0, and both are as exact far from the untouched pass as near it.
    """

    def __init__(
        self,
        tokens_NT: Int[Tensor, "N T"],
        counted_NT: Bool[Tensor, "N T"],
        clean_NTV: Float[Tensor, "N T V"],
    ) -> None:
        device, vocabulary = clean_NTV.device, clean_NTV.shape[-1]
        self.clean_NTV = clean_NTV
        self.following_P = tokens_NT.roll(-1, dims=1)[counted_NT].to(device)
        rows = max(1, (CACHED if device.type == "cpu" else LOGITS) // vocabulary)
        self.runs = list(_runs(counted_NT, rows))
        # Written over for each few rows: to be given fresh memory takes as long as what is done in it.
        self.scratch = [torch.empty(rows, vocabulary, device=device) for _ in range(3)]
        self.ce_P = torch.empty(len(self.following_P), dtype=torch.float64)
        for some, there in self.runs:
            a_RV = self._logits(clean_NTV, there)
            self.ce_P[some] = _double(a_RV.logsumexp(-1) - self._next(a_RV, some))

    def ce_and_kl(self, logits_NTV: Float[Tensor, "N T V"]) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
        """(CE, KL from the untouched pass) of each position in nats."""
        ce_P, kl_P = torch.empty_like(self.ce_P), torch.empty_like(self.ce_P)
        for some, there in self.runs:
            ce_R, kl_R = self._changed(logits_NTV, some, there)
            # Where an exponential has no room in float32, or a token is ruled out, there is no number: such rows take the long way.
            far_R = ~ce_R.isfinite()
            if far_R.any():
                a_RV, b_RV = (self._logits(x_NTV, there).log_softmax(-1) for x_NTV in (self.clean_NTV, logits_NTV))
                ce_R = torch.where(far_R, -_double(self._next(b_RV, some)), ce_R)
                kl_R = torch.where(far_R, kl_divergence(a_RV, b_RV).cpu(), kl_R)
            ce_P[some], kl_P[some] = ce_R, kl_R
        return ce_P.numpy(), kl_P.numpy()

    def _changed(
        self, logits_NTV: Tensor, some: slice, there: slice
    ) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
        d_RV, p_RV, t_RV = (each[: there.stop - there.start] for each in self.scratch)
        t_RV.copy_(self.clean_NTV.flatten(0, 1)[there])
        d_RV.copy_(logits_NTV.flatten(0, 1)[there]).sub_(t_RV)
        torch.softmax(t_RV, -1, out=p_RV)
        next_R = _double(self._next(d_RV, some))
        near_R = torch.mul(p_RV, d_RV, out=t_RV).sum(-1)  # c but for rounding, which is as large as d is
        d_RV -= near_R[:, None]
        left_R = _double(torch.mul(p_RV, d_RV, out=t_RV).sum(-1))  # what it left, told from d - c
        log_R = _double(torch.mul(p_RV, d_RV.expm1_(), out=t_RV).sum(-1)).log1p_()
        return self.ce_P[some] + _double(near_R) + log_R - next_R, (log_R - left_R).clamp_min_(0)

    def _logits(self, logits_NTV: Tensor, there: slice) -> Float[Tensor, "R V"]:
        return logits_NTV.flatten(0, 1)[there].float()

    def _next(self, x_RV: Float[Tensor, "R V"], some: slice) -> Float[Tensor, " R"]:
        return x_RV.gather(1, self.following_P[some, None]).squeeze(1)


def _runs(counted_NT: Bool[Tensor, "N T"], rows: int) -> Iterator[tuple[slice, slice]]:
    """(which of the counted positions, where they stand among all) of at most so many that stand together."""
    at_P = counted_NT.flatten().nonzero().squeeze(1)
    ends = torch.cat([(at_P.diff() != 1).nonzero().squeeze(1) + 1, torch.tensor([len(at_P)], device=at_P.device)])
    first = 0
    for end in ends.tolist():
        for begin in range(first, end, rows):
            size, where = min(rows, end - begin), int(at_P[begin])
            yield slice(begin, begin + size), slice(where, where + size)
        first = end


def _double(x_R: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    return x_R.cpu().double()  # not every device has it


def _sum(x_RV: Float[Tensor, "R V"]) -> Float[Tensor, " R"]:
    return x_RV.cpu().double().sum(-1) if x_RV.device.type == "mps" else x_RV.sum(-1, dtype=torch.float64).cpu()


def kl_divergence(log_p_PV: Float[Tensor, "P V"], log_q_PV: Float[Tensor, "P V"]) -> Float[Tensor, " P"]:
    """KL(p‖q) of each row in nats, of log-probabilities; 0 where they are the same.

    The sum is taken of p (log p - log q) + q - p, from which the rounding of the sums of p and q drops out.
    """
    p_PV = log_p_PV.exp()
    # A token that the untouched model rules out (-inf) adds q - p alone.
    along_PV = torch.where(p_PV > 0, p_PV * (log_p_PV - log_q_PV), 0.0)
    return _sum(along_PV.add_(log_q_PV.exp()).sub_(p_PV))
