"""One encoding of the rows, decoded for any number of preferences: how models are asked."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from hyperrec_jax.models.base import Batch, MultiTaskModel


def encode(model: MultiTaskModel, variables: Mapping[str, Any], batch: Batch) -> Any:
    """All that does not depend on the preference, such as the experts' outputs; jit-able.

    Args:
      model: The model.
      variables: Its parameters and batch norm statistics.
      batch: The rows.
    """
    return model.apply(variables, batch, False, method="encode")


def decode(
    model: MultiTaskModel, variables: Mapping[str, Any], features: Any, preferences: jax.Array
) -> jax.Array:
    """The outputs of all rows under each preference; jit-able.

    Args:
      model: The model.
      variables: Its parameters and batch norm statistics.
      features: From `encode`.
      preferences: `[preference, goal]`, one at least.

    Returns:
      float32 `[preference, row, output]`; the first axis has length 1 where the model ignores the
      preference.
    """
    if not model.conditioned:
        one = model.apply(variables, features, preferences[0], False, method="decode")
        return cast(jax.Array, one).astype(jnp.float32)[None]
    several = model.apply(variables, features, preferences[:, None, :], False, method="decode")
    return cast(jax.Array, several).astype(jnp.float32)
