"""The losses of all goals of a batch at once, from the outputs that stand one after the other."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hyperrec_jax.goals.base import RowGoal, Rows
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.fairness import Fairness
from hyperrec_jax.goals.statistics import masked_mean


def output_slices(goals: Sequence[RowGoal]) -> list[slice]:
    """Where the outputs that each goal reads stand among those of all goals.

    A goal without outputs of its own reads those of another.
    """
    ends = np.cumsum([goal.outputs for goal in goals]).tolist()
    places = [slice(end - goal.outputs, end) for goal, end in zip(goals, ends, strict=True)]
    names = [goal.name for goal in goals]
    return [
        places[names.index(goal.of)] if isinstance(goal, Fairness) else place
        for goal, place in zip(goals, places, strict=True)
    ]


def predict_all(goals: Sequence[RowGoal], outputs: Any) -> Any:
    """What users read of each goal: probabilities, amounts, rates.

    Args:
      goals: The goals.
      outputs: `[..., row, output]`, JAX or NumPy.

    Returns:
      `[..., row, goal]`; see `Goal.predict`.
    """
    library = jnp if isinstance(outputs, jax.Array) else np
    each = [
        goal.predict(outputs[..., place])
        for goal, place in zip(goals, output_slices(goals), strict=True)
    ]
    return library.stack(each, axis=-1)


def batch_losses(
    goals: Sequence[RowGoal],
    outputs: jax.Array,
    labels: jax.Array,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The mean loss of each goal over the rows that have its label.

    Args:
      goals: The goals.
      outputs: The model's, `[..., row, output]`; the leading axes are preferences.
      labels: `[row, goal]`; integers, or float with NaN for a missing label.
      weights: `[row]`, at least 0; 1 each by default.

    Returns:
      `[..., goal]`, float32; 0 where no row has the label.
    """
    losses = _losses(goals, outputs, labels, weights)
    shares = _shares(labels, weights)
    if shares is None:
        return losses.mean(axis=-2)
    return masked_mean(losses.swapaxes(-1, -2), shares.T > 0, shares.T)


def row_losses(
    goals: Sequence[RowGoal],
    outputs: jax.Array,
    labels: jax.Array,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The loss of each goal in each row, scaled so that the mean over rows is `batch_losses`.

    Args:
      goals: The goals.
      outputs: `[row, output]`, each row under a preference of its own.
      labels: As for `batch_losses`.
      weights: As for `batch_losses`.

    Returns:
      `[row, goal]`, float32; 0 in rows without the label.
    """
    losses = _losses(goals, outputs, labels, weights)
    shares = _shares(labels, weights)
    if shares is None:
        return losses
    mean = shares.mean(axis=0)
    return losses * shares / jnp.where(mean > 0, mean, 1)


def _losses(
    goals: Sequence[RowGoal], outputs: jax.Array, labels: jax.Array, weights: ArrayLike | None
) -> jax.Array:
    """Loss of each row, 0 without a label: `[..., row, goal]`."""
    whole = jnp.issubdtype(labels.dtype, jnp.integer)
    if all(isinstance(goal, Binary) for goal in goals):
        # All logits at once: binary goals differ in what is predicted, not in the loss.
        mask = None if whole else ~jnp.isnan(labels)
        return goals[0].row_losses(outputs[..., None], Rows(labels, mask))
    each = []
    for goal, place, column in zip(goals, output_slices(goals), labels.T, strict=True):
        rows = Rows(column, None if whole else ~jnp.isnan(column), weights)
        each.append(goal.row_losses(outputs[..., place], rows))
    return jnp.stack(each, axis=-1)


def _shares(labels: jax.Array, weights: ArrayLike | None) -> jax.Array | None:
    """How much each row counts for each goal, `[row, goal]`; None where all count the same."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        if weights is None:
            return None
        return jnp.broadcast_to(jnp.asarray(weights)[:, None], labels.shape)
    present = ~jnp.isnan(labels)
    return jnp.where(present, 1.0 if weights is None else jnp.asarray(weights)[:, None], 0.0)
