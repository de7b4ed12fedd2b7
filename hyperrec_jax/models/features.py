"""Embedded features of a batch, and inputs that lie side by side without being copied."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Array
from jax import lax

from hyperrec_jax.data.inputs import Inputs
from hyperrec_jax.models.initialisers import fan_in_uniform
from hyperrec_jax.models.mixture import Mixture
from hyperrec_jax.models.several import Folded, SeveralValues
from hyperrec_jax.parallel.tables import table_rows

Fold = Literal["auto", "always", "never"]


@flax.struct.dataclass
class EmbeddedFeatures:
    """The vectors of a batch's fields side by side, `[batch, vectors * dim]`, not yet computed.

    Stands where an array of that shape would in `features @ kernel`. A field of few ids is a
    one-hot block times a table, so that `(one_hot @ table) @ kernel` is computed as
    `one_hot @ (table @ kernel)`: the tables of all such fields are multiplied with the kernel
    once per batch and not once per row, and the blocks, built once, serve every kernel. The
    numericals are a block too: they and the constant 1 are its columns, their weights and bias
    its table.

    Attributes:
      indicators: `[batch, sum of sizes]` blocks of the folded vectors, side by side.
      tables: `[size, dim]` for each folded vector.
      gathered: `[batch, vectors, dim]` the other vectors.
      folded: For each vector in order whether it is folded.
    """

    indicators: Array
    tables: tuple[Array, ...]
    gathered: Array
    folded: tuple[bool, ...] = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int]:
        batch, _, dim = self.gathered.shape
        return batch, len(self.folded) * dim

    @property
    def dtype(self) -> Any:
        return self.gathered.dtype

    def concatenate(self) -> Array:
        """The features as an array `[batch, vectors * dim]`."""
        gathered = iter(jnp.unstack(self.gathered, axis=1))
        sizes = [table.shape[0] for table in self.tables]
        blocks = iter(zip(split(self.indicators, sizes, axis=1), self.tables, strict=True))
        vectors = []
        for folded in self.folded:
            if folded:
                block, table = next(blocks)
                vectors.append(block @ table)
            else:
                vectors.append(next(gathered))
        return jnp.concatenate(vectors, axis=1)

    def mean(self) -> Array:
        """The mean of the vectors, `[batch, dim]`."""
        total = self.gathered.sum(axis=1)
        if self.tables:
            total += self.indicators @ jnp.concatenate(self.tables)
        return total / len(self.folded)

    def __matmul__(self, kernel: Array) -> Array:
        """`concatenate() @ kernel`: `[..., vectors * dim, out]` to `[..., batch, out]`."""
        *lead, width, out = kernel.shape
        if lead:  # All kernels side by side make one product.
            columns = self @ jnp.moveaxis(kernel, -2, 0).reshape(width, -1)
            return jnp.moveaxis(columns.reshape(-1, *lead, out), 0, -2)
        batch, count, dim = self.gathered.shape
        if not self.tables:
            return self.gathered.reshape(batch, -1) @ kernel
        rows = split(kernel, [dim] * len(self.folded))
        folded = [block for block, is_folded in zip(rows, self.folded, strict=True) if is_folded]
        product = self.indicators @ jnp.concatenate(
            [table @ block for table, block in zip(self.tables, folded, strict=True)]
        )
        if count:
            others = [
                block for block, is_folded in zip(rows, self.folded, strict=True) if not is_folded
            ]
            product += self.gathered.reshape(batch, -1) @ jnp.concatenate(others)
        return product


@flax.struct.dataclass
class Joined:
    """Inputs side by side, `[..., batch, sum of widths]`, not yet copied into one array.

    Stands where an array would in `joined @ kernel`; an input that many rows share, such as a
    preference `[preference, 1, goal]`, is multiplied once.

    Attributes:
      parts: Inputs whose leading axes broadcast against one another.
    """

    parts: tuple[Array | EmbeddedFeatures | Mixture, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        lead = jnp.broadcast_shapes(*(part.shape[:-1] for part in self.parts))
        return (*lead, sum(part.shape[-1] for part in self.parts))

    def __matmul__(self, kernel: Array) -> Array:
        blocks = split(kernel, [part.shape[-1] for part in self.parts])
        return sum(part @ block for part, block in zip(self.parts, blocks, strict=True))


def split(x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
    """Parts of the given sizes; unlike slices, their gradients are joined in one concatenation."""
    return list(lax.split(x, sizes, axis=axis)) if sizes else []


Features = Array | EmbeddedFeatures | Joined | Mixture


class FeatureEmbedding(nn.Module):
    """Embeds ids from one table for all fields, and all numericals in one linear layer.

    Attributes:
      field_sizes: Number of ids of each field, or of each vocabulary where fields share one; the
        table's rows are theirs in order, see `table_rows`.
      num_numerical: Number of numericals; with 0 they give no vector.
      dim: Width of a vector.
      fold: `auto` folds the fields for which that takes fewer multiplications; `always` and
        `never` do what they say. All have the same parameters and, except for rounding, the same
        results.
      dtype: Type of the result.
      inputs: Where fields of several values and shared vocabularies are; None without any.
    """

    field_sizes: tuple[int, ...]
    num_numerical: int
    dim: int
    fold: Fold = "auto"
    dtype: str = "float32"
    inputs: Inputs | None = None

    @nn.compact
    def __call__(self, batch: Mapping[str, Array]) -> EmbeddedFeatures:
        ids, numerical = batch["categorical"], batch["numerical"].astype(self.dtype)
        rows = numerical.shape[0]
        indicators = [jnp.zeros((rows, 0), self.dtype)]
        gathered = [jnp.zeros((rows, 0, self.dim), self.dtype)]
        tables: list[Array] = []
        direct = len(self.field_sizes)
        if self.inputs is not None:
            direct, ids = len(self.inputs.direct), ids[:, np.array(self.inputs.direct, int)]
        folded = [self._folds(size, rows) for size in self.field_sizes[:direct]]
        embedding = jnp.zeros((0, self.dim), self.dtype)
        if self.field_sizes:
            # Xavier over the table as a whole, as pytorch-fm does it.
            embedding = self.param(
                "embedding",
                nn.initializers.xavier_uniform(),
                (table_rows(self.field_sizes), self.dim),
            ).astype(self.dtype)
            # Neighbours that are not folded share one gather, and one scatter of its gradient.
            runs = [
                list(run) for _, run in itertools.groupby(range(len(folded)), folded.__getitem__)
            ]
            lengths = [sum(self.field_sizes[field] for field in run) for run in runs]
            lengths[-1:] = [len(embedding) - sum(lengths[:-1])] if runs else []
            for run, table in zip(runs, split(embedding, lengths), strict=True):
                sizes = [self.field_sizes[field] for field in run]
                columns = ids[:, run[0] : run[-1] + 1]
                if folded[run[0]]:
                    tables += split(table, [*sizes, len(table) - sum(sizes)])[:-1]
                    indicators += [
                        jax.nn.one_hot(column, size, dtype=self.dtype)
                        for column, size in zip(jnp.unstack(columns, axis=1), sizes, strict=True)
                    ]
                else:
                    starts = np.cumsum([0, *sizes[:-1]])
                    gathered.append(table[columns.astype(jnp.int32) + starts])
        if self.num_numerical:
            init = fan_in_uniform(self.num_numerical)
            kernel = self.param("numerical_kernel", init, (self.num_numerical, self.dim))
            bias = self.param("numerical_bias", init, (self.dim,))
            table = jnp.concatenate([kernel, bias[None]]).astype(self.dtype)
            block = jnp.concatenate([numerical, jnp.ones((rows, 1), self.dtype)], axis=1)
            folded.append(self._folds(len(table), rows))
            if folded[-1]:
                tables.append(table)
                indicators.append(block)
            else:
                gathered.append((block @ table)[:, None])
        if self.inputs is not None:
            several = SeveralValues(
                self.inputs, self.field_sizes, self.dim, self.dtype, name="several"
            )
            for vector in several(batch, embedding, lambda size: self._folds(size, rows)):
                folded.append(isinstance(vector, Folded))
                if isinstance(vector, Folded):
                    tables.append(vector.table)
                    indicators.append(vector.block)
                else:
                    gathered.append(vector[:, None])
        return EmbeddedFeatures(
            indicators=jnp.concatenate(indicators, axis=1),
            tables=tuple(tables),
            gathered=jnp.concatenate(gathered, axis=1),
            folded=tuple(folded),
        )

    def _folds(self, size: int, rows: int) -> bool:
        if self.fold == "auto":
            # Per output column, forward and back: folded 2 products with the block and 3 with
            # the table, otherwise 3 with the vectors, and a gather and a scatter besides.
            return size * (rows + self.dim) <= 2 * self.dim * rows
        return self.fold == "always"
