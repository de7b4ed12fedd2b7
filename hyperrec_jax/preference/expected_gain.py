"""One score for a row that serves all goals: the gain that a preference expects of it.

Why this formula. A goal's value of a list is a sum over its rows of the gain of each, discounted by
its rank (DCG, expected clicks, expected revenue). A preference adds the goals up with its weights,
each divided by a scale that makes them comparable. The expected value of an order is then the sum
of `discount(rank) * sum_i w_i E[gain_i | x] / scale_i`, and by the rearrangement inequality no
order has a larger one than that by descending `sum_i w_i E[gain_i | x] / scale_i`. So for gains
that add up, a weighted *sum of expectations* is the optimal score (Bayes), given what is known of
the rows. A sum of log-odds and a product of powers are other orders, and worse where goals differ
in how often they happen.

What a trained score can do beyond it: the expectations are estimates, and those that serve the top
of a list best are not those of the smallest cross-entropy. Therefore the structured score is the
logarithm of the formula, `log sum_i w_i p_i(x, w) / scale_i`: list losses train it end to end, and
before they do, it *is* the formula. The logarithm changes no order and gives the losses a scale on
which differences are ratios of gains.

All functions take NumPy or JAX arrays, and return what they were given. A preference has one of
the forms that a model takes: `[goal]` for all rows, `[preference, 1, goal]` for rows under each of
several preferences, or `[row, goal]`, one per row.
"""

from types import ModuleType
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.errors import UserError

Array = TypeVar("Array", np.ndarray, jax.Array)


def expected_gain(expectations: Array, preferences: Array, scales: Array) -> Array:
    """The gain that a preference expects of each row: `sum_i w_i E_i / scale_i`.

    Args:
      expectations: Expected gain of each goal, such as a calibrated probability or an amount, at
        least 0: `[..., row, goal]`.
      preferences: Weights of the goals, at least 0, in a form that broadcasts to `expectations`.
      scales: What counts as much of each goal as one of another, above 0: `[goal]`; see
        `gain_scales`.

    Returns:
      `[..., row]`.
    """
    return (preferences * (expectations / scales)).sum(-1)


def structured_score(logits: Array, preferences: Array, scales: Array) -> Array:
    """Logarithm of the expected gain of probabilities: `log sum_i w_i sigmoid(z_i) / scale_i`.

    The same order as `expected_gain(sigmoid(logits), ...)`, without its underflow.

    Args:
      logits: Log-odds of each goal, `[..., row, goal]`.
      preferences: Weights of the goals, at least 0 and one of them above, in a form that broadcasts
        to `logits`.
      scales: Above 0, `[goal]`.

    Returns:
      `[..., row]`, finite with finite gradients for all finite logits. A goal of weight 0 takes no
      part: its logits have gradient 0.
    """
    xp = _namespace(logits, preferences)
    # log(sigmoid(z)), stable on both sides.
    return log_expected_gain(-xp.logaddexp(0, -logits), preferences, scales)


ListFusion = Literal["expected_gain", "log_odds"]


def list_score(
    logits: Array, preferences: Array, scales: Array, fusion: ListFusion = "expected_gain"
) -> Array:
    """What lists are trained by: the structured score, or the weighted sum of the log-odds.

    Args:
      logits: Log-odds of each goal, `[..., row, goal]`.
      preferences: As for `structured_score`.
      scales: As for `structured_score`; the sum of log-odds has none.
      fusion: Which of them.

    Returns:
      `[..., row]`.
    """
    if fusion == "log_odds":
        return (preferences * logits).sum(-1)
    return structured_score(logits, preferences, scales)


def log_expected_gain(log_expectations: Array, preferences: Array, scales: Array) -> Array:
    """Logarithm of the expected gain, from logarithms of the expectations.

    Args:
      log_expectations: Finite, `[..., row, goal]`.
      preferences: Weights of the goals, at least 0 and one of them above, in a form that broadcasts
        to `log_expectations`.
      scales: Above 0, `[goal]`.

    Returns:
      `[..., row]`, finite with finite gradients.
    """
    xp = _namespace(log_expectations, preferences)
    terms = log_expectations - xp.log(scales)
    weights, terms = xp.broadcast_arrays(preferences, terms)
    # The largest term that counts becomes exp(0). Others are replaced before the exponential and
    # not after it: infinity times a weight of 0 is NaN, in the value and in the gradient.
    counts = weights > 0
    largest = xp.where(counts, terms, -xp.inf).max(-1, keepdims=True)
    if xp is jnp:
        largest = jax.lax.stop_gradient(largest)
    relative = xp.exp(xp.where(counts, terms - largest, 0))
    return xp.log((weights * relative).sum(-1)) + largest[..., 0]


def gain_scales(expectations: np.ndarray, goals: tuple[str, ...]) -> np.ndarray:
    """The scale of each goal: the mean of its expectations over rows, such as those of validation.

    A row of average expectation then counts as much for one goal as for another.

    Args:
      expectations: `[..., row, goal]`; the mean is over all axes but the last.
      goals: Their names, for the message of an error.

    Returns:
      Above 0, f32 `[goal]`.

    Raises:
      UserError: the model expects nothing at all of a goal.
    """
    means = expectations.astype(np.float64).reshape(-1, expectations.shape[-1]).mean(axis=0)
    for goal, mean in zip(goals, means, strict=True):
        if not 0 < mean < np.inf:
            raise UserError(
                f"goal {goal}: the mean of its expected gains over the rows is {mean:.4g}, so that "
                "they have no scale in a list; it needs rows with a gain above 0"
            )
    return means.astype(np.float32)


def _namespace(*arrays: np.ndarray | jax.Array) -> ModuleType:
    """`jax.numpy` where one of the arrays is JAX's, `numpy` elsewhere."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np
