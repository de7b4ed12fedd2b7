"""Ranking under a preference: one list for each search that serves all tasks.

A click model and a conversion model order the rows of a search differently, but the user sees one
list. The list by a weighted sum of the tasks' log-odds, with the preference as weights, moves from
one task's order to the other's: a true conflict, whatever the models share.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.grouped import GroupRanking

Floats = NDArray[np.float64]


class Calibrator(NamedTuple):
    """Platt scaling of each task: calibrated log-odds are `slope * logits + intercept`.

    Attributes:
      slope: `[task]`; 1 leaves the logits as they are.
      intercept: `[task]`.
    """

    slope: Floats
    intercept: Floats

    def apply(self, logits: ArrayLike) -> NDArray[np.float32]:
        """Calibrated log-odds of logits `[..., task, row]`, in float32."""
        values = np.asarray(logits, np.float32)
        slope, intercept = (x.astype(np.float32)[:, None] for x in self)
        return values * slope + intercept


def fit_calibrator(
    labels: ArrayLike, logits: ArrayLike, iterations: int = 50, goals: Sequence[str] = ()
) -> Calibrator:
    """Fits Platt scaling (Platt 1999) by maximum likelihood, on rows not used for training.

    Newton steps with halving; two parameters for each task, so that thousands of rows are plenty.

    Args:
      labels: 0 or 1, `[task, row]`.
      logits: `[task, row]`.
      iterations: Upper limit of the Newton steps.
      goals: Their names, for messages.

    Raises:
      UserError: a task has labels of one class only.
    """
    truth, values = np.asarray(labels, np.float64), np.asarray(logits, np.float64)
    if truth.ndim != 2 or truth.shape != values.shape:
        raise ValueError(f"labels {truth.shape} and logits {values.shape} must be [task, row]")
    fits = []
    for task, (target, x) in enumerate(zip(truth, values, strict=True)):
        if not 0 < target.mean() < 1:
            raise UserError(
                f"goal {goals[task] if goals else task} has labels of one class only, which cannot "
                "be calibrated; take a larger validation split"
            )
        fits.append(_platt(target, x, iterations))
    slope, intercept = np.array(fits).T
    return Calibrator(slope, intercept)


def _platt(target: Floats, logits: Floats, iterations: int) -> Floats:
    scale = max(float(logits.std()), 1e-6)
    shift = float(logits.mean())
    # Standardised, the Hessian is well-conditioned whatever the model's scale.
    design = np.stack([(logits - shift) / scale, np.ones_like(logits)])
    margin_sign = np.where(target > 0, -1.0, 1.0)

    def loss(parameters: Floats) -> float:
        return float(np.logaddexp(0, margin_sign * (parameters @ design)).mean())

    rate = target.mean()
    parameters = np.array([0.0, np.log(rate / (1 - rate))])
    best = loss(parameters)
    for _ in range(iterations):
        probability = np.exp(-np.logaddexp(0, -(parameters @ design)))
        slope = design @ (probability - target) / len(target)
        curvature = (design * (probability * (1 - probability))) @ design.T / len(target)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), slope)
        size = 1.0
        while (now := loss(parameters - size * step)) > best and size > 1e-6:
            size /= 2
        if now > best - 1e-12:
            break
        parameters, best = parameters - size * step, now
    slope_out = parameters[0] / scale
    return np.array([slope_out, parameters[1] - slope_out * shift])


def fused_score(logits: ArrayLike, preference: ArrayLike) -> NDArray[np.float32]:
    """One score for each row, for all tasks: `sum_i r_i logit_i`.

    The logarithm of a product of odds with the weights as exponents, as ranking teams tune by hand
    (for example `ctr^a * cvr^b`).

    Args:
      logits: Calibrated log-odds, `[..., task, row]`.
      preference: `[..., task]`.

    Returns:
      `[..., row]`.
    """
    values = np.asarray(logits, np.float32)
    weights = np.asarray(preference, np.float32)
    if values.shape[:-1] != weights.shape:
        raise ValueError(
            f"logits {values.shape} must be [..., task, row] for preferences {weights.shape}"
        )
    return (weights[..., None, :] @ values)[..., 0, :]


class RankingFront(NamedTuple):
    """Quality of the fused list for each task, under each preference.

    Attributes:
      preferences: `[preference, task]`.
      ndcg: Mean over searches of NDCG at `k`, `[preference, task]`.
      average_precision: Mean over searches (MAP), `[preference, task]`.
      grouped_auc: Mean over searches, weighted by rows, `[preference, task]`.
      groups: Searches that count, since they hold both classes of the task's labels, `[task]`.
      skipped: The other searches, `[task]`.
      k: Number of ranks that count for NDCG.
    """

    preferences: Floats
    ndcg: Floats
    average_precision: Floats
    grouped_auc: Floats
    groups: NDArray[np.int64]
    skipped: NDArray[np.int64]
    k: int


def ranking_front(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    preferences: ArrayLike,
    k: int = 10,
) -> RankingFront:
    """Ranks every search under every preference, and measures the list by every task's labels.

    Args:
      labels: 0 or 1, `[task, row]`.
      scores: One score for each row, for all tasks, under each preference, `[preference, row]`.
      groups: The search of each row, `[row]`.
      preferences: `[preference, task]`.
      k: Number of ranks that count for NDCG.
    """
    truth, values = np.asarray(labels), np.asarray(scores)
    weights = np.asarray(preferences, np.float64)
    if truth.ndim != 2 or values.shape != (len(weights), truth.shape[1]):
        raise ValueError(
            f"labels {truth.shape} must be [task, row], scores {values.shape} "
            f"[preference, row] for {len(weights)} preferences"
        )
    shape = (len(weights), len(truth))
    ndcg, precision, areas = np.empty(shape), np.empty(shape), np.empty(shape)
    counted, skipped = np.zeros(len(truth), np.int64), np.zeros(len(truth), np.int64)
    for index, score in enumerate(values):
        ranking = GroupRanking(score, groups)
        for task, target in enumerate(truth):
            result = ranking.auc(target)
            areas[index, task] = result.value
            ndcg[index, task] = ranking.ndcg(target, k).value
            precision[index, task] = ranking.average_precision(target).value
            counted[task], skipped[task] = result.groups, result.skipped
    return RankingFront(weights, ndcg, precision, areas, counted, skipped, k)
