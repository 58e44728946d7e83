"""The tuned lens by least squares: the affine map from a hook point's rows to the final residual's, at the same position.

    minimise Σ ‖ y − A x − b ‖² + λ · mean variance of x · ‖A‖²     over positions that count

λ is the one of RIDGES with which the halves predict each other best, so that it is chosen on text it was not fitted on. A
direction is mapped by A alone: b is the same whatever the direction.

Axes    S stretch, L token of a stretch, N position, D width at the hook point, O of the final residual, H half.
Source  Din et al. 2023, "Jump to Conclusions: Short-Cutting Transformers With Linear Transformations" (without λ).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.lenses.agreement import Readers
from interp.lenses.fitting import FitConfig, counted_of, fit, mask_of
from interp.lenses.lens import TUNED, Lens, last_residual
from interp.mask import Mask
from interp.models import Model

KIND = "tuned"
RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def fit_tuned(
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
    """The lens `tuned` of a hook point, fitted on stretches of text (`cut_stretches`); `text` names it. Forward passes only.

    Kept in the folder and found there again; a fit that was ended goes on. Raises InterpError when the text is too short.
    """
    config = config or FitConfig(texts=16)
    final = last_residual(model)
    width, wide = model.width(hook_name), model.width(final)
    mask = mask_of(model, (hook_name, final), tokens_SL, config.texts, model.separator)
    work = Tuned(model, hook_name, final, width, wide, mask)
    return fit(work, model, hook_name, tokens_SL, readers, folder, config, text=text, restart=restart)


@dataclass
class Tuned:
    """Sums of products, by half, in float64."""

    model: Model
    hook_name: str
    final: str
    width: int
    wide: int
    mask: Mask
    kind: str = KIND
    passes: int = 1

    def __post_init__(self) -> None:
        D, total = self.width, self.width + self.wide
        # Of x and y side by side: only what a fit and its error need.
        self.products_HDE = torch.zeros(2, D, total, dtype=torch.float64)
        self.sums_HE = torch.zeros(2, total, dtype=torch.float64)
        self.squares_H = torch.zeros(2, dtype=torch.float64)
        self.count_H = torch.zeros(2, dtype=torch.int64)

    def add(self, tokens_SL: Int[Tensor, "S L"], number: int, half: int) -> None:
        """Sum the rows of one forward pass."""
        run = self.model.run(tokens_SL, [self.hook_name, self.final])
        counted_SL = counted_of(run, self.mask, tokens_SL, self.model.separator)
        x_ND, y_NO = (run.activations[name][counted_SL] for name in (self.hook_name, self.final))
        self.add_rows(x_ND, y_NO, half)

    def add_rows(self, x_ND: Float[Tensor, "N D"], y_NO: Float[Tensor, "N O"], half: int) -> None:
        """Sum rows of the hook point, and of the final residual at the same positions."""
        both_NE = torch.cat([x_ND, y_NO], 1).double().cpu()
        self.products_HDE[half] += both_NE[:, : self.width].T @ both_NE
        self.sums_HE[half] += both_NE.sum(0)
        self.squares_H[half] += both_NE[:, self.width :].square().sum()
        self.count_H[half] += len(both_NE)

    def sums(self) -> dict[str, Tensor]:
        """The tensors that are added to."""
        return {
            "products": self.products_HDE,
            "sums": self.sums_HE,
            "squares": self.squares_H,
            "count": self.count_H,
        }

    def matrices(self, half: int | None) -> dict[str, Tensor]:
        """`tuned`, (O, D), from one half or both; and from both its `bias`, (1, O)."""
        ridge = min(RIDGES, key=lambda each: self._error(0, 1, each) + self._error(1, 0, each))
        A_OD, bias_O = self._solve([0, 1] if half is None else [half], ridge)
        return {TUNED: A_OD.float()} | ({} if half is not None else {"bias": bias_O.float()[None]})

    def positions(self) -> int:
        """Positions that were summed."""
        return int(self.count_H.sum())

    def _moments(self, halves: list[int]) -> tuple[Tensor, Tensor, Tensor, float]:
        """(covariance of x, of x with y, means, mean square of y about its mean), of these halves."""
        count = int(self.count_H[halves].sum())
        mean_E = self.sums_HE[halves].sum(0) / count
        x_D, y_O = mean_E.split([self.width, self.wide])
        covariance_DE = self.products_HDE[halves].sum(0) / count - x_D[:, None] * mean_E
        spread = float(self.squares_H[halves].sum() / count - y_O.square().sum())
        return covariance_DE[:, : self.width], covariance_DE[:, self.width :], mean_E, spread

    def _solve(self, halves: list[int], ridge: float) -> tuple[Tensor, Tensor]:
        xx_DD, xy_DO, mean_E, _ = self._moments(halves)
        scale = xx_DD.diagonal().mean().clamp_min(1e-30)
        A_OD = torch.linalg.solve(xx_DD + ridge * scale * torch.eye(self.width, dtype=torch.float64), xy_DO).T
        x_D, y_O = mean_E.split([self.width, self.wide])
        return A_OD, y_O - A_OD @ x_D

    def _error(self, fitted: int, tried: int, ridge: float) -> float:
        """Mean squared error of one half's map on the other, means and all."""
        A_OD, bias_O = self._solve([fitted], ridge)
        xx_DD, xy_DO, mean_E, spread = self._moments([tried])
        x_D, y_O = mean_E.split([self.width, self.wide])
        about_means = spread - 2 * float((A_OD.T * xy_DO).sum()) + float(((A_OD @ xx_DD) * A_OD).sum())
        return about_means + float((y_O - A_OD @ x_D - bias_O).square().sum())
