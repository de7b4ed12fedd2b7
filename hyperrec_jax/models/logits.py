"""Logits: from the outputs of a bank, and as logarithms of probabilities of any size."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array


def to_logits(outputs: Array, goal_outputs: Sequence[int]) -> Array:
    """The outputs of a bank's networks one after the other.

    Args:
      outputs: `[goal, ..., batch, width]`.
      goal_outputs: How many of the outputs of each network a goal has, the first ones.

    Returns:
      `[..., batch, output]`, at least float32.
    """
    if max(goal_outputs) == 1:
        logits = jnp.moveaxis(outputs[..., 0], 0, -1)
    else:
        kept = [outputs[goal, ..., :count] for goal, count in enumerate(goal_outputs)]
        logits = jnp.concatenate(kept, axis=-1)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def log_complement(log_probability: Array) -> Array:
    """`log(1 - p)` from `log p <= 0`, for any `p` in (0, 1)."""
    return jnp.log(-jnp.expm1(jnp.minimum(log_probability, -1e-30)))


def product_logits(logits: Array) -> Array:
    """Logits of the running products of probabilities along the last axis.

    Output `t` is the logit of `sigmoid(z_0) * ... * sigmoid(z_t)`, as along a funnel.
    """
    log_probability = jnp.cumsum(nn.log_sigmoid(logits), axis=-1)
    return log_probability - log_complement(log_probability)
