"""What the model's number type alone does to its predictions: the KL below which a difference says nothing.

    KL floor = mean over counted positions of KL(p of float32 ‖ p of the model's own number type), nats, both untouched.

Axes    P counted position.
"""

import numpy as np
import torch

from interp.evals.baseline import Baseline
from interp.evals.documents import Documents
from interp.evals.figure import Figure
from interp.evals.in_place import Predictions, logits_of
from interp.models import open_model
from interp.types import InterpError

BLOCKS = 8
"""Read for it: float32 is slow where bfloat16 is fast, and so small a figure need not be exact."""
PARAMETERS = 2_000_000_000
"""A larger model is not opened a second time."""
SAYS = (
    "KL of the untouched model in float32 from itself in the number type it ran in, in nats: what rounding alone does"
)


@torch.inference_mode()
def number_floor(base: Baseline) -> Figure:
    """The KL floor on the baseline's first blocks; without a value, and why, where the model runs in float32 or is not to be
    opened again. Found once for a baseline."""
    if base.floor is None:
        base.floor = _floor(base)
    return base.floor


def _floor(base: Baseline) -> Figure:
    model, blocks = base.model, min(BLOCKS, len(base.counted_NT))
    if model.dtype in (torch.float32, torch.float64):
        return _none(base, f"the model ran in {model.dtype_name}, which rounds nothing that can be seen here")
    if sum(p.numel() for p in model.module.parameters()) > PARAMETERS:
        return _none(base, "the model is too large to be opened in float32 beside itself")
    try:
        exact = open_model(model.source, dtype="float32", device=str(model.device), attention=model.attention)
    except InterpError as why:
        return _none(base, f"the model could not be opened in float32: {why}")
    if exact.fingerprint() != model.fingerprint():
        return _none(base, f"the weights of {model.name} were changed after it was opened")
    tokens_NT, counted_NT = base.blocks.tokens_NT[:blocks], base.counted_NT[:blocks]
    kl_P = []
    for tokens, counted in zip(tokens_NT.split(1), counted_NT.split(1), strict=True):
        said, here = (logits_of(one, tokens) for one in (exact, model))
        kl_P.append(Predictions(tokens, counted, said).ce_and_kl(here)[1])
    document_P = base.blocks.document_NT[:blocks][counted_NT].numpy()
    if not len(document_P):
        return _none(base, "no position of the first blocks counts")
    return Documents.number(document_P).mean("kl_floor", SAYS, np.concatenate(kl_P), note=f"of {model.dtype_name}")


def _none(base: Baseline, why: str) -> Figure:
    return Figure(name="kl_floor", says=SAYS, value=None, n=base.documents.count, unit="documents", note=why)
