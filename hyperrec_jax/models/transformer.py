"""A history read by one transformer block, with the target as its last token."""

import math

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.initialisers import fan_in_uniform
from hyperrec_jax.models.norms import layer_norm

HEADS = (4, 2, 1)
"""Numbers of attention heads; the first that divides the width is taken."""

HIDDEN = 2
"""Width of the feed-forward layer as a multiple of the width of a value."""


class Transformer(nn.Module):
    """Pools a history by self-attention among its values (BST: Chen et al. 2019, arXiv 1905.06874).

    Each value takes a learned vector of its position along, counted from the newest, so that
    histories of different lengths are read alike. One block follows, as that of Vaswani et al.
    2017 (arXiv 1706.03762): attention, then a feed-forward layer, each added to what it read and
    normalised. The target is the last token, and the result is what the block makes of it; without
    a target it is what the block makes of the newest value.

    Attributes:
      dtype: Type of the result.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, vectors: Array, mask: Array, target: Array | None = None) -> Array:
        """Pools vectors `[row, value, dim]`, the newest last, to `[row, dim]`.

        Args:
          vectors: The values; a row's own come first, then its padding.
          mask: Which of them are there, bool `[row, value]`.
          target: What they are read for, `[row, dim]`; the newest value by default.

        Returns:
          Zeros in rows without a value.
        """
        count, length, dim = vectors.shape
        init = nn.initializers.normal(0.02)
        positions = self.param("positions", init, (length, dim)).astype(self.dtype)
        lengths = mask.sum(axis=1, keepdims=True)
        age = jnp.clip(lengths - 1 - jnp.arange(length), 0, length - 1)
        tokens = vectors + positions[age]
        if target is None:
            newest = jnp.maximum(lengths - 1, 0)
            asked = jnp.take_along_axis(tokens, newest[..., None], axis=1)
        else:
            # The target's place is learned, too.
            place = self.param("target_position", init, (dim,)).astype(self.dtype)
            asked = target[:, None] + place
            tokens = jnp.concatenate([tokens, asked], axis=1)
            mask = jnp.concatenate([mask, jnp.ones((count, 1), bool)], axis=1)
        # Only the last token is read: no other needs a query, or a feed-forward layer.
        x = self._normalised("attention_norm", asked + self._attend(asked, tokens, mask))
        hidden = nn.relu(self._dense("hidden", x, HIDDEN * dim))
        x = self._normalised("output_norm", x + self._dense("output", hidden, dim))
        return jnp.where(lengths > 0, x[:, 0], 0)

    def _attend(self, asked: Array, tokens: Array, mask: Array) -> Array:
        """Multi-head attention of one query for each row, `[row, 1, dim]`."""
        dim = asked.shape[-1]
        heads = next(heads for heads in HEADS if dim % heads == 0)

        def in_heads(x: Array) -> Array:
            return x.reshape(*x.shape[:-1], heads, dim // heads)

        query = in_heads(self._dense("query", asked, dim))
        key = in_heads(self._dense("key", tokens, dim))
        value = in_heads(self._dense("value", tokens, dim))
        scores = jnp.einsum("rqhd,rvhd->rhqv", query, key) / math.sqrt(dim // heads)
        # A large number and not infinity: a row without any value has a softmax, too.
        weights = nn.softmax(jnp.where(mask[:, None, None], scores, -1e9))
        mixed = jnp.einsum("rhqv,rvhd->rqhd", weights, value).reshape(asked.shape)
        return self._dense("projection", mixed, dim)

    def _dense(self, name: str, x: Array, out: int) -> Array:
        init = fan_in_uniform(x.shape[-1])
        kernel = self.param(f"{name}_kernel", init, (x.shape[-1], out)).astype(self.dtype)
        return x @ kernel + self.param(f"{name}_bias", init, (out,)).astype(self.dtype)

    def _normalised(self, name: str, x: Array) -> Array:
        scale = self.param(f"{name}_scale", nn.initializers.ones, x.shape[-1:])
        shift = self.param(f"{name}_shift", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, shift)
