"""Penalties that any objective that follows a preference can carry.

They take normalised losses and preferences to one number that is added to the objective, and are
meant to be small: `order_penalty` against losses that rise with their weight, `coverage_penalty`
against losses that stray from `1 / r`.
"""

import jax
import jax.numpy as jnp

from hyperrec_jax.errors import UserError

Array = jax.Array


def order_penalty(losses: Array, preferences: Array, sharpness: float = 10.0) -> Array:
    """Punishes a goal's loss for rising where its weight rises.

    `sum_i 1/T log mean_k exp(T relu(l_i(k) - l_i(k + 1)))` over neighbours in the order of
    descending `r_i`, of different weight; T the sharpness. After Pareto Manifold Learning
    (Dimitriadis et al. 2023, PMLR 202), scaled to units of loss.

    Args:
      losses: `[preference, goal]`, two preferences at least.
      preferences: `[preference, goal]`.
      sharpness: Makes the mean over neighbours one over the worst of them.

    Raises:
      UserError: there is one preference only.
    """
    if len(preferences) < 2:
        raise UserError(
            "the order penalty compares preferences: it needs several per batch, for example "
            "train.preferences=8"
        )
    order = jnp.argsort(-preferences, axis=0)
    weights = jnp.take_along_axis(preferences, order, axis=0)
    values = jnp.take_along_axis(losses, order, axis=0)
    ordered = weights[:-1] > weights[1:]
    rise = jnp.where(ordered, jax.nn.relu(values[:-1] - values[1:]), 0.0)
    pairs = len(preferences) - 1
    return ((jax.nn.logsumexp(sharpness * rise, axis=0) - jnp.log(pairs)) / sharpness).sum()


def coverage_penalty(losses: Array, preference: Array) -> Array:
    """`KL(uniform || softmax(s))` of the shares `s_i = r_i l_i / sum_j r_j l_j`.

    Zero where all `r_i l_i` are equal. The approximate EPO term of MultiTRON (Wilm et al. 2024,
    arXiv 2407.16828).

    Args:
      losses: `[goal]`.
      preference: `[goal]`.
    """
    weighted = preference * losses
    shares = weighted / jnp.maximum(weighted.sum(), 1e-6)
    return -jax.nn.log_softmax(shares).mean() - jnp.log(len(losses))
