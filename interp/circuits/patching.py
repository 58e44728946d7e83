"""Which places matter for a metric: activations of one text put into the run of another, or the gradient's guess of that.

1.  *Activation patching.* The base runs; at one place (a hook point, at a position or a head) its activation is replaced by
    the source's, and the metric is taken again. All places cost a run each, several in one batch.
2.  *Attribution patching.* To first order the change is (source - base) · gradient, and one run forward and back gives the
    gradient at every place. It is exact where the metric is linear in the place.
3.  *Integrated gradients.* The gradient is averaged at `steps` points on the way from base to source. Along the inputs (the
    embedding moves, and every place has the gradient that it has then) all places share the runs; along the activations
    (each hook point moves by itself) the places of a hook point sum to the change of patching all of it, as steps grow.

Axes    B prompt, T position, D width at a hook point, R row (hook point), C column (position or head), V vocabulary.
Source  Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (patching); Nanda 2023, "Attribution Patching";
        Sundararajan et al. 2017 (integrated gradients); Hanna et al. 2024, "Have Faith in Faithfulness" (along the inputs).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.metric import Metric, check_pair
from interp.circuits.points import EMBED, attention_heads, check_fires, put_in, replace_all
from interp.models import Edit, Model
from interp.render.grid import grid_html
from interp.statistics import bootstrap_means
from interp.types import InterpError

ROWS = 64
"""Rows that run together: as many patches of all prompts as fit."""
By = Literal["position", "head", "all"]
"""What the columns are: positions; heads, each at all positions that are patched; or one, everything that is patched."""
Along = Literal["inputs", "activations"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchEffects:
    """What a metric becomes when the source's activations stand at one place."""

    says: str
    rows: tuple[str, ...]
    """Hook points, or what else was patched."""
    columns: tuple[str, ...]
    """Positions or heads, or what else was patched into."""
    effect_RCB: Float[np.ndarray, "R C B"]
    """The metric with the patch less the metric without, by prompt; an estimate where the gradient gave it."""
    base_B: Float[np.ndarray, " B"]
    """The metric of the base alone."""
    source_B: Float[np.ndarray, " B"]

    @property
    def effect_RC(self) -> Float[np.ndarray, "R C"]:
        """The mean over prompts."""
        return self.effect_RCB.mean(2)

    @property
    def share_RC(self) -> Float[np.ndarray, "R C"]:
        """The mean effect as a share of the mean difference between source and base: 1 makes the one the other."""
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # of texts that the metric does not tell apart there is no share
            return self.effect_RC / (self.source_B - self.base_B).mean()

    def table(self) -> list[dict[str, object]]:
        """A row a place, with the mean effect, its 95 % interval over prompts (nan of a single one), and the share."""
        rows, columns, prompts = self.effect_RCB.shape
        low, high = bootstrap_means(self.effect_RCB.reshape(rows * columns, prompts).astype(np.float64))
        effect, share = self.effect_RC.reshape(-1), self.share_RC.reshape(-1)
        return [
            {"row": row, "column": column, "effect": float(effect[at]), "low": float(low[at]), "high": float(high[at])}
            | {"share": float(share[at])}
            for at, (row, column) in enumerate((row, column) for row in self.rows for column in self.columns)
        ]

    def _repr_html_(self) -> str:
        base, source = float(self.base_B.mean()), float(self.source_B.mean())
        title = f"{self.says}; {len(self.base_B)} prompts, metric of the base {base:.3g}, of the source {source:.3g}"
        return grid_html(self.rows, self.columns, self.effect_RC.tolist(), title)


