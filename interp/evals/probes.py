"""Probes that tell two labels apart, and how well they do on texts that they were not fitted on.

Axes    N text, F latent or neuron, D d_in, A active entry, P text with label True, Q text with label False.

Definitions
    ranking         of latents |mean₁ - mean₀| / (Σ|z| / times active), the means over the texts of each label: how
                    sae-probes ranks. Of neurons |mean₁ - mean₀| / standard deviation, which suits coordinates that are
                    never 0 and have offsets of their own.
    probe           logistic regression with L2, its strength C the one of `CS` (or of `DENSE_CS`) that has the largest AUROC
                    on the last fifth, at most 100, of the training texts; then fitted to all of them.
    means           the score x · (mean₁ - mean₀), split halfway between both means.
    1-D probe loss  min over i of the cross entropy of σ(w·zᵢ + b) on the training texts, w and b fitted to them with a
                    prior of variance 10 (zᵢ divided by its root mean square where active): i is picked there, and the
                    loss is that of the test texts, in nats. ln 2 is what a coin has.
    F1              weighted by how many texts have each label.

Source  Kantamneni et al. 2025, "Are Sparse Autoencoders Useful?", and its code sae-probes 0.4.2 (ranking, probe, F1); Gao et
        al. 2024, "Scaling and evaluating sparse autoencoders", section 4.2 (1-D probe loss, whose minimum there is over the
        same texts that it is reported on); DeLong et al. 1988 (two AUROCs of the same texts).
"""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.statistics import Z

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CS = np.logspace(5, -5, 10)
"""Inverse strengths of L2 that are tried for few latents or neurons: those of sae-probes."""
DENSE_CS = np.logspace(1, -5, 7)
"""The same for all of a model's coordinates, standardised, and for words."""
VALIDATION = 0.2, 100
"""The share of the training texts that C is chosen on, and how many at most."""
NEWTON_STEPS, LARGEST_STEP = 60, 2.0
PRIOR = 10.0
"""Variance of w and b before anything is seen."""


@dataclass(frozen=True)
class Scores:
    """Of one probe on the test texts."""

    auroc: float
    accuracy: float
    f1: float


def rank_latents(z_NF: "csr_matrix", label_N: Bool[np.ndarray, " N"], most: int) -> Int[np.ndarray, " K"]:
    """The `most` latents whose activations differ most between the labels, the best first; ties by number."""
    z = z_NF.tocsc().astype(np.float64)
    count_F = np.diff(z.indptr)
    active_mean_F = np.asarray(abs(z).sum(0)).ravel() / (count_F + 1e-6)
    difference_F = np.asarray(z[label_N].mean(0) - z[~label_N].mean(0)).ravel() / (active_mean_F + 1e-6)
    return np.argsort(-np.abs(difference_F), kind="stable")[:most]


def rank_neurons(x_ND: Float[np.ndarray, "N D"], label_N: Bool[np.ndarray, " N"], most: int) -> Int[np.ndarray, " K"]:
    """The `most` coordinates whose means differ most between the labels in standard deviations; ties by number."""
    difference_D = x_ND[label_N].mean(0) - x_ND[~label_N].mean(0)
    return np.argsort(-np.abs(difference_D / (x_ND.std(0) + 1e-12)), kind="stable")[:most]


