"""Is the reconstruction too short, or off by something constant?

    shrinkage    mean over counted positions of ‖ŷ‖ / ‖y‖
    γ            Σ‖ŷ‖² / Σ⟨y, ŷ⟩: ŷ / γ is the multiple of ŷ that is nearest to y, so that γ under 1 is a reconstruction that is too
                 short along itself. Relative bias is |γ - 1|.
    offset       ‖mean (y - ŷ)‖² / mean ‖y - ŷ‖²: the share of the squared error that adding one vector would take away

γ is 1 for any least-squares fit, and 1 does not say that each feature has its true strength.

Axes    P counted position, O d_out.
Source  Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders", equation 10 (γ).
"""

import time

import numpy as np

from interp.evals.baseline import Baseline, Reconstructed
from interp.evals.figure import Figure, Section


def measure_bias(base: Baseline, made: Reconstructed) -> Section:
    """The section `bias` of a dictionary; runs no model."""
    began, docs = time.perf_counter(), base.documents
    y_PO = base.rows(base.writes)
    norm_P = y_PO.double().norm(dim=1).numpy()
    gamma = docs.ratio(
        "gamma", "γ: squared norm of the reconstruction over its product with the data", made.length_P, made.along_P
    )
    ends = gamma.interval
    inside = ends is not None and ends[0] <= 1 <= ends[1]
    away = sorted(abs(end - 1) for end in ends) if ends else []
    figures = (
        docs.mean(
            "shrinkage", "norm of the reconstruction over that of the data, in the mean",
            np.sqrt(made.length_P) / np.maximum(norm_P, 1e-300),
        ),
        gamma,
        docs.figure(
            "relative_bias", "|γ - 1|: how much longer or shorter along itself the reconstruction had better be",
            None if gamma.value is None else abs(gamma.value - 1),
            (0.0 if inside else away[0], away[1]) if away else None, better="lower", note=gamma.note if gamma.value is None else "",
        ),
        _offset(base, made),
    )  # fmt: skip
    of = {"counted": base.positions, "documents": docs.count, "tokens_sha256": base.blocks.sha256()}
    return Section(name="bias", title="Shrinkage and bias", figures=figures, of=of, seconds=time.perf_counter() - began)


def _offset(base: Baseline, made: Reconstructed) -> Figure:
    error_O = base.mean_O - made.made_PO.double().mean(0)
    total = float(made.error_P.sum())
    value = float(error_O.square().sum()) * base.positions / total if total > 0 else None
    return Figure(
        name="offset", says="share of the squared error that one constant vector would take away", value=value,
        n=base.positions, unit="tokens", better="lower",
        note="of few tokens it is never 0: the mean of an error without an offset is as long as its spread makes it"
        if value is not None else "there is no error",
    )  # fmt: skip
