"""Dropout that draws one random byte for each unit."""

import jax
import jax.numpy as jnp
from flax.typing import Array
from jax import lax


def dropout(key: Array, x: Array, rate: float) -> Array:
    """Drops units with a probability of `rate`, in steps of 1/256, and scales up the others.

    One random byte a unit against a threshold: a 32-bit word serves four units. The scale is the
    inverse of the kept fraction itself, so that the expectation is `x` for any rate.
    """
    kept = max(256 - round(256 * rate), 1)
    if kept == 256:
        return x
    *lead, width = x.shape
    words = jax.random.bits(key, (*lead, -(-width // 4)), jnp.uint32)
    random_bytes = lax.bitcast_convert_type(words, jnp.uint8).reshape(*lead, -1)[..., :width]
    return jnp.where(random_bytes < kept, x * (256 / kept), 0).astype(x.dtype)
