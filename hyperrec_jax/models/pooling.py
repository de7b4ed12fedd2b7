"""The vectors of a row's values become one: mean, sum, attention, attention to a target.

Rows have different numbers of values and are padded to one: a mask says which are there. What
stands in the place of the others changes nothing, and a row without any value gives zeros.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.initialisers import fan_in_uniform

HIDDEN = (64, 16)
"""Widths of the hidden layers by which `TargetAttention` compares a value with the target."""


def pool_weights(mask: Array, pooling: str, dtype: str) -> Array:
    """What the vectors of a row are multiplied with for their sum or mean: `[row, value]`.

    Args:
      mask: Which values are there, bool `[row, value]`.
      pooling: `mean` or `sum`.
      dtype: Type of the result.
    """
    weights = mask.astype(dtype)
    if pooling == "mean":
        weights /= jnp.maximum(weights.sum(axis=1, keepdims=True), 1)
    return weights


def weighted_sum(weights: Array, vectors: Array) -> Array:
    """`[row, value]` and `[row, value, dim]` to `[row, dim]`."""
    return jnp.einsum("rv,rvd->rd", weights, vectors)


class Attention(nn.Module):
    """Weighs values by a softmax of `query . tanh(W x + b)` (Ilse et al. 2018, arXiv 1802.04712).

    Attributes:
      dtype: Type of the result.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, vectors: Array, mask: Array) -> Array:
        """Pools vectors `[row, value, dim]` to `[row, dim]`.

        Args:
          vectors: The values.
          mask: Which of them are there, bool `[row, value]`.
        """
        dim = vectors.shape[-1]
        init = fan_in_uniform(dim)
        kernel = self.param("kernel", init, (dim, dim)).astype(self.dtype)
        bias = self.param("bias", init, (dim,)).astype(self.dtype)
        query = self.param("query", init, (dim,)).astype(self.dtype)
        scores = jnp.tanh(vectors @ kernel + bias) @ query
        # Rows without a value have no softmax; they get weights of 0 below.
        highest = jnp.where(mask, scores, -jnp.inf).max(1, keepdims=True, initial=-jnp.inf)
        highest = jnp.where(jnp.isfinite(highest), highest, 0)
        powers = jnp.where(mask, jnp.exp(jnp.where(mask, scores - highest, 0)), 0)
        total = jnp.maximum(powers.sum(axis=1, keepdims=True), 1e-12)
        return weighted_sum(powers / total, vectors)


class TargetAttention(nn.Module):
    """Weighs the values of a history by how they go with a target (DIN: Zhou et al. 2018,
    arXiv 1706.06978).

    A small network reads value, target, their difference and their product, and its output is the
    weight; as in the paper the weights do not sum to one, so that many values that go with the
    target say more than one. Its activation is a PReLU.

    Attributes:
      widths: Widths of its hidden layers.
      dtype: Type of the result.
    """

    widths: tuple[int, ...] = HIDDEN
    dtype: str = "float32"

    @nn.compact
    def __call__(self, vectors: Array, target: Array, mask: Array) -> Array:
        """Pools vectors `[row, value, dim]` to `[row, dim]`.

        Args:
          vectors: The values.
          target: What they are compared with, `[row, dim]`.
          mask: Which values are there, bool `[row, value]`.
        """
        dim = vectors.shape[-1]
        kernel, bias = self._layer(0, 4 * dim, self.widths[0])
        of_value, of_target, of_difference, of_product = jnp.split(kernel, 4)
        # [v, t, v - t, v * t] @ kernel without the four side by side.
        x = vectors @ (of_value + of_difference) + (vectors * target[:, None]) @ of_product
        x += (target @ (of_target - of_difference) + bias)[:, None]
        for index, width in enumerate((*self.widths[1:], 1), start=1):
            slope = self.param(f"slope_{index - 1}", nn.initializers.constant(0.25), x.shape[-1:])
            x = jnp.where(x > 0, x, slope.astype(self.dtype) * x)
            kernel, bias = self._layer(index, x.shape[-1], width)
            x = x @ kernel + bias
        return weighted_sum(jnp.where(mask, x[..., 0], 0), vectors)

    def _layer(self, index: int, inputs: int, outputs: int) -> tuple[Array, Array]:
        init = fan_in_uniform(inputs)
        kernel = self.param(f"kernel_{index}", init, (inputs, outputs))
        bias = self.param(f"bias_{index}", init, (outputs,))
        return kernel.astype(self.dtype), bias.astype(self.dtype)