def patch_activations(
    model: Model,
    base_BT: Int[Tensor, "B T"],
    source_BT: Int[Tensor, "Q S"],
    metric: Metric,
    hook_names: Sequence[str],
    *,
    by: By = "position",
    positions: Sequence[int] | None = None,
) -> PatchEffects:
    """The effect of putting the source's activations into the base, at each hook point and column.

    `positions` are those that are patched, all without; with `by="position"` one at a time. Heads are slices of
    `attn.hook_z`. What only one reader has before it is patched for that reader alone: `hook_resid_mid` is what the MLP's norm
    reads, beside the stream. Raises InterpError for texts of two lengths, hook points or positions that do not exist, and heads at
    another hook point.
    """
    check_pair(model, base_BT, source_BT)
    columns, where_CTH = choose_columns(model, base_BT, hook_names, by, positions)
    base_B, _ = measure(model, base_BT, metric)
    source_B, source = measure(model, source_BT, metric, hook_names)
    effects = []
    for name in hook_names:
        each = _patched(model, base_BT, metric, name, source[name], where_CTH)
        effects.append(torch.stack([value_B - base_B for value_B in each]))
    return PatchEffects(
        says=f"activation patching by {by}",
        rows=tuple(hook_names),
        columns=columns,
        effect_RCB=torch.stack(effects).numpy(),
        base_B=base_B.numpy(),
        source_B=source_B.numpy(),
    )


