"""Fields of several values in a row: one vector each, beside those of ids and numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.data.inputs import Inputs, Lookup, PooledIds
from hyperrec_jax.models.initialisers import fan_in_uniform
from hyperrec_jax.models.pooling import Attention, TargetAttention, pool_weights, weighted_sum
from hyperrec_jax.models.tables import Place
from hyperrec_jax.models.transformer import Transformer
from hyperrec_jax.parallel.exchange import Exchange, gather_rows


class Folded(NamedTuple):
    """A vector as the product of a block `[batch, size]` and a table `[size, dim]`."""

    block: Array
    table: Array


class SeveralValues(nn.Module):
    """The vectors of columns that share a table, of sets and sequences, and of vector fields.

    Attributes:
      inputs: Where they are.
      field_sizes: Number of ids of each table.
      vector_widths: Width of the vector that each vector field becomes.
      dtype: Type of the result.
      exchange: As in `FeatureEmbedding`.
    """

    inputs: Inputs
    field_sizes: tuple[int, ...]
    vector_widths: tuple[int, ...]
    dtype: str = "float32"
    exchange: Exchange | None = None

    @nn.compact
    def __call__(
        self,
        batch: Mapping[str, Array],
        places: Sequence[Place],
        folds: Callable[[int, int], bool],
    ) -> list[Folded | Array]:
        """One vector for each field, `[batch, width]`, or the two sides of its product.

        Args:
          batch: The rows.
          places: Where the rows of each vocabulary are.
          folds: Whether a table of so many rows and columns is multiplied in folded form.
        """

        def rows_of(lookup: Lookup) -> Array:
            ids = batch["categorical"][:, lookup.column].astype(jnp.int32)
            table, start = places[lookup.table]
            return gather_rows(table, ids + start, self.exchange)

        vectors: list[Folded | Array] = [rows_of(lookup) for lookup in self.inputs.shared]
        first = 0
        for index, field in enumerate(self.inputs.pooled):
            ids = batch["multivalued"][:, first : first + field.length].astype(jnp.int32)
            target = rows_of(field.target) if field.target else None
            vectors.append(self._pooled(index, field, ids, places[field.table], target, folds))
            first += field.length
        first = 0
        for index, width in enumerate(self.inputs.vectors):
            numbers = batch["vectors"][:, first : first + width].astype(self.dtype)
            vectors.append(self._projected(index, numbers, folds))
            first += width
        return vectors

    def _pooled(
        self,
        index: int,
        field: PooledIds,
        ids: Array,
        place: Place,
        target: Array | None,
        folds: Callable[[int, int], bool],
    ) -> Folded | Array:
        mask = ids >= 0
        table, start = place
        if field.pooling in ("mean", "sum"):
            weights = pool_weights(mask, field.pooling, self.dtype)
            size = self.field_sizes[field.table]
            if folds(size, table.shape[1]):
                # Of padding, -1, the indicator is zero.
                indicators = jax.nn.one_hot(ids, size, dtype=self.dtype)
                block = (weights[..., None] * indicators).sum(axis=1)
                return Folded(block, table[start : start + size])
        vectors = gather_rows(table, jnp.where(mask, ids, 0) + start, self.exchange)
        if field.pooling in ("mean", "sum"):
            return weighted_sum(weights, vectors)
        if field.pooling == "transformer":
            return Transformer(self.dtype, name=f"transformer_{index}")(vectors, mask, target)
        if target is None:
            return Attention(self.dtype, name=f"attention_{index}")(vectors, mask)
        attention = TargetAttention(dtype=self.dtype, name=f"target_attention_{index}")
        return attention(vectors, target, mask)

    def _projected(
        self, index: int, numbers: Array, folds: Callable[[int, int], bool]
    ) -> Folded | Array:
        width, out = numbers.shape[1], self.vector_widths[index]
        init = fan_in_uniform(width)
        kernel = self.param(f"vector_kernel_{index}", init, (width, out))
        bias = self.param(f"vector_bias_{index}", init, (out,))
        if not folds(width + 1, out):
            return numbers @ kernel.astype(self.dtype) + bias.astype(self.dtype)
        table = jnp.concatenate([kernel, bias[None]]).astype(self.dtype)
        ones = jnp.ones((len(numbers), 1), self.dtype)
        return Folded(jnp.concatenate([numbers, ones], axis=1), table)
