"""Calibration of log-odds by rows that a model was not trained on (Platt 1999).

A list adds the goals' predictions up, so that each must mean what it says. The slope and the
intercept of a goal may depend on the preference that the model was asked under: a model gives a
goal of little weight less attention, and its predictions are then less sure.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NEWTON_STEPS = 50


class Calibrator(NamedTuple):
    """Calibrated log-odds of goal `i` are `slope_i(r) * logit_i + intercept_i(r)`.

    Both are linear in the preference `r`, whose weights sum to one: `slope_i(r) = sum_j r_j
    slope[j, i]`. With equal rows, they do not depend on it.

    Attributes:
      slope: `[goal, goal]`: by the weight, then by the goal that is calibrated.
      intercept: `[goal, goal]`.
    """

    slope: Floats
    intercept: Floats

    def apply(self, logits: ArrayLike, preferences: ArrayLike) -> Floats:
        """Calibrated log-odds.

        Args:
          logits: `[..., row, goal]`.
          preferences: Weights of the goals that sum to one, `[goal]`, or with more axes as they
            broadcast to `logits`.

        Returns:
          `[..., row, goal]`.
        """
        weights = np.asarray(preferences, np.float64)
        return np.asarray(logits, np.float64) * (weights @ self.slope) + weights @ self.intercept


def identity_calibrator(num_goals: int) -> Calibrator:
    """Leaves log-odds as they are."""
    return Calibrator(np.ones((num_goals, num_goals)), np.zeros((num_goals, num_goals)))


def fit_calibrator(
    labels: ArrayLike, logits: ArrayLike, preferences: ArrayLike
) -> tuple[Calibrator, tuple[int, ...]]:
    """Fits slopes and intercepts by maximum likelihood, over all preferences together.

    Args:
      labels: 0 or 1, `[goal, row]`.
      logits: The same rows under each of some preferences, `[preference, goal, row]`.
      preferences: `[preference, goal]`. Under one preference, slope and intercept are those of
        plain Platt scaling and hold for every preference.

    Returns:
      The calibrator, and the goals (by number) that have labels of one class only: nothing can be
      fitted to those, and their log-odds stay as they are.
    """
    truth, values = np.asarray(labels), np.asarray(logits)
    weights = np.asarray(preferences, np.float64)
    if values.shape != (len(weights), *truth.shape) or weights.shape[1:] != truth.shape[:1]:
        raise ValueError(
            f"labels {truth.shape} must be [goal, row], logits {values.shape} and preferences "
            f"{weights.shape} [preference, goal, row] and [preference, goal]"
        )
    num_goals = len(truth)
    # Fewer preferences than goals can't tell one slope for each weight: one then serves for all.
    parts = weights if len(weights) >= num_goals > 1 else np.ones((len(weights), 1))
    result, left = identity_calibrator(num_goals), []
    for goal, target in enumerate(truth):
        if not 0 < target.mean() < 1:
            left.append(goal)
            continue
        slope, intercept = _fit(target, values[:, goal].astype(np.float64), parts)
        result.slope[:, goal], result.intercept[:, goal] = slope, intercept
    return result, tuple(left)


def _fit(target: np.ndarray, logits: Floats, parts: Floats) -> tuple[Floats, Floats]:
    """Slope and intercept for each part, from logits `[preference, row]`."""
    shift, scale = float(logits.mean()), max(float(logits.std()), 1e-6)
    # Standardised, the Hessian is well-conditioned whatever the model's scale.
    standard = (logits - shift) / scale
    design = np.concatenate(
        [
            (parts.T[:, :, None] * standard).reshape(parts.shape[1], -1),
            np.repeat(parts.T, logits.shape[1], axis=1),
        ]
    )
    weights = _logistic(design, np.tile(target, len(logits)))
    slope = weights[: parts.shape[1]] / scale
    return slope, weights[parts.shape[1] :] - slope * shift


def _logistic(design: Floats, target: np.ndarray) -> Floats:
    """Logistic regression by Newton steps with halving: `[feature, row]` to `[feature]`."""
    sign = np.where(target > 0, -1.0, 1.0)

    def loss(weights: Floats) -> float:
        return float(np.logaddexp(0, sign * (weights @ design)).mean())

    rate = target.mean()
    weights = np.zeros(len(design))
    weights[len(design) // 2 :] = np.log(rate / (1 - rate))
    best = loss(weights)
    for _ in range(NEWTON_STEPS):
        probability = np.exp(-np.logaddexp(0, -(weights @ design)))
        gradient = design @ (probability - target) / len(target)
        curvature = (design * (probability * (1 - probability))) @ design.T / len(target)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(design)), gradient)
        size = 1.0
        while (now := loss(weights - size * step)) > best and size > 1e-6:
            size /= 2
        if now > best - 1e-12:
            break
        weights, best = weights - size * step, now
    return weights
