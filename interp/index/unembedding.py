"""What each token's logit reads from the residual stream, kept on this machine so that a search need not open the model.

Axes    V vocabulary, T asked token, D width of the residual stream.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.index.weights import centred_unembedding
from interp.models import Model
from interp.types import InterpError


def token_rows(path: Path, tokens: Sequence[int], model: Callable[[], Model]) -> Float[Tensor, "T D"]:
    """What the asked tokens' logits read, in float32 (see `centred_unembedding`); zeros for a token without a logit.

    From the file at `path`; where there is none that can be read, the model is opened and the file is written, unless
    the disk refuses it. Raises InterpError when the model has no unembedding.
    """
    with suppress(SafetensorError, OSError):
        return _kept(path, tokens)
    unembedding_DV = centred_unembedding(model())
    if unembedding_DV is None:
        raise InterpError(f"{model().name} has no unembedding, so what its features promote cannot be told.")
    rows_VD = unembedding_DV.T.contiguous()
    with suppress(InterpError), places.whole_file(path) as partial:
        save_file({"rows": rows_VD}, partial)
    return asked_rows(rows_VD, tokens)


def _kept(path: Path, tokens: Sequence[int]) -> Float[Tensor, "T D"]:
    with safe_open(path, "pt") as file:
        rows = file.get_slice("rows")
        count, width = rows.get_shape()
        if len(tokens) > count // 8:  # so many are read faster together than one by one
            return asked_rows(file.get_tensor("rows"), tokens)
        return torch.stack([rows[token] if token < count else torch.zeros(width) for token in tokens])


def asked_rows(rows_VD: Float[Tensor, "V D"], tokens: Sequence[int]) -> Float[Tensor, "T D"]:
    """The tokens' rows in float32; zeros for a token that the model has no logit for."""
    ids = torch.tensor(list(tokens), dtype=torch.int64)
    known = ids < len(rows_VD)
    rows_TD = torch.zeros(len(ids), rows_VD.shape[1])
    rows_TD[known] = rows_VD[ids[known]].float()
    return rows_TD
