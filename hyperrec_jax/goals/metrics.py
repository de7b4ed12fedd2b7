"""Elementary metrics of one prediction for each row, weighted, by NumPy in float64.

Each takes labels `[row]`, predictions `[row]` and weights `[row]` (at least 0, 1 each by default; a
weight of 2 counts as two equal rows, but see `ndcg`), raises ValueError on shapes that differ, and
is NaN where the labels leave it undefined. Metrics of order (`auc`, `xauc`, `spearman`, `gini`,
`ndcg`) take O(rows log rows), and do not depend on the order of rows with equal predictions.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def log_loss(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood of labels of 0 and 1, in nats.

    Args:
      labels: `[row]`, 0 or 1.
      logits: Log-odds, `[row]`.
      weights: `[row]`.
    """
    truth, values, mass = _rows(labels, logits, weights)
    losses = row_losses(truth > 0, values)
    if weights is None:
        return float(losses.mean()) if len(losses) else float("nan")
    return _mean(losses, mass)


def row_losses(truth: NDArray[np.bool_], logits: NDArray[Any]) -> Floats:
    """`log(1 + exp(-margin))`, with the logit as margin of a positive, its negative otherwise."""
    return np.logaddexp(0.0, np.where(truth, -logits, logits).astype(np.float64))


def probabilities(logits: NDArray[Any]) -> Floats:
    """Probabilities of log-odds of any size."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def mean_squared_error(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Mean squared difference."""
    truth, values, mass = _rows(labels, predictions, weights)
    return _mean(np.square(values - truth), mass)