def _patched(
    model: Model,
    base_BT: Tensor,
    metric: Metric,
    hook_name: str,
    source_BTD: Tensor,
    where_CTH: Bool[Tensor, "C T H"],
) -> Iterator[Tensor]:
    """The metric of each column's patch."""
    prompts = len(base_BT)
    for some_CTH in where_CTH.split(max(ROWS // prompts, 1)):
        many = len(some_CTH)
        where_NTH = some_CTH.repeat_interleave(prompts, 0)
        source = source_BTD.repeat(many, *[1] * (source_BTD.ndim - 1))
        edit = put_in(hook_name, source, where_NTH.to(source.device))
        run = model.run(base_BT.repeat(many, 1), edits=[edit], logits=True, last=1)
        assert run.logits is not None
        for logits_BV in run.logits[:, -1].split(prompts):
            yield metric(logits_BV).double().cpu()


def attribute_patches(
    model: Model,
    base_BT: Int[Tensor, "B T"],
    source_BT: Int[Tensor, "Q S"],
    metric: Metric,
    hook_names: Sequence[str],
    *,
    by: By = "position",
    positions: Sequence[int] | None = None,
    steps: int = 0,
    along: Along = "inputs",
) -> PatchEffects:
    """What `patch_activations` would give, to first order: from the base's own gradient, or with `steps` from the mean of
    gradients at so many points on the way to the source (midpoints of equal parts).

    `along="activations"` takes `steps` runs to each hook point, all else `steps` altogether (one with 0). Raises InterpError
    as `patch_activations`, for fewer than 0 steps, and for a hook point from which nothing reaches the metric.
    """
    check_pair(model, base_BT, source_BT)
    if steps < 0 or along not in ("inputs", "activations"):
        raise InterpError(f"{steps} steps along {along}: give 0 or more steps, along inputs or activations.")
    columns, where_CTH = choose_columns(model, base_BT, hook_names, by, positions)
    moving = list(hook_names) if along == "activations" else [EMBED]
    if steps:
        for name in moving:
            check_fires(model, name)
    kept = [*hook_names, *(name for name in moving if steps and name not in hook_names)]
    base_B, base = measure(model, base_BT, metric, kept)
    source_B, source = measure(model, source_BT, metric, kept)
    if not steps:
        gradient = _gradients(model, base_BT, metric, hook_names)
    else:
        gradient = {}
        for name in moving:
            reads = [name] if along == "activations" else hook_names
            way = base[name], source[name] - base[name]
            gradient |= _mean_gradients(model, base_BT, metric, reads, name, way, steps)
    effects = [
        _by_column((source[name] - base[name]).double() * gradient[name].double(), where_CTH) for name in hook_names
    ]
    return PatchEffects(
        says=f"attribution patching by {by}" + (f", {steps} steps along {along}" if steps else ""),
        rows=tuple(hook_names),
        columns=columns,
        effect_RCB=torch.stack(effects).cpu().numpy(),
        base_B=base_B.numpy(),
        source_B=source_B.numpy(),
    )


def _by_column(product_BTD: Tensor, where_CTH: Bool[Tensor, "C T H"]) -> Float[Tensor, "C B"]:
    by_head_BTH = product_BTD.reshape(*product_BTD.shape[:2], where_CTH.shape[2], -1).sum(3)
    return torch.einsum("bth,cth->cb", by_head_BTH, where_CTH.to(by_head_BTH))


def _gradients(
    model: Model, base_BT: Tensor, metric: Metric, hook_names: Sequence[str], edits: Sequence[Edit] = ()
) -> dict[str, Tensor]:
    """Of each prompt's metric by what passes the hook points; prompts do not see each other, so their sum will do."""
    run = model.run(base_BT, hook_names, edits, grad=True, logits=True, last=1)
    assert run.logits is not None
    with torch.inference_mode(False), torch.enable_grad():
        total = metric(run.logits[:, -1]).sum()
        found = torch.autograd.grad(total, [run.activations[name] for name in hook_names], allow_unused=True)
    for name, gradient in zip(hook_names, found, strict=True):
        if gradient is None:
            raise InterpError(f"nothing passes from {name} of {model.name} to the metric; choose another hook point.")
    return {name: gradient for name, gradient in zip(hook_names, found, strict=True) if gradient is not None}


def _mean_gradients(
    model: Model,
    base_BT: Tensor,
    metric: Metric,
    hook_names: Sequence[str],
    moving: str,
    way: tuple[Tensor, Tensor],
    steps: int,
) -> dict[str, Tensor]:
    """The gradients' mean over points between the base's activation at `moving` and the source's: `way` is (from, by)."""
    sums: dict[str, Tensor] = {}
    with torch.inference_mode(False):
        start, by = (x.clone() for x in way)  # what was made in inference mode can be no part of a graph
        for step in range(steps):
            at = start + (step + 0.5) / steps * by
            found = _gradients(model, base_BT, metric, hook_names, [replace_all(moving, at)])
            sums = {name: sums.get(name, 0.0) + gradient / steps for name, gradient in found.items()}
    return sums


def measure(
    model: Model, tokens_BT: Tensor, metric: Metric, read: Sequence[str] = (), edits: Sequence[Edit] = ()
) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
    """(the metric of each prompt in float64 on the CPU, what passed the hook points)."""
    run = model.run(tokens_BT, read, edits, logits=True, last=1)
    assert run.logits is not None
    return metric(run.logits[:, -1]).double().cpu(), dict(run.activations.items())


def choose_columns(
    model: Model, base_BT: Tensor, hook_names: Sequence[str], by: By, positions: Sequence[int] | None
) -> tuple[tuple[str, ...], Bool[Tensor, "C T H"]]:
    """(names of the columns, where each patches: position by head, with one head where they are not told apart).

    Raises InterpError for what does not exist.
    """
    if not hook_names or len(set(hook_names)) < len(hook_names):
        raise InterpError("name at least one hook point, each once.")
    for name in hook_names:
        check_fires(model, name)
    length = base_BT.shape[1]
    chosen = list(range(length)) if positions is None else [int(p) + (length if p < 0 else 0) for p in positions]
    if not chosen or not all(0 <= p < length for p in chosen):
        raise InterpError(
            f"positions {list(positions or ())}: the prompts have positions 0 to {length - 1}; name some."
        )
    where_T = torch.zeros(length, dtype=torch.bool)
    where_T[chosen] = True
    if by == "all":
        return ("all",), where_T[None, :, None]
    if by == "position":
        tokens = [model.decode([int(base_BT[0, p])]) for p in chosen] if len(base_BT) == 1 else [""] * len(chosen)
        names = tuple(f"{p} {token}".rstrip(" ") for p, token in zip(chosen, tokens, strict=True))
        return names, torch.eye(length, dtype=torch.bool)[chosen][..., None]
    if by != "head":
        raise InterpError(f"patching by {by} is not known; by position, head or all.")
    heads = attention_heads(model).count
    for name in hook_names:
        if not name.endswith(("attn.hook_z", "attn.o.hook_in")):
            raise InterpError(f"{name} is not divided by heads; name blocks.N.attn.hook_z, or patch by position.")
    eye_HH = torch.eye(heads, dtype=torch.bool)
    return tuple(f"head {head}" for head in range(heads)), where_T[None, :, None] & eye_HH[:, None]
