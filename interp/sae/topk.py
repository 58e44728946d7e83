"""TopK: the k largest pre-activations of each row pass, if positive.

Source  Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3 (ReLU after TopK), AuxK appendix A.2.
"""

from dataclasses import dataclass

from torch import Tensor

from interp.sae import kernels
from interp.sae.architecture import Inference, Moment, Outcome, Params, Traits, check_sizes, squared_error, tied
from interp.sae.shards import ONE, Shards


@dataclass(frozen=True, kw_only=True)
class TopK:
    """d_in inputs, d_sae features, at most k active a row."""

    d_in: int
    d_sae: int
    k: int
    traits = Traits(unit_decoder=True, auxk=True)

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_sae=self.d_sae, k=self.k)

    @property
    def d_out(self) -> int:
        return self.d_in

    def initial(self, p: Params, u_BD: Tensor, shards: Shards = ONE) -> Params:
        return tied(p)

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        rows = kernels.encoder_rows(u_BD, moment.dtype)
        here = len(p["W_enc"])
        # The matrix goes before its memory is needed again.
        flat, values = kernels.entries_topk(
            rows, kernels.encoder_matrix(p["W_enc"], p["b_enc"], moment.dtype), min(self.k, here)
        )
        active = moment.shards.keep_topk(kernels.from_flat(flat, values, len(u_BD), here), self.k)
        return squared_error(p, u_BD, t_BO, active, moment.hint, shards=moment.shards)

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], k=self.k)
