"""When numbers do not come out as stored: which one change would make them come out?

Each suspect is a way in which shared checkpoints go wrong. It is judged by the share of stored (position, feature,
value) rows that it brings back, or, where nothing is stored, by the variance that the SAE then explains.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.mask import Mask, own_tokens
from interp.models import Model
from interp.sae import SAE
from interp.sae.metrics import Reconstruction
from interp.verification.measure import activations, agreement, linear, offset

MATCH = 0.8
"""Share of the stored rows that a cause has to bring back."""
BLOCKS = 2
"""How many blocks are tried: suspects are many, and one that is right is right on every block."""
ROWS = 96
"""Positions on which each hook point of the model is tried for a better fit."""
POOR = 0.5
"""Variance left unexplained above which another place or scale is looked for."""
SITES = (
    "hook_resid_post",
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_mlp_out",
    "hook_attn_out",
    "hook_mlp_in",
    "hook_in",
)
"""Where SAEs are made; of several names of one tensor the first is said."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What there is to try suspects on."""

    model: Model
    sae: SAE
    hook_name: str
    tokens_NT: Tensor
    separator: int
    mask: Mask
    """Of the SAE, by its own hook point; the same cut-off is tried at others."""

    def at(self, hook_name: str) -> Tensor:
        """Activations at a hook point, float32 on the CPU."""
        return activations(self.model, [hook_name], self.tokens_NT)[hook_name]

    def counted(self, x_NTD: Tensor) -> Tensor:
        """Where numbers are taken of activations, of whichever hook point."""
        return self.mask.counted(dict.fromkeys(self.mask.cutoffs, x_NTD), own_tokens(self.tokens_NT, self.separator))


