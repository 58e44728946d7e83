"""What each part of a model adds to a logit, or to a logit difference, by the direct way: the parts sum to it.

1.  The final residual is a sum: the embedding and what every layer added, its attention (by head, and a bias) and its MLP.
2.  The final norm and the unembedding are linear once the norm's scale is held at what it was, so each addend has its share of
    the logit. The scale of a prompt is the one that fits all its logits; what is left at a residual of 0 (biases of the norm
    and of the unembedding) is a part of its own.
3.  That addends give the sum, and that the logits are fitted, is checked on the run itself; a family in which either is not so
    (norms after a layer's outputs, multipliers) is refused in a sentence. Where a family bends its logits afterwards (caps
    them), its parts are those of the unembedding's output.

Axes    B prompt, P part, H head, d width of a head, O width of the residual stream, V vocabulary.
Source  Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Wang et al. 2022 (by head).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.metric import LogitDifference, logit_difference
from interp.circuits.points import (
    ATTENTION,
    MLP,
    RESIDUAL,
    Z,
    attention_heads,
    count_layers,
    each_layer,
    output_matrix,
)
from interp.models import Edit, Model
from interp.render.grid import grid_html
from interp.statistics import bootstrap_means
from interp.types import InterpError

CLOSE = 1e-3
"""Relative difference within which addends are taken for the sum, and a scale for the norm's."""
UNEMBED = "unembed.hook_out"
EMBEDDED, BIASES = "embed", "biases of the end"
ROWS = 32
"""Prompts that run together."""
By = Literal["layer", "component", "head"]


@dataclass(frozen=True, eq=False, kw_only=True)
class DirectAttribution:
    """A logit difference (or a logit) as a sum over parts."""

    parts: tuple[str, ...]
    """`embed`, `layer 3`; or `attn 3`, `mlp 3`; or `3.1` (layer, head), `attn bias 3`; last the biases of norm and unembedding."""
    value_PB: Float[np.ndarray, "P B"]
    """In logits."""
    logit_B: Float[np.ndarray, " B"]
    """What the model gave, and the parts sum to."""
    before_cap: bool
    """Whether it is of the unembedding's output, which the family bends before it gives it."""

    @property
    def value_P(self) -> Float[np.ndarray, " P"]:
        """The mean over prompts."""
        return self.value_PB.mean(1)

    def heads_LH(self) -> Float[np.ndarray, "L H"]:
        """The mean of each head, by layer; InterpError when it was not asked by head."""
        cells = {tuple(map(int, p.split("."))): at for at, p in enumerate(self.parts) if p[0].isdigit()}
        if not cells:
            raise InterpError('heads were not told apart; ask with by="head".')
        layers, heads = (max(cell[side] for cell in cells) + 1 for side in (0, 1))
        return np.array([[self.value_P[cells[n, head]] for head in range(heads)] for n in range(layers)])

    def table(self) -> list[dict[str, object]]:
        """A row a part, the largest first: mean, its 95 % interval over prompts (nan of a single one), share of the whole."""
        low_P, high_P = bootstrap_means(self.value_PB)
        whole = float(self.logit_B.mean())
        return [
            {"part": self.parts[p], "logits": float(self.value_P[p]), "low": float(low_P[p]), "high": float(high_P[p])}
            | {"share": float(self.value_P[p]) / whole if whole else float("nan")}
            for p in np.argsort(-np.abs(self.value_P), kind="stable")
        ]

    def _repr_html_(self) -> str:
        title = f"{self.logit_B.mean():.3g} logits, by part; {len(self.logit_B)} prompts"
        rows = [(str(row["part"]), float(str(row["logits"]))) for row in self.table()[:40]]
        return grid_html(
            [part for part, _ in rows],
            ["logits"],
            [[value] for _, value in rows],
            title,
            written=[[f"{value:+.3f}"] for _, value in rows],
        )


def attribute_directly(
    model: Model,
    tokens_BT: Int[Tensor, "B T"],
    target: Sequence[int],
    distractor: Sequence[int] | None = None,
    *,
    by: By = "component",
) -> DirectAttribution:
    """The parts of each prompt's logit of its target, less that of its distractor where there is one, at the last position.

    Raises InterpError where the family has no hook points for the parts asked for, where parts do not add up to what a layer
    adds, and where the logits are not linear in the final residual with the scale held.
    """
    model.check_causal("what parts add to a logit")
    if by not in ("layer", "component", "head"):
        raise InterpError(f"parts by {by} are not known; by layer, component or head.")
    final = model.last_residual
    if final is None:
        raise InterpError(f"{model.name} has no hook point for the residual stream after its last layer.")
    names = each_layer(model, RESIDUAL)
    if by != "layer":
        names += [*each_layer(model, ATTENTION), *each_layer(model, MLP)]
    if by == "head":
        attention_heads(model)
        names += each_layer(model, Z)
    made = []
    for start in range(0, len(tokens_BT), ROWS):
        rows = slice(start, start + ROWS)
        metric = logit_difference(target[rows], None if distractor is None else distractor[rows])
        made.append(_some(model, tokens_BT[rows], metric, names, final, by))
    return DirectAttribution(
        parts=tuple(made[0].parts),
        value_PB=np.concatenate([one.value_PB for one in made], 1),
        logit_B=np.concatenate([one.logit_B for one in made]),
        before_cap=made[0].before_cap,
    )


