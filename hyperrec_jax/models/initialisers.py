"""First values of parameters."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Array


def fan_in_uniform(fan_in: int) -> Callable[..., Array]:
    """Initialiser `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`, that of `torch.nn.Linear`."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
