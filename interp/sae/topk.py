"""TopK: the k largest pre-activations of each row pass, if positive.

Source  Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3 (ReLU after TopK).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import kernels
from interp.sae.batchtopk import check_sizes
from interp.sae.kernels import Active


@dataclass(frozen=True, kw_only=True)
class TopK:
    """d_in inputs, d_sae features, at most k active a row."""

    d_in: int
    d_sae: int
    k: int

    def __post_init__(self) -> None:
        check_sizes(self.d_in, self.d_sae, self.k)

    def select(self, pre_BF: Float[Tensor, "B F"], b_enc_F: Float[Tensor, " F"], hint: Tensor) -> tuple[Active, Tensor]:
        """The active entries; the hint is not needed and comes back as it was."""
        batch = len(pre_BF)
        bias_F = b_enc_F.to(pre_BF.dtype)
        columns = []
        for start in range(0, batch, kernels.BLOCK_ROWS):
            block = pre_BF[start : start + kernels.BLOCK_ROWS] + bias_F
            columns.append(block.topk(self.k, dim=1, sorted=False).indices)
        features = torch.cat(columns).sort(dim=1).values
        flat = (features + torch.arange(batch, device=features.device)[:, None] * self.d_sae).view(-1)
        values = pre_BF.reshape(-1)[flat].float() + b_enc_F[features.view(-1)]
        return kernels.from_flat(flat[values > 0], values[values > 0], batch, self.d_sae), hint
