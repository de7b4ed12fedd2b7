"""An objective of one's own in one file: the weighted power mean of the losses.

    hyperrec train --import examples/custom_objective.py --config configs/synthetic.py \
        --config.objective.name=power_mean --config.objective.exponent=4
    hyperrec options objective power_mean --import examples/custom_objective.py

A scalarisation is a function of the losses and a preference; its options are its keyword-only
parameters: the default, type and range of each stand here and nowhere else.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from hyperrec_jax.options import Range
from hyperrec_jax.preference.objectives import register, scalarised


@register("power_mean", scalarised())
def power_mean(
    losses: jax.Array,
    preference: jax.Array,
    *,
    exponent: Annotated[float, Range("[1, inf)")] = 2.0,
) -> jax.Array:
    """`(sum_i (r_i l_i)^p)^(1/p)`: linear for p = 1, and towards `chebyshev` as p grows.

    The weighted exponential sum of Yu 1973 (doi 10.1287/mnsc.19.8.936).

    Args:
      losses: Losses, `[goal]`, not negative.
      preference: Weights, `[goal]`.
      exponent: The power p.
    """
    weighted = jnp.maximum(preference * losses, 1e-12)
    return (weighted**exponent).sum() ** (1 / exponent)
