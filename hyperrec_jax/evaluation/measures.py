"""What the outputs of a model are worth to each goal: its metrics, and its loss row by row."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.goals import RowGoal, Rows, Statistics
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.losses import output_slices
from hyperrec_jax.goals.metrics import row_losses

Floats = NDArray[np.float64]


class Labelled(NamedTuple):
    """The rows that have the label of a goal.

    Attributes:
      labels: `[row]`, none missing.
      weights: `[row]`, or None where every row counts the same.
      present: Which rows of the split they are, bool; None for all.
    """

    labels: np.ndarray
    weights: np.ndarray | None
    present: NDArray[np.bool_] | None

    def of(self, outputs: np.ndarray) -> np.ndarray:
        """The outputs of these rows, `[row, output]`, of outputs `[output, row]` of all rows."""
        return outputs.T if self.present is None else outputs[:, self.present].T


def labelled(scores: Scores, goal: int) -> Labelled:
    """The rows of a split that have the label of a goal, by its position."""
    labels = scores.labels[goal]
    if labels.dtype.kind != "f" or not np.isnan(labels).any():
        return Labelled(labels, scores.weights, None)
    present = ~np.isnan(labels)
    weights = None if scores.weights is None else scores.weights[present]
    return Labelled(labels[present], weights, present)


def measure(goals: Sequence[RowGoal], scores: Scores) -> dict[str, Floats]:
    """All metrics of all goals.

    Args:
      goals: The goals, in the order of the labels.
      scores: From `score_split`.

    Returns:
      By names such as `auc/click`, one value for each preference, `[preference]`; NaN where the
      labels leave a metric undefined.
    """
    table = {}
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        rows = labelled(scores, index)
        for name, metric in goal.metrics.items():
            values = [
                metric(rows.labels, rows.of(outputs[place]), rows.weights)
                for outputs in scores.outputs
            ]
            table[f"{name}/{goal.name}"] = np.array(values, np.float64)
    return table


def loss_of_rows(
    goal: RowGoal, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None
) -> Floats:
    """The loss of each row, `[row]`, whose weighted mean is the goal's.

    Args:
      goal: The goal.
      labels: `[row]`, none missing.
      outputs: `[row, output]`.
      weights: `[row]`, at least 0; 1 each by default.
    """
    if isinstance(goal, Binary):
        return row_losses(labels > 0, outputs[:, 0])
    # NumPy arrays in, a JAX function: the losses of training, in its precision.
    rows = Rows(labels, weights=weights)
    return np.asarray(goal.row_losses(outputs, rows), np.float64)  # type: ignore[arg-type]


def mean_losses(
    goals: Sequence[RowGoal], scores: Scores, keep_rows: bool = False
) -> tuple[Floats, np.ndarray | None]:
    """The loss of each goal under each preference.

    Args:
      goals: The goals.
      scores: From `score_split`.
      keep_rows: Whether the losses of the rows are wanted, too.

    Returns:
      `[preference, goal]`, NaN without rows; and float32 `[preference, goal, row]`, 0 in rows
      without the label, or None.
    """
    shape = (len(scores.logits), len(goals))
    means = np.full(shape, np.nan)
    each = np.zeros((*shape, scores.labels.shape[1]), np.float32) if keep_rows else None
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        rows = labelled(scores, index)
        if not len(rows.labels) or (rows.weights is not None and not rows.weights.any()):
            continue
        for preference, outputs in enumerate(scores.outputs):
            losses = loss_of_rows(goal, rows.labels, rows.of(outputs[place]), rows.weights)
            means[preference, index] = np.average(losses, weights=rows.weights)
            if each is not None:
                target = slice(None) if rows.present is None else rows.present
                each[preference, index, target] = losses
    return means, each


def constant_losses(goals: Sequence[RowGoal], scores: Scores) -> Floats:
    """The loss of the best constant prediction on these very rows, `[goal]`.

    NaN where there is no label, or the labels leave nothing to predict.
    """
    losses = np.full(len(goals), np.nan)
    for index, goal in enumerate(goals):
        rows = labelled(scores, index)
        known = Statistics.of(rows.labels, rows.weights, max_points=None)
        if known.values.weight and (loss := goal.constant_loss(known)) > 0:
            losses[index] = loss
    return losses
