"""The model with something else in place of what stands at a hook point: its loss and KL at every counted position.

`measure_losses` runs the model once untouched and once for each `Change`, and for each ablation that the baseline does not hold
yet: what is asked again under the same name is not run again.

Definitions
    CE           -log q(next token) in nats at a predicted position.
    KL           Σ p (log p - log q) over the vocabulary in nats at a counted position; p untouched, q changed. The sum is taken
                 of p (log p - log q) + q - p, which is the same where p and q each sum to 1, and from which the rounding
                 of their sums drops out.

Axes    N block, T position, P counted position, O d_out, W width of one hook point, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.evals.baseline import Baseline, Change, Losses, Reconstructed, Step, quiet
from interp.models import Edit, Model, Site
from interp.types import Hook

LOGITS = 110_000_000
"""Numbers in the logits of one pass: half a gigabyte in float32."""


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
