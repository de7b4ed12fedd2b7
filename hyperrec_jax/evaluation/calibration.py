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


def features_of(preferences: ArrayLike, degree: int) -> Floats:
    """Bernstein polynomials on the simplex: not negative, and of sum one.

    Args:
      preferences: `[..., goal]`, each of sum one.
      degree: 1 for the weights themselves, 2 for their products, which bend in between.

    Returns:
      `[..., feature]`.
    """
    weights = np.asarray(preferences, np.float64)
    if degree == 1:
        return weights
    first, second = np.triu_indices(weights.shape[-1])
    return weights[..., first] * weights[..., second] * np.where(first == second, 1, 2)


class Calibrator(NamedTuple):
    """Calibrated log-odds of goal `i` are `slope_i(r) * logit_i + intercept_i(r)`.

    Both are smooth in the preference `r`: `slope_i(r) = sum_f features_f(r) slope[f, i]`, with the
    features of `features_of`. With equal rows, they do not depend on it.

    Attributes:
      slope: `[feature, goal]`: of as many features as goals, or as products of two goals.
      intercept: `[feature, goal]`.
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
        slope, intercept = self.at(preferences)
        return np.asarray(logits, np.float64) * slope + intercept

    def at(self, preferences: ArrayLike) -> tuple[Floats, Floats]:
        """Slopes and intercepts `[..., goal]` under preferences `[..., goal]`."""
        degree = 1 if len(self.slope) == np.shape(preferences)[-1] else 2
        features = features_of(preferences, degree)
        return features @ self.slope, features @ self.intercept


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
        slope, intercept = platt(target, values[:, goal].astype(np.float64), parts)
        result.slope[:, goal], result.intercept[:, goal] = slope, intercept
    return result, tuple(left)


def platt(
    target: np.ndarray,
    logits: Floats,
    parts: Floats,
    mass: Floats | None = None,
    trust: tuple[float, float] | None = None,
) -> tuple[Floats, Floats]:
    """Slope and intercept of each feature by maximum likelihood, over all preferences together.

    Args:
      target: Labels, `[row]`, of both classes.
      logits: `[preference, row]`.
      parts: Features of the preferences, `[preference, feature]`, of sum one.
      mass: Weights of the rows, `[row]`.
      trust: Standard deviations that are thought likely for the slope around 1 and for the shift
        of the mean log-odds around 0, both as means over the preferences: a prior for few rows.
        What differs between preferences is free, since all of them are judged by the same rows.
        None for no prior.
    """
    counts = np.ones(len(target)) if mass is None else mass
    shift = float((logits @ counts).mean() / counts.sum())
    scale = max(float(np.sqrt((np.square(logits - shift) @ counts).mean() / counts.sum())), 1e-6)
    # Standardised, the Hessian is well-conditioned whatever the model's scale.
    standard = (logits - shift) / scale
    design = np.concatenate(
        [
            (parts.T[:, :, None] * standard).reshape(parts.shape[1], -1),
            np.repeat(parts.T, logits.shape[1], axis=1),
        ]
    )
    size = parts.shape[1]
    likely = np.repeat([scale, shift], size)  # slope one, no shift
    penalty = np.zeros((2 * size, 2 * size))
    if trust is not None:
        mean = np.outer(parts.mean(axis=0), parts.mean(axis=0))
        # The rows count once, not once for each preference.
        penalty[:size, :size] = mean * len(logits) / (trust[0] * scale) ** 2
        penalty[size:, size:] = mean * len(logits) / trust[1] ** 2
    weights = _logistic(
        design, np.tile(target, len(logits)), np.tile(counts, len(logits)), penalty, likely
    )
    slope = weights[: parts.shape[1]] / scale
    return slope, weights[parts.shape[1] :] - slope * shift


def _logistic(
    design: Floats, target: np.ndarray, mass: Floats, penalty: Floats, likely: Floats
) -> Floats:
    """Logistic regression by Newton steps with halving: `[feature, row]` to `[feature]`.

    To the sum of the losses is added `(w - likely) penalty (w - likely) / 2`.
    """
    sign = np.where(target > 0, -1.0, 1.0)
    total = mass.sum()

    def loss(weights: Floats) -> float:
        away = weights - likely
        told = np.logaddexp(0, sign * (weights @ design)) @ mass + away @ penalty @ away / 2
        return float(told / total)

    rate = (target > 0) @ mass / total
    weights = np.zeros(len(design))
    weights[len(design) // 2 :] = np.log(rate / (1 - rate))
    best = loss(weights)
    for _ in range(NEWTON_STEPS):
        probability = np.exp(-np.logaddexp(0, -(weights @ design)))
        gradient = design @ (mass * (probability - (target > 0)))
        gradient = (gradient + penalty @ (weights - likely)) / total
        curvature = (design * (mass * probability * (1 - probability))) @ design.T
        curvature = (curvature + penalty) / total
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(design)), gradient)
        size = 1.0
        while (now := loss(weights - size * step)) > best and size > 1e-6:
            size /= 2
        if now > best - 1e-12:
            break
        weights, best = weights - size * step, now
    return weights