def root_mean_squared_error(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Square root of the mean squared difference, in the unit of the labels."""
    return float(np.sqrt(mean_squared_error(labels, predictions, weights)))


def mean_absolute_error(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Mean absolute difference, in the unit of the labels."""
    truth, values, mass = _rows(labels, predictions, weights)
    return _mean(np.abs(values - truth), mass)


def r2(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share of the variance that is explained; 0 for the mean, negative for worse.

    NaN where all labels are the same.
    """
    truth, values, mass = _rows(labels, predictions, weights)
    variance = _mean(np.square(truth - _mean(truth, mass)), mass)
    if not variance > 0:
        return float("nan")
    return 1 - _mean(np.square(values - truth), mass) / variance


def poisson_deviance(
    labels: ArrayLike, log_rates: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Mean deviance of Poisson rates: `2 (y log(y / rate) - y + rate)`, at least 0.

    Args:
      labels: `[row]`, at least 0.
      log_rates: Logarithms of the predicted rates, `[row]`.
      weights: `[row]`.
    """
    truth, values, mass = _rows(labels, log_rates, weights)
    logs = np.log(np.where(truth > 0, truth, 1))
    with np.errstate(over="ignore"):
        # For y > 0 this is y (e^d - 1 - d), which keeps its digits where rates are large.
        difference = np.where(truth > 0, values - logs, 0)
        losses = np.where(truth > 0, truth * (np.expm1(difference) - difference), np.exp(values))
    return 2 * _mean(losses, mass)


def total_ratio(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Sum of the predictions over the sum of the labels: 1 is calibrated.

    NaN where the labels sum to 0.
    """
    truth, values, mass = _rows(labels, predictions, weights)
    total = float(truth @ mass)
    return float(values @ mass) / total if total else float("nan")


def calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, bins: int = 20
) -> float:
    """Expected calibration error: mean distance of predicted and observed rate, over bins.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; in [0, 1],
    0 is calibrated. The bins hold equally many rows, since most probabilities of a log are small.
    """
    truth, values, mass = _rows(labels, probabilities, weights)
    if not len(values) or not mass.sum() > 0:
        return float("nan")
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    places = np.searchsorted(edges, values)
    gaps = np.bincount(places, mass * (values - (truth > 0)), bins)
    return float(np.abs(gaps).sum() / mass.sum())


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Mann and Whitney 1947; pairs count by the product of their weights.

    Args:
      labels: `[row]`; what is above 0 is positive.
      scores: `[row]`.
      weights: `[row]`.

    Returns:
      In [0, 1]; NaN where the labels are of one class only.
    """
    if weights is None:
        return _exact_auc(np.asarray(labels) > 0, np.asarray(scores))
    truth, values, mass = _rows(labels, scores, weights)
    order = np.argsort(values)
    ordered, positive = values[order], truth[order] > 0
    starts = _run_starts(ordered)
    if not len(starts):
        return float("nan")
    up = np.add.reduceat(np.where(positive, mass[order], 0), starts)
    down = np.add.reduceat(np.where(positive, 0, mass[order]), starts)
    pairs = up.sum() * down.sum()
    if not pairs > 0:
        return float("nan")
    below = np.cumsum(down) - down
    return float(up @ (2 * below + down) / (2 * pairs))


def _exact_auc(truth: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """The AUC by counting the pairs of rows, without rounding."""
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise ValueError(f"labels {truth.shape} and scores {scores.shape} must be [row] alike")
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    if not len(positives) or not len(negatives):
        return float("nan")
    few, many = sorted((positives, negatives), key=len)
    below = np.searchsorted(many, few, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(many, few, side="right").sum(dtype=np.int64)
    area = float(below + not_above) / (2 * len(few) * len(many))
    return area if few is positives else 1 - area


def xauc(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share of the pairs of different labels that the predictions put in the right order.

    Zhan et al. 2022, "Deconfounding duration bias in watch-time prediction" (arXiv 2206.06003). For
    labels of two values it is the AUC. From Kendall's tau, in O(rows log rows).

    Returns:
      In [0, 1], one half for equal predictions; NaN where all labels are the same.
    """
    # Here and not at the top: every command would wait for it, and few measure this.
    from scipy import stats

    truth, values, mass = _rows(labels, predictions, weights)
    levels, ranks = (np.unique(array, return_inverse=True)[1] for array in (truth, values))
    label_pairs, prediction_pairs = _pairs(levels, mass), _pairs(ranks, mass)
    if not label_pairs > 0:
        return float("nan")
    if not prediction_pairs > 0:
        return 0.5
    if weights is None:
        tau = stats.kendalltau(levels, ranks, method="asymptotic").statistic
    else:
        tau = stats.weightedtau(
            levels,
            ranks,
            rank=np.arange(len(mass)),
            weigher=mass.tolist().__getitem__,
            additive=False,
        ).statistic
    return float(0.5 + 0.5 * tau * np.sqrt(prediction_pairs / label_pairs))


def spearman(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Correlation of the ranks of labels and predictions, ties at their mean rank.

    Returns:
      In [-1, 1]; NaN where all labels or all predictions are the same.
    """
    truth, values, mass = _rows(labels, predictions, weights)
    if not len(mass):
        return float("nan")
    deviations = []
    for array in (truth, values):
        ranks = _mid_ranks(array, mass)
        deviations.append(ranks - _mean(ranks, mass))
    first, second = deviations
    scale = _mean(first**2, mass) * _mean(second**2, mass)
    return _mean(first * second, mass) / float(np.sqrt(scale)) if scale > 0 else float("nan")


def gini(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Gini coefficient of the labels in the predictions' order over that in their own order.

    How much of the total the rows with the highest predictions hold (Wang et al. 2019, arXiv
    1912.07753, section 4). For labels of 0 and 1 it is `2 AUC - 1`.

    Args:
      labels: `[row]`, at least 0.
      predictions: `[row]`.
      weights: `[row]`.

    Returns:
      In [-1, 1], 0 for equal predictions; NaN where all labels are the same.
    """
    truth, values, mass = _rows(labels, predictions, weights)
    if not len(mass) or not mass.sum() > 0:
        return float("nan")
    best, reached = (
        float((mass * truth) @ (2 * _mid_ranks(array, mass) / mass.sum() - 1))
        for array in (truth, values)
    )
    return reached / best if _pairs(np.unique(truth, return_inverse=True)[1], mass) else np.nan


class ListScore(NamedTuple):
    """A metric averaged over lists.

    Attributes:
      value: Weighted mean over the lists that count; NaN without any.
      lists: Number of lists that count.
      skipped: Number of lists left out: all their gains are the same, so that any order is as good
        as any other.
    """

    value: float
    lists: int
    skipped: int


def ndcg(
    gains: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    weights: ArrayLike | None = None,
    k: int = 10,
) -> ListScore:
    """Mean over lists of the normalised discounted cumulative gain of the first `k` rows.

    Discount `1 / log2(1 + rank)` (Jarvelin and Kekalainen 2002); rows of equal score take their
    expected gain over all orders, as in scikit-learn's `ndcg_score`.

    Args:
      gains: `[row]`, at least 0.
      scores: `[row]`.
      groups: The list of each row, any integers `[row]`; a list's rows need not be neighbours.
      weights: `[row]`; a list counts by the mean weight of its rows.
      k: Ranks that count, at least 1.
    """
    values, ranked, mass = _rows(gains, scores, weights)
    if k < 1:
        raise ValueError(f"NDCG counts at least one rank, not {k}")
    ids = np.asarray(groups)
    if ids.shape != values.shape:
        raise ValueError(f"groups {ids.shape} must be {values.shape}, as the gains")
    if not len(values):
        return ListScore(float("nan"), 0, 0)
    list_of_row = np.unique(ids, return_inverse=True)[1]
    rows = np.bincount(list_of_row)
    first = np.cumsum(rows) - rows
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])

    def discounted(by: Floats) -> Floats:
        order = np.lexsort((-by, list_of_row))
        owners, ordered = list_of_row[order], by[order]
        starts = np.flatnonzero(
            np.concatenate([[True], (np.diff(owners) != 0) | (np.diff(ordered) != 0)])
        )
        ends = np.append(starts[1:], len(order))
        owner = owners[starts]
        before, until = (discounts[np.minimum(at - first[owner], k)] for at in (starts, ends))
        shares = np.add.reduceat(values[order], starts) * (until - before) / (ends - starts)
        return np.bincount(owner, weights=shares, minlength=len(rows)).astype(np.float64)

    least, most = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
    np.minimum.at(least, list_of_row, values)
    np.maximum.at(most, list_of_row, values)
    counts = most > least
    if not counts.any():
        return ListScore(float("nan"), 0, len(rows))
    shares = discounted(ranked)[counts] / discounted(values)[counts]
    list_weights = (np.bincount(list_of_row, weights=mass) / rows)[counts]
    return ListScore(_mean(shares, list_weights), int(counts.sum()), int((~counts).sum()))


def _rows(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    truth, values = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    mass = np.ones(truth.shape) if weights is None else np.asarray(weights, np.float64)
    if truth.ndim != 1 or not truth.shape == values.shape == mass.shape:
        raise ValueError(
            f"labels {truth.shape}, predictions {values.shape} and weights {mass.shape} must be "
            "[row] alike"
        )
    return truth, values, mass


def _mean(values: Floats, weights: Floats) -> float:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else float("nan")


def _run_starts(ordered: Floats) -> NDArray[np.intp]:
    """Where runs of equal values begin in a sorted array."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])


def _mid_ranks(values: Floats, weights: Floats) -> Floats:
    """The weight below each row, and half the weight of the rows that are equal to it."""
    run_of_row = np.unique(values, return_inverse=True)[1]
    mass = np.bincount(run_of_row, weights=weights)
    return np.asarray((np.cumsum(mass) - mass / 2)[run_of_row], np.float64)


def _pairs(runs: NDArray[np.intp], weights: Floats) -> float:
    """Sum of the products of the weights over the pairs of rows in different runs."""
    mass = np.bincount(runs, weights=weights)
    return float(mass @ (mass.sum() - mass) / 2)
