"""Metrics of binary predictions, exact and without a Python loop over rows.

Labels are 0 or 1. Scores order the rows (ties count half); logits are log-odds. A metric that its
labels leave undefined is NaN. Every function raises ValueError on shapes that do not fit and
UserError on a NaN score.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import metrics as goal_metrics

Floats = NDArray[np.float64]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Exact, by ranks; a tie counts one half (Mann and Whitney 1947).

    Args:
      labels: `[row]`.
      scores: `[row]`.

    Returns:
      In [0, 1]; NaN where the labels are of one class only.
    """
    return goal_metrics.auc(*validated(labels, scores))


def log_loss(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean negative log-likelihood in nats, summed in float64.

    Args:
      labels: `[row]`.
      logits: `[row]`.

    Returns:
      At least 0; NaN without rows.
    """
    truth, values = validated(labels, logits)
    return goal_metrics.log_loss(truth, values)


def calibration(labels: ArrayLike, logits: ArrayLike) -> float:
    """Sum of the predicted probabilities over the number of positives; 1 is calibrated.

    Args:
      labels: `[row]`.
      logits: `[row]`.

    Returns:
      At least 0; NaN without positives.
    """
    truth, values = validated(labels, logits)
    positives = truth.sum()
    predicted = goal_metrics.probabilities(values).sum()
    return float(predicted / positives) if positives else float("nan")


class CalibrationCurve(NamedTuple):
    """Predicted against observed rates in bins of rows with like predictions.

    Attributes:
      predicted: Mean predicted probability, `[bin]`, ascending.
      observed: Rate of positives, `[bin]`.
      rows: Number of rows, `[bin]`.
    """

    predicted: Floats
    observed: Floats
    rows: NDArray[np.int64]


def calibration_curve(labels: ArrayLike, logits: ArrayLike, bins: int = 20) -> CalibrationCurve:
    """Reliability curve over bins of equally many rows.

    Rows of equal logits share a bin, so that there may be fewer bins than asked for.

    Args:
      labels: `[row]`, at least one row.
      logits: `[row]`.
      bins: Number of bins, at least 1.
    """
    truth, values = validated(labels, logits)
    if bins < 1 or not len(truth):
        raise ValueError(f"a calibration curve of {bins} bins over {len(truth)} rows has no point")
    edges = np.quantile(values, np.arange(1, bins) / bins, method="lower")
    _, bin_of_row = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)
    rows = np.bincount(bin_of_row)
    predicted = np.bincount(bin_of_row, weights=goal_metrics.probabilities(values)) / rows
    return CalibrationCurve(predicted, np.bincount(bin_of_row, weights=truth) / rows, rows)


def validated(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], np.ndarray]:
    truth, values = binary(np.asarray(labels)), np.asarray(scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"labels {truth.shape} and scores {values.shape} must be [row] alike")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    refuse_nan(values)
    return truth, values


def binary(labels: np.ndarray) -> NDArray[np.bool_]:
    truth = labels.astype(bool)
    if labels.dtype != bool and not np.array_equal(truth, labels):
        raise ValueError("labels must be 0 or 1")
    return truth


def refuse_nan(scores: np.ndarray) -> None:
    bad = int(np.isnan(scores).sum())
    if bad:
        raise UserError(
            f"{bad} of {scores.size} scores are NaN: the model has diverged; lower its learning "
            "rate or look for bad numerical values"
        )
