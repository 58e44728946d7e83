"""The averaged Jacobian of the final residual with respect to a hook point, at the same position and at all later ones.

With y the final residual and x the hook point, for each position t that counts

    next    ∂ y[t] / ∂ x[t]                      averaged over t
    later   Σ over u > t of ∂ y[u] / ∂ x[t]      averaged over t

A backward pass from coordinate i of y at some positions gives, at every t at once, row i of the sum of the Jacobians from t to these
positions. They are a random half M of the text, drawn anew for each row, and in a second pass the other half. To each t one of the
two is the half without it: what comes from there is of later positions alone, half of them, and twice its mean is `later` without
bias. The half with t gives its own position's Jacobian besides: the difference at each t, averaged, is `next`. So no position's attention
is taken apart. (The difference is taken at the same positions: what is later varies from one position to the next by more than
`next` itself, and cancels there.)

1.  A forward pass reads `texts` stretches; `coordinates` rows of the matrices are got from it by two backward passes each.
2.  The next forward pass, of other text, has the next rows. A round has all.

A row's error comes from what differs between texts, so that more rows of few texts and fewer rows of more texts cost the same.

Axes    S stretch, L token of a stretch, D width at the hook point, O of the final residual, H half.
Source  "Jacobian lens": TransformerLens' issues 1505 and 1539 describe one averaged matrix a layer.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from interp.lenses.agreement import Readers
from interp.lenses.fitting import FitConfig, counted_of, fit, mask_of
from interp.lenses.lens import LATER, NEXT, Lens, last_residual
from interp.mask import Mask
from interp.models import Model
from interp.types import InterpError

KIND = "jacobian"


def fit_jacobian(
    model: Model,
    hook_name: str,
    tokens_SL: Int[Tensor, "S L"],
    readers: Readers,
    folder: Path,
    config: FitConfig | None = None,
    *,
    text: str = "",
    restart: bool = False,
) -> dict[str, Lens]:
    """The lenses `next` and `later` of a hook point, fitted on stretches of text (`cut_stretches`); `text` names it.

    Kept in the folder and found there again; a fit that was ended goes on. Raises InterpError when the model is not causal, when
    no gradient goes from its final residual to the hook point, and when the text is too short.
    """
    config = config or FitConfig()
    final = last_residual(model)
    width, wide = model.width(hook_name), model.width(final)
    if not model.causal:
        raise InterpError(
            f"{model.name} reads a text in both directions, so nothing is said later than a position; the tuned lens needs no order."
        )
    mask = mask_of(model, (hook_name, final), tokens_SL, config.texts, model.separator)
    work = Jacobian(model, hook_name, final, width, wide, mask, config)
    _try(model, hook_name, final, tokens_SL[:1])
    return fit(work, model, hook_name, tokens_SL, readers, folder, config, text=text, restart=restart)


def _try(model: Model, hook_name: str, final: str, tokens_SL: Tensor) -> None:
    """Raises InterpError when no gradient goes from the one hook point to the other."""
    run = model.run(tokens_SL[:, :4], [hook_name, final], grad=True)
    x, y = run.activations[hook_name], run.activations[final]
    try:
        torch.autograd.grad(y.sum(), x)
    except RuntimeError:  # PyTorch's, for a part without a derivative as well
        raise InterpError(
            f"no gradient goes from the final residual of {model.name} to {hook_name}, so its Jacobian lens cannot be fitted; choose "
            "a hook point that the residual stream passes, or fit the tuned lens."
        ) from None


@dataclass
class Jacobian:
    """Sums of gradients, by half: at positions inside of what was drawn, and outside."""

    model: Model
    hook_name: str
    final: str
    width: int
    wide: int
    mask: Mask
    config: FitConfig
    kind: str = KIND

    def __post_init__(self) -> None:
        shape = (2, self.wide, self.width)
        device = self.model.device
        self.inside_HOD, self.outside_HOD = (torch.zeros(shape, device=device) for _ in range(2))
        self.inside_HO, self.outside_HO = (torch.zeros(shape[:2], dtype=torch.int64) for _ in range(2))
        self.passes = -(-self.wide // self.config.coordinates)

    def add(self, tokens_SL: Int[Tensor, "S L"], number: int, half: int) -> None:
        """Sum one forward pass: the rows whose turn it is."""
        first = number % self.passes * self.config.coordinates
        run = self.model.run(tokens_SL, [self.hook_name, self.final], grad=True)
        x, y = run.activations[self.hook_name], run.activations[self.final]
        counted_SL = counted_of(run, self.mask, tokens_SL, self.model.separator)
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)
        for row in range(first, min(first + self.config.coordinates, self.wide)):
            drawn_SL = (torch.rand(counted_SL.shape, generator=draw) < 0.5).to(counted_SL.device)
            for some_SL in (drawn_SL, ~drawn_SL):
                self.add_row(x, y, row, counted_SL, some_SL, half)

    def add_row(self, x: Tensor, y: Tensor, row: int, counted_SL: Tensor, drawn_SL: Tensor, half: int) -> None:
        """Sum one backward pass, from coordinate `row` at the positions drawn."""
        inside_SL, outside_SL = counted_SL & drawn_SL, counted_SL & ~drawn_SL
        towards = torch.zeros_like(y)
        towards[..., row] = inside_SL.to(y.dtype)
        (gradient_SLD,) = torch.autograd.grad(y, x, towards, retain_graph=True)
        gradient_SLD = gradient_SLD.float()
        self.inside_HOD[half, row] += gradient_SLD[inside_SL].sum(0)
        self.outside_HOD[half, row] += gradient_SLD[outside_SL].sum(0)
        self.inside_HO[half, row] += int(inside_SL.sum())
        self.outside_HO[half, row] += int(outside_SL.sum())

    def sums(self) -> dict[str, Tensor]:
        """The tensors that are added to."""
        return {
            "inside": self.inside_HOD,
            "outside": self.outside_HOD,
            "inside_count": self.inside_HO,
            "outside_count": self.outside_HO,
        }

    def matrices(self, half: int | None) -> dict[str, Tensor]:
        """`next` and `later`, (O, D), from one half or both."""
        chosen = slice(None) if half is None else slice(half, half + 1)
        inside_OD, outside_OD = (
            sums[chosen].sum(0) / count[chosen].sum(0).clamp_min(1)[:, None].to(sums.device)
            for sums, count in ((self.inside_HOD, self.inside_HO), (self.outside_HOD, self.outside_HO))
        )
        return {NEXT: inside_OD - outside_OD, LATER: 2 * outside_OD}

    def positions(self) -> int:
        """Positions that a row rests on, on average."""
        return int(self.inside_HO.sum()) // self.wide
