"""How much of what a dictionary leaves unexplained is a linear function of what it reads?

e = y - ŷ at counted positions. Half of the documents, drawn by the seed, are fitted and the others tested:

    error_r2     1 - Σ‖e - ê‖² / Σ‖e - mean e‖²,  ê = A x + b by least squares
    norm_r2      1 - Σ(‖e‖ - n̂)² / Σ(‖e‖ - mean ‖e‖)²,  n̂ = a·x + c by least squares
    nonlinear    Σ‖e - ê‖² / Σ‖y - mean y‖²: the share of the variance that neither the dictionary nor the linear map explains

Means are of the tested positions, and sums are over them, in float64. A small ridge keeps directions without variance from
being divided by nothing.

Axes    P counted position, D d_in, O d_out.
Source  Engels et al. 2024, "Decomposing the dark matter of sparse autoencoders" (arXiv 2410.14670).
"""

import time

import numpy as np

from interp.evals.baseline import Baseline, Reconstructed
from interp.evals.documents import Documents
from interp.evals.figure import Section
from interp.types import InterpError

RIDGE = 1e-6
"""Of the mean variance of a column."""
LEAST_ROWS = 4
"""Fitted positions for each column of x, at least: with fewer the map is of the noise."""


def measure_dark_matter(base: Baseline, made: Reconstructed, *, seed: int = 0) -> Section:
    """The section `dark_matter` of a dictionary; runs no model.

    Raises InterpError when there are too few documents to halve, or too few positions for the width of what is read.
    """
    began = time.perf_counter()
    fitted_P = _half(base.documents, seed)
    x_PD, y_PO = base.rows(made.sae.reads).double().numpy(), base.rows(base.writes).double().numpy()
    rows, least = int(fitted_P.sum()), LEAST_ROWS * x_PD.shape[1]
    if min(rows, len(x_PD) - rows) < least:
        raise InterpError(
            f"the linear part of the error is fitted on half of the documents, which have {rows:,} counted tokens, and "
            f"{x_PD.shape[1]} columns need {least:,} in each half; give more text (--tokens)."
        )
    e_PO = y_PO - made.made_PO.double().numpy()
    norm_P = np.sqrt(made.error_P)
    predicted = _linear(x_PD, np.concatenate([e_PO, norm_P[:, None]], axis=1), fitted_P)
    e_PO, y_PO, norm_P = e_PO[~fitted_P], y_PO[~fitted_P], norm_P[~fitted_P]
    docs = Documents.number(base.documents.of_P[~fitted_P])
    left_P = np.square(e_PO - predicted[:, :-1]).sum(1)
    figures = (
        docs.ratio(
            "error_r2", "R² of the error as a linear map of what is read, on documents that were not fitted",
            left_P, np.square(e_PO - e_PO.mean(0)).sum(1), less_from_one=True,
        ),
        docs.ratio(
            "norm_r2", "R² of the error's norm as a linear function of what is read",
            np.square(norm_P - predicted[:, -1]), np.square(norm_P - norm_P.mean()), less_from_one=True,
        ),
        docs.ratio(
            "nonlinear", "share of the variance that neither the reconstruction nor the linear map explains",
            left_P, np.square(y_PO - y_PO.mean(0)).sum(1), better="lower",
        ),
    )  # fmt: skip
    of = {
        "fitted": rows,
        "tested": len(e_PO),
        "documents": base.documents.count,
        "seed": seed,
        "tokens_sha256": base.blocks.sha256(),
    }
    return Section(
        name="dark_matter",
        title="Dark matter: the error's linear part",
        figures=figures,
        of=of,
        seconds=time.perf_counter() - began,
    )


def _half(documents: Documents, seed: int) -> np.ndarray:
    """True at the positions of half of the documents."""
    if documents.count < 2:
        raise InterpError("the linear part of the error is fitted on one half of the documents and tested on the other, and this text has one; give more text.")  # fmt: skip
    order = np.random.default_rng(seed).permutation(documents.count)
    return np.isin(documents.of_P, order[: documents.count // 2])


def _linear(x_PD: np.ndarray, target_PO: np.ndarray, fitted_P: np.ndarray) -> np.ndarray:
    """Least squares with a constant, fitted at some positions: what it predicts at the others."""
    x, target = x_PD[fitted_P], target_PO[fitted_P]
    centre_D, middle_O = x.mean(0), target.mean(0)
    x = x - centre_D
    gram_DD = x.T @ x
    gram_DD[np.diag_indices_from(gram_DD)] += RIDGE * np.trace(gram_DD) / len(gram_DD) + 1e-300
    map_DO = np.linalg.solve(gram_DD, x.T @ (target - middle_O))
    return np.asarray((x_PD[~fitted_P] - centre_D) @ map_DO + middle_O)