def fit(
    train: Any, label_N: Bool[np.ndarray, " N"], test: Any, cs: np.ndarray = CS
) -> tuple[Float[np.ndarray, " M"], float]:
    """(what the probe says of each test text in log odds, the C that was chosen). `train` and `test` are dense or sparse."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    def fitted(c: float, rows: slice) -> LogisticRegression:
        with warnings.catch_warnings():
            # With hardly any L2 a probe need not settle; how good it is then, the validation texts say.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=c, max_iter=1000).fit(train[rows], label_N[rows])

    share, most = VALIDATION
    first = len(label_N) - min(int(share * len(label_N)), most)
    held = slice(first, None)
    auroc = [area(label_N[held], fitted(c, slice(first)).decision_function(train[held])) for c in cs]
    best = float(cs[int(np.argmax(auroc))])
    return fitted(best, slice(None)).decision_function(test).astype(np.float64), best


def area(label_N: Bool[np.ndarray, " N"], score_N: Float[np.ndarray, " N"]) -> float:
    """AUROC; ½ where only one label is there."""
    if label_N.all() or not label_N.any():
        return 0.5
    from scipy.stats import rankdata

    positives = int(label_N.sum())
    above = rankdata(score_N)[label_N].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(label_N) - positives)))


def score(label_N: Bool[np.ndarray, " N"], odds_N: Float[np.ndarray, " N"]) -> Scores:
    """AUROC, accuracy and weighted F1 of log odds, of which those above 0 say True."""
    said_N = odds_N > 0
    f1 = 0.0
    for label in (False, True):
        both = ((said_N == label) & (label_N == label)).sum()
        together = (said_N == label).sum() + (label_N == label).sum()
        f1 += float(2 * both / max(together, 1)) * float((label_N == label).mean())
    return Scores(area(label_N, odds_N), float((said_N == label_N).mean()), f1)


def standardised(
    train_ND: Float[np.ndarray, "N D"], test_MD: Float[np.ndarray, "M D"]
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "M D"]]:
    """Both in standard deviations from the mean of the training texts."""
    mean_D, sd_D = train_ND.mean(0), train_ND.std(0) + 1e-12
    return (train_ND - mean_D) / sd_D, (test_MD - mean_D) / sd_D


def means_odds(
    train_ND: Float[np.ndarray, "N D"], label_N: Bool[np.ndarray, " N"], test_MD: Float[np.ndarray, "M D"]
) -> Float[np.ndarray, " M"]:
    """What the difference of means says of each test text: its score less that of the point halfway."""
    high_D, low_D = train_ND[label_N].mean(0), train_ND[~label_N].mean(0)
    return (test_MD - (high_D + low_D) / 2) @ (high_D - low_D)


def words_odds(train: list[str], label_N: Bool[np.ndarray, " N"], test: list[str]) -> Float[np.ndarray, " M"]:
    """What a probe on the words of the texts says, which knows no model: tf-idf of lower-case words of any length."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    return fit(counter.fit_transform(train), label_N, counter.transform(test), np.logspace(3, -3, 7))[0]


@dataclass(frozen=True, eq=False)
class OneDimensional:
    """A logistic regression for each latent alone; see `fit_each`."""

    weight_F: Float[np.ndarray, " F"]
    bias_F: Float[np.ndarray, " F"]
    loss_F: Float[np.ndarray, " F"]
    """Mean cross entropy in nats on the texts that it was fitted to, without the prior."""

    def loss(self, z_NF: "csr_matrix", label_N: Bool[np.ndarray, " N"], latent: int) -> float:
        """Mean cross entropy of one latent's probe on other texts, in nats."""
        z_N = z_NF[:, [latent]].toarray().ravel().astype(np.float64)
        return float(_entropy(label_N, self.weight_F[latent] * z_N + self.bias_F[latent]).mean())


