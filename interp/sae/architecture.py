"""What every architecture is to the trainer: gradients of one batch, by hand, and the weights it leaves behind.

Axes    B batch row, D d_in, O d_out, F d_sae.
Units   Everything here is in scaled units: inputs and targets have a mean squared distance of D (or O) from their
        mean. Losses are sums over O and means over B. An architecture is one file and one line in ARCHITECTURES.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.sae.kernels import Active
from interp.sae.shards import ONE, Shards
from interp.types import InterpError

FIRST_NORM = 0.3
"""Of encoder rows, where the decoder's begin at 1."""
Params = dict[str, Tensor]
"""W_enc (F, D), b_enc (F), W_dec (F, O), b_dec (O), and what an architecture adds. Rows are features."""


@dataclass(frozen=True)
class Moment:
    """Where in the run a step is, and how its products are done."""

    share: float
    """Of the run that is over, 0 to 1."""
    hint: Tensor
    """What the architecture returned as `hint` after the last step; 0 before the first."""
    dtype: torch.dtype
    shards: Shards = ONE
    """Which rows and features are here, where several ranks share them."""


@dataclass(frozen=True)
class Outcome:
    """Loss and gradients of one batch: of the features and over the rows that are here, where several ranks share them."""

    grads: Params
    """Of every parameter but b_dec, whose gradient follows from the next two."""
    g_BO: Float[Tensor, "B O"]
    """d loss / d reconstruction."""
    into_F: Float[Tensor, " F"]
    """d loss / d (encoder's product), summed over rows."""
    error_BO: Float[Tensor, "B O"]
    fired_F: Bool[Tensor, " F"]
    entries: int
    """Active features in the batch."""
    hint: Tensor
    penalty: float = 0.0
    """The loss beside the squared error, of all features."""


@dataclass(frozen=True)
class Inference:
    """Weights as they encode after training: a threshold for each feature, or k, or one still to be measured."""

    W_enc: Float[Tensor, "F D"]
    b_enc: Float[Tensor, " F"]
    threshold: Float[Tensor, " F"] | None = None
    k: int | None = None
    per_row: int | None = None
    """With neither: the one threshold that lets this many a row pass is to be measured on held-out rows."""


@runtime_checkable
class Architecture(Protocol):
    """One way to train a sparse dictionary."""

    d_in: int
    d_sae: int

    @property
    def d_out(self) -> int: ...

    @property
    def traits(self) -> "Traits": ...

    def initial(self, p: Params, u_BD: Float[Tensor, "B D"], shards: Shards = ONE) -> Params:
        """The first parameters, from W_enc with random rows of norm 1, biases of 0, and some encoder inputs, which all ranks
        hold alike."""
        ...

    def gradients(self, p: Params, u_BD: Float[Tensor, "B D"], t_BO: Float[Tensor, "B O"], moment: Moment) -> Outcome:
        """Of the loss for encoder inputs u and targets t, from which b_dec is already taken off."""
        ...

    def inference(self, p: Params) -> Inference: ...


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the trainer does around an architecture's own gradients."""

    centred: bool = True
    """b_dec is taken off the encoder's input."""
    unit_decoder: bool = False
    """Decoder rows are kept at norm 1, and the part of their gradient along themselves is dropped."""
    auxk: bool = False
    """Dead features learn from the residual (AuxK)."""
    rate: float = 1.0
    """The default learning rate, as a multiple of an SAE's of that width."""
    threshold_rate: float = 1.0
    """Learning rate of thresholds, as a multiple of the others'."""
    measured: bool = False
    """The k·B largest pre-activations pass while training, and a threshold is measured afterwards."""
    pairs: bool = False
    """A batch is a pair: inputs and targets."""
    along: bool = False
    """Rows 2i and 2i + 1 of a batch are two positions of one document."""
    widths: tuple[int, ...] = ()
    """Widths of the hook points that are read and written side by side (crosscoders)."""


def check_sizes(**sizes: int) -> None:
    """Raises InterpError naming the size that cannot be."""
    for name, value in sizes.items():
        if value < 1:
            raise InterpError(f"{name} is {value}; it must be at least 1.")
    if sizes.get("k", 0) > sizes["d_sae"]:
        raise InterpError(
            f"k is {sizes['k']}, more than the {sizes['d_sae']} features; choose a smaller k or a larger d_sae."
        )


def check_positive(**values: float) -> None:
    """Raises InterpError naming the value that is not positive and finite."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise InterpError(f"{name} is {value}; it must be a positive number.")


def check_weight(**values: float) -> None:
    """Raises InterpError naming the value that is no weight, 0 or more."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise InterpError(f"{name} is {value}; it is a weight, 0 or more.")


def check_share(**values: float) -> None:
    """Raises InterpError naming the value that is no share of the run, 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InterpError(f"{name} is {value}; it is a share of the run, 0 to 1.")


def tied(p: Params) -> Params:
    """Encoder and decoder rows in the same directions, the encoder's shorter.

    Random rows overlap, so k active ones of norm 1 overshoot at first; from a third of it explained variance after half
    a million tokens was .01 to .03 higher and fewer features died (docs/training.md).
    """
    return {**p, "W_dec": p["W_enc"].clone(), "W_enc": p["W_enc"] * FIRST_NORM}


def squared_error(
    p: Params,
    u_BD: Tensor,
    t_BO: Tensor,
    active: Active,
    hint: Tensor,
    penalty: float = 0.0,
    more_N: Float[Tensor, " N"] | None = None,
    shards: Shards = ONE,
) -> Outcome:
    """The outcome of ‖x̂ - t‖², the selection of entries taken as constant (TopK's and BatchTopK's), and of a penalty on
    the codes, of which `more_N` is the gradient in each entry's value."""
    error_BO = shards.sum_features(active.decode(active.values, p["W_dec"])) - t_BO
    g_BO = error_BO * (2 / len(t_BO))
    swapped, order = active.by_feature
    dz_N = swapped.dots(p["W_dec"], g_BO)
    if more_N is not None:
        dz_N += more_N.index_select(0, order)
    b_enc_F = torch.zeros_like(p["b_enc"]).index_add_(0, swapped.rows, dz_N)
    grads = {"W_enc": swapped.decode(dz_N, u_BD), "b_enc": b_enc_F, "W_dec": swapped.decode(swapped.values, g_BO)}
    fired_F = swapped.offsets.diff() > 0
    return Outcome(grads, g_BO, b_enc_F, error_BO, fired_F, len(active.rows), hint, penalty)


def add_to(total: dict[str, Any], **part: Any) -> None:
    """Sums of blocks of rows: each of `part` is added to its namesake, in place."""
    for name, value in part.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value.float()


def add_norms(grad_FO: Tensor, W_FO: Tensor, by_norm_F: Tensor) -> None:
    """Add in place the gradient of a loss in the rows' norms, of which `by_norm_F` is the derivative."""
    grad_FO.addcmul_(W_FO, (by_norm_F / W_FO.norm(dim=1).clamp_min(1e-12))[:, None])


def unit_rows(W: Float[Tensor, "F D"]) -> Float[Tensor, "F D"]:
    """The rows divided by their norms; a row of zeros stays one."""
    return W / W.norm(dim=1, keepdim=True).clamp_min(1e-12)


def gate_(gradient: Tensor, value: Tensor) -> Tensor:
    """In place: the gradient where the value is positive, else 0, in one pass."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, value, 0, grad_input=gradient)
