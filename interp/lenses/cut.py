"""Text cut into stretches of one length, each of one document, for fitting: no padding, and nothing of another text in sight.

Axes    N position of the text, S stretch, L token of a stretch.
"""

from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from interp.types import InterpError

LENGTH = 64
"""Tokens of a stretch, the separator before them counted."""


def cut_stretches(
    token_N: Shaped[np.ndarray, " N"],
    document_N: Shaped[np.ndarray, " N"],
    separator: int,
    *,
    documents: Collection[int] | None = None,
    length: int = LENGTH,
    seed: int = 0,
) -> Int[Tensor, "S L"]:
    """All stretches of the documents (all, unless named), in an order drawn by the seed; each begins with the separator.

    Positions of a document that stand apart (parted by a separator, at the beginning of a block) go on as one text. What is
    left over at its end is not read. Raises InterpError when no document is long enough.
    """
    own_N = np.asarray(token_N) != separator
    if documents is not None:
        own_N = own_N & np.isin(document_N, np.fromiter(documents, dtype=np.int64))
    place = np.flatnonzero(own_N)
    owner = np.asarray(document_N)[place]
    place = place[np.argsort(owner, kind="stable")]  # a document's positions one after the other, in their order
    owner = np.sort(owner, kind="stable")
    _, first, count = np.unique(owner, return_index=True, return_counts=True)
    body = length - 1
    starts = [np.arange(f, f + n - body + 1, body) for f, n in zip(first, count, strict=True) if n >= body]
    if not starts:
        raise InterpError(f"no document of the text has {body} tokens, which a lens is fitted on; give longer texts.")
    start_S = np.random.default_rng(seed).permutation(np.concatenate(starts))
    tokens_SL = np.asarray(token_N)[place[start_S[:, None] + np.arange(body)]].astype(np.int64)
    return torch.from_numpy(np.pad(tokens_SL, ((0, 0), (1, 0)), constant_values=separator))