def fit_each(z_NF: "csr_matrix", label_N: Bool[np.ndarray, " N"]) -> OneDimensional:
    """w and b of every latent at once, by Newton's method on its active entries; where a latent is 0, all texts count alike.

    The prior keeps w and b finite where a latent parts the labels without a mistake, and makes the objective strictly
    convex, so that the steps (never longer than LARGEST_STEP) settle.
    """
    z = z_NF.tocsc().astype(np.float64)
    texts, latents = z.shape
    column_A = np.repeat(np.arange(latents), np.diff(z.indptr))
    count_F = np.bincount(column_A, minlength=latents)
    rms_F = np.sqrt(np.bincount(column_A, z.data**2, latents) / np.maximum(count_F, 1))
    rms_F[rms_F == 0] = 1.0
    value_A, positive_A = z.data / rms_F[column_A], label_N[z.indices].astype(np.float64)
    zeros_F = texts - count_F
    positive_zeros_F = label_N.sum() - np.bincount(column_A, positive_A, latents)
    w_F, b_F = np.zeros(latents), np.zeros(latents)
    for _ in range(NEWTON_STEPS):
        p_A, p_F = _sigmoid(w_F[column_A] * value_A + b_F[column_A]), _sigmoid(b_F)
        curve_A, curve_F = p_A * (1 - p_A), zeros_F * p_F * (1 - p_F)
        by_w = np.bincount(column_A, (p_A - positive_A) * value_A, latents) + w_F / PRIOR
        by_b = np.bincount(column_A, p_A - positive_A, latents) + zeros_F * p_F - positive_zeros_F + b_F / PRIOR
        ww = np.bincount(column_A, curve_A * value_A**2, latents) + 1 / PRIOR
        wb = np.bincount(column_A, curve_A * value_A, latents)
        bb = np.bincount(column_A, curve_A, latents) + curve_F + 1 / PRIOR
        determinant = ww * bb - wb**2
        step_w, step_b = (bb * by_w - wb * by_b) / determinant, (ww * by_b - wb * by_w) / determinant
        long = np.maximum(np.hypot(step_w, step_b) / LARGEST_STEP, 1.0)
        w_F, b_F = w_F - step_w / long, b_F - step_b / long
        if max(np.abs(step_w).max(initial=0), np.abs(step_b).max(initial=0)) < 1e-8:
            break
    active_F = np.bincount(column_A, _entropy(positive_A > 0, w_F[column_A] * value_A + b_F[column_A]), latents)
    zero_F = positive_zeros_F * np.logaddexp(0, -b_F) + (zeros_F - positive_zeros_F) * np.logaddexp(0, b_F)
    return OneDimensional(w_F / rms_F, b_F, (active_F + zero_F) / texts)


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    made: np.ndarray = expit(odds)
    return made


def _entropy(label: np.ndarray, odds: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, np.where(label, -odds, odds))


def auroc_interval(label_N: Bool[np.ndarray, " N"], score_N: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """95 % of one probe's AUROC over its test texts (DeLong), a point where it has no spread."""
    over_P, over_Q = _placements(label_N, score_N)
    spread = math.sqrt(float(over_P.var(ddof=1)) / len(over_P) + float(over_Q.var(ddof=1)) / len(over_Q))
    middle = float(over_P.mean())
    return max(middle - Z * spread, 0.0), min(middle + Z * spread, 1.0)


def better_p(label_N: Bool[np.ndarray, " N"], one_N: np.ndarray, other_N: np.ndarray) -> float:
    """The chance of an AUROC that is so much larger than the other's, of the same texts, were both equal: one-sided.

    DeLong's test. Where both scores order the texts alike nothing is larger, and p is 1.
    """
    from scipy.stats import norm

    one, other = _placements(label_N, one_N), _placements(label_N, other_N)
    positive, negative = one[0] - other[0], one[1] - other[1]
    variance = float(positive.var(ddof=1)) / len(positive) + float(negative.var(ddof=1)) / len(negative)
    larger = float(positive.mean())
    if variance <= 1e-15:
        return 1.0 if larger <= 0 else 0.0
    return float(norm.sf(larger / math.sqrt(variance)))


def _placements(
    label_N: Bool[np.ndarray, " N"], score_N: Float[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " Q"]]:
    """Of each text the share of the other label's texts that it is placed rightly to, ties for half."""
    above_PQ = score_N[label_N][:, None] - score_N[~label_N][None, :]
    right_PQ = (above_PQ > 0) + 0.5 * (above_PQ == 0)
    return right_PQ.mean(1), right_PQ.mean(0)