def _some(
    model: Model, tokens_BT: Tensor, metric: LogitDifference, names: Sequence[str], final: str, by: By
) -> DirectAttribution:
    """Of prompts that run together."""
    unembed_VO, gain_O = model.unembedding()
    folded_VO = unembed_VO * gain_O
    capped = [UNEMBED] if model.fires_once(UNEMBED) else []
    run = model.run(tokens_BT, [*names, final, *capped], logits=True, last=1)
    assert run.logits is not None
    last = {name: x[:, -1].flatten(1).double() for name, x in run.activations.items()}
    empty = Edit(final, lambda x, site: torch.zeros_like(x))
    left = model.run(tokens_BT[:1], capped, [empty], logits=True, last=1)
    assert left.logits is not None
    ends = [(run.logits[:, -1].double(), left.logits[:, -1].double())]
    ends += [(last[name], left.activations[name][:, -1].double()) for name in capped]
    raw_BV = (last[final].to(folded_VO) @ folded_VO.T).double()
    fits = [_scale(raw_BV, *end) for end in ends]
    at = next((n for n, (_, off) in enumerate(fits) if off < CLOSE), None)
    if at is None:
        raise InterpError(
            f"the logits of {model.name} are not what its final norm and unembedding make of its final residual: some are "
            f"{fits[0][1]:.0%} off, so they are no sum of parts."
        )
    along_BO = folded_VO[metric.target_B].double()
    if metric.distractor_B is not None:
        along_BO = along_BO - folded_VO[metric.distractor_B].double()
    along_BO = along_BO * fits[at][0]
    parts, values = [EMBEDDED], [(last[names[0]] * along_BO).sum(1)]
    for part, x_BO in _addends(model, last, final, by):
        parts.append(part)
        values.append((x_BO * along_BO).sum(1))
    logits_BV, left_1V = ends[at]
    parts.append(BIASES)
    values.append(metric(left_1V.expand_as(logits_BV)).double())
    return DirectAttribution(
        parts=tuple(parts),
        value_PB=torch.stack(values).cpu().numpy(),
        logit_B=metric(logits_BV).double().cpu().numpy(),
        before_cap=at > 0,
    )


def _scale(raw_BV: Tensor, logits_BV: Tensor, left_1V: Tensor) -> tuple[Float[Tensor, "B 1"], float]:
    """(what each prompt's products are multiplied by to give its logits, how far that is off at most, relatively)."""
    moved_BV = logits_BV - left_1V
    scale_B1 = (moved_BV * raw_BV).sum(1, keepdim=True) / raw_BV.square().sum(1, keepdim=True)
    off_B = (scale_B1 * raw_BV - moved_BV).norm(dim=1) / moved_BV.norm(dim=1)
    return scale_B1, float(off_B.max())


def _addends(model: Model, last: dict[str, Tensor], final: str, by: By) -> Iterator[tuple[str, Float[Tensor, "B O"]]]:
    """What the layers add to the residual stream, in their order."""
    count = count_layers(model)
    for layer in range(count):
        before, after = (last[f"blocks.{n}.{RESIDUAL}"] if n < count else last[final] for n in (layer, layer + 1))
        if by == "layer":
            yield f"layer {layer}", after - before
            continue
        attention_BO, mlp_BO = last[f"blocks.{layer}.{ATTENTION}"], last[f"blocks.{layer}.{MLP}"]
        _check_sum(model, f"attention and MLP of layer {layer}", attention_BO + mlp_BO, after - before, "layer")
        if by == "component":
            yield f"attn {layer}", attention_BO
        else:
            W_HdO, b_O = output_matrix(model, layer)
            z_BHd = last[f"blocks.{layer}.{Z}"].unflatten(1, (len(W_HdO), -1))
            each_BHO = torch.einsum("bhd,hdo->bho", z_BHd, W_HdO.double())
            _check_sum(model, f"heads of layer {layer}", each_BHO.sum(1) + b_O, attention_BO, "component")
            yield from ((f"{layer}.{head}", each_BHO[:, head]) for head in range(len(W_HdO)))
            if b_O.any():
                yield f"attn bias {layer}", b_O.double().expand_as(attention_BO)
        yield f"mlp {layer}", mlp_BO


def _check_sum(model: Model, what: str, ours_BO: Tensor, theirs_BO: Tensor, instead: str) -> None:
    if float((ours_BO - theirs_BO).norm()) > CLOSE * float(ours_BO.norm() + theirs_BO.norm()):
        raise InterpError(
            f"the {what} of {model.name} do not add up to what is added there (a norm or a multiplier stands behind them); "
            f'ask by="{instead}".'
        )