def diagnose(trial: Trial, rows: list[Any]) -> str:
    """The sentence that names the cause, from stored rows whose positions count through the trial's blocks."""
    size = int(trial.tokens_NT.shape[1])
    inside = sorted({row[0] // size for row in rows})[:BLOCKS]
    if trial.model.media is not None:  # noise is drawn for all of them at once
        inside = list(range(len(trial.tokens_NT)))
    place = {block: i for i, block in enumerate(inside)}
    near = [(place[p // size] * size + p % size, f, v) for p, f, v in rows if p // size in place and v > 0]
    if not near:
        return ""
    cut = Trial(**{**vars(trial), "tokens_NT": trial.tokens_NT[inside]})
    here = agreement(cut.sae, cut.at(cut.hook_name), near)
    if here >= MATCH:
        return "which features pass, not how strongly: another threshold, k or activation function than when stored"
    causes = [(share, cause) for share, cause in _suspects(cut, near) if share >= MATCH and share > here]
    return (
        max(causes, key=lambda pair: pair[0])[1]
        if causes
        else "none of the usual causes: other SAE or model weights, or other text"
    )


def _suspects(trial: Trial, rows: list[Any]) -> Iterator[tuple[float, str]]:
    """(share of the rows brought back, what then differs) for each thing that goes wrong."""
    x_NTD = trial.at(trial.hook_name)
    factor = _fitted_scale(trial.sae, x_NTD, rows)
    yield (
        agreement(trial.sae, x_NTD, rows, scale=factor),
        f"scale not folded: the stored numbers come out when the activations are multiplied by {factor:.4g} "
        f"(√d over their mean norm is {trial.sae.d_in**0.5 / float(x_NTD.norm(dim=-1).median()):.4g})",
    )
    for about, tokens_NT, shift in _prefixes(trial):
        moved = activations(trial.model, [trial.hook_name], tokens_NT)[trial.hook_name]
        moved = torch.nn.functional.pad(moved[:, max(shift, 0) :], (0, 0, max(-shift, 0), 0))[
            :, : trial.tokens_NT.shape[1]
        ]
        moved = torch.nn.functional.pad(moved, (0, 0, 0, trial.tokens_NT.shape[1] - moved.shape[1]))
        yield agreement(trial.sae, moved, rows), f"another BOS or separator: the stored numbers come out {about}"
    others = [hook for hook in candidates(trial) if hook != trial.hook_name]
    for hook, x in activations(trial.model, others, trial.tokens_NT).items():
        yield agreement(trial.sae, x, rows), f"another hook point: the stored numbers are those of {hook}"


def _fitted_scale(sae: SAE, x_NTD: Tensor, rows: list[Any]) -> float:
    """The s for which s x·w + c comes nearest to the stored values (least squares)."""
    position, feature, value = (torch.tensor(column) for column in zip(*rows, strict=True))
    dots = linear(sae, x_NTD.reshape(-1, x_NTD.shape[-1])[position], feature).double()
    return float((dots * (value.double() - offset(sae, feature))).sum() / dots.square().sum().clamp_min(1e-12))


def _prefixes(trial: Trial) -> Iterator[tuple[str, Tensor, int]]:
    """Other ways to begin a block: (what it is, tokens, by how much positions move to the right)."""
    tokens = trial.tokens_NT
    if trial.model.media is not None:  # nothing is put in front
        return
    yield "without the separator in front", tokens[:, 1:], -1
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(trial.model.tokenizer, name, None)
        if token is not None and token != trial.separator:
            front = torch.full_like(tokens[:, :1], token)
            about = f"with the tokenizer's {name[:3]} ({token})"
            yield f"{about} in place of the separator", torch.cat([front, tokens[:, 1:]], 1), 0
            if tokens.shape[1] < trial.model.n_ctx:
                yield f"{about} before the separator", torch.cat([front, tokens], 1), 1
    if trial.model.separator != trial.separator:
        swapped = torch.where(tokens == trial.separator, trial.model.separator, tokens)
        yield f"with the model's separator {trial.model.separator} for {trial.separator}", swapped, 0


def candidates(trial: Trial) -> list[str]:
    """Hook points at which SAEs are made, of the SAE's width; what enters a submodule, which may run twice, only in a block."""
    ends = {name: name.rpartition(".")[2] for name, shape in trial.model.shapes().items() if shape == (trial.sae.d_in,)}
    here = [name for name in ends if ends[name] in SITES and (ends[name] != "hook_in" or "blocks." in name)]
    return sorted(here, key=lambda name: SITES.index(ends[name]))


# ---- where nothing is stored: what the SAE explains ----


@torch.inference_mode()
def explained(trial: Trial, x_NTD: Tensor, scale: float = 1.0, rows: int = 0) -> tuple[float, float]:
    """(FVU, L0) at counted positions, or about `rows` of them, inputs multiplied by `scale`; NaN where none counts."""
    x_PD = x_NTD[trial.counted(x_NTD)]
    if not len(x_PD):
        return float("nan"), float("nan")
    x_PD = x_PD[:: max(len(x_PD) // rows, 1)] if rows else x_PD
    sums = Reconstruction(trial.sae.d_sae)
    sums.add((x_PD * scale).to(trial.sae.b_dec.device), trial.sae)
    return sums.fvu, sums.l0


def diagnose_fit(trial: Trial, fvu: float) -> str:
    """The sentence for an SAE that explains much more elsewhere than where its file says; empty when it does not.

    Only where it explains little (POOR): features of tokens, say, explain the embeddings better than any layer.
    """
    cut = Trial(**{**vars(trial), "tokens_NT": trial.tokens_NT[:BLOCKS]})
    x_NTD = cut.at(cut.hook_name)
    here = cut.counted(x_NTD)
    if not bool(here.any()) or not fvu > POOR:
        return ""
    norm = float(x_NTD[here].norm(dim=-1).mean())
    root = cut.sae.d_in**0.5
    tries: list[tuple[float, str]] = []
    for scale, why in ((root / norm, "to norm √d"), (1 / norm, "to norm 1"), (norm / root, "back from norm √d")):
        made = explained(cut, x_NTD, scale, ROWS)[0]
        tries.append((made, f"scale not folded: with activations scaled {why} (times {scale:.4g}) FVU is {made:.3f}"))
    others = [hook for hook in candidates(cut) if hook != cut.hook_name]
    for hook, x in activations(cut.model, others, cut.tokens_NT).items():
        made = explained(cut, x, rows=ROWS)[0]
        if not made >= 0:
            continue
        tries.append((made, f"another hook point: at {hook} FVU is {made:.3f}"))
    best, cause = min(tries, key=lambda pair: pair[0])
    return cause if best < fvu / 2 and best < 0.7 else ""
