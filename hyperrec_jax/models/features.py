"""Embedded features of a batch, and inputs that lie side by side without being copied."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
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
from hyperrec_jax.models.tables import Own, OwnTable, Place
from hyperrec_jax.parallel.exchange import Exchange, gather_rows
from hyperrec_jax.parallel.tables import own_table, table_rows

Fold = Literal["auto", "always", "never"]


@flax.struct.dataclass
class EmbeddedFeatures:
    """The vectors of a batch's fields side by side, `[batch, sum of widths]`, not yet computed.

    Stands where an array of that shape would in `features @ kernel`. A field of few ids is a
    one-hot block times a table, so that `(one_hot @ table) @ kernel` is computed as
    `one_hot @ (table @ kernel)`: the tables of all such fields are multiplied with the kernel
    once per batch and not once per row, and the blocks, built once, serve every kernel. The
    numericals are a block too: they and the constant 1 are its columns, their weights and bias
    its table.

    Attributes:
      indicators: `[batch, sum of sizes]` blocks of the folded vectors, side by side.
      tables: `[size, width]` for each folded vector.
      gathered: `[batch, sum of widths]` the other vectors, side by side.
      folded: For each vector in order whether it is folded.
      widths: Width of each vector.
    """

    indicators: Array
    tables: tuple[Array, ...]
    gathered: Array
    folded: tuple[bool, ...] = flax.struct.field(pytree_node=False)
    widths: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.gathered.shape[0], sum(self.widths)

    @property
    def dtype(self) -> Any:
        return self.gathered.dtype

    def concatenate(self) -> Array:
        """The features as an array `[batch, sum of widths]`."""
        gathered = iter(split(self.gathered, self._widths(folded=False), axis=1))
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
        """The mean of vectors of one width, `[batch, width]`."""
        total = self.gathered.reshape(len(self.gathered), -1, self.widths[0]).sum(axis=1)
        if self.tables:
            total += self.indicators @ jnp.concatenate(self.tables)
        return total / len(self.folded)

    def __matmul__(self, kernel: Array) -> Array:
        """`concatenate() @ kernel`: `[..., sum of widths, out]` to `[..., batch, out]`."""
        *lead, width, out = kernel.shape
        if lead:  # All kernels side by side make one product.
            columns = self @ jnp.moveaxis(kernel, -2, 0).reshape(width, -1)
            return jnp.moveaxis(columns.reshape(-1, *lead, out), 0, -2)
        if not self.tables:
            return self.gathered @ kernel
        rows = split(kernel, self.widths)
        folded = [block for block, is_folded in zip(rows, self.folded, strict=True) if is_folded]
        product = self.indicators @ jnp.concatenate(
            [table @ block for table, block in zip(self.tables, folded, strict=True)]
        )
        if self.gathered.shape[1]:
            others = [
                block for block, is_folded in zip(rows, self.folded, strict=True) if not is_folded
            ]
            product += self.gathered @ jnp.concatenate(others)
        return product

    def _widths(self, folded: bool) -> list[int]:
        pairs = zip(self.widths, self.folded, strict=True)
        return [width for width, is_folded in pairs if is_folded == folded]


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

    Fields of another width, or with vectors that were trained elsewhere, have a table of their own.

    Attributes:
      field_sizes: Number of ids of each field, or of each vocabulary where fields share one; the
        table's rows are theirs in order, see `table_rows`, but for those with one of their own.
      num_numerical: Number of numericals; with 0 they give no vector.
      dim: Width of a vector.
      fold: `auto` folds the fields for which that takes fewer multiplications; `always` and
        `never` do what they say. All have the same parameters and, except for rounding, the same
        results.
      dtype: Type of the result.
      inputs: Where fields of several values and shared vocabularies are; None without any.
      own: What the vocabularies with a table of their own have, by position.
      vector_widths: Width of the vector that each vector field becomes; `dim` each by default.
      exchange: How rows of tables that are split over devices are looked up; None for no such.
    """

    field_sizes: tuple[int, ...]
    num_numerical: int
    dim: int
    fold: Fold = "auto"
    dtype: str = "float32"
    inputs: Inputs | None = None
    own: tuple[tuple[int, Own], ...] = ()
    vector_widths: tuple[int, ...] = ()
    exchange: Exchange | None = None

    @nn.compact
    def __call__(self, batch: Mapping[str, Array]) -> EmbeddedFeatures:
        ids, numerical = batch["categorical"], batch["numerical"].astype(self.dtype)
        rows = numerical.shape[0]
        indicators = [jnp.zeros((rows, 0), self.dtype)]
        gathered = [jnp.zeros((rows, 0), self.dtype)]
        tables: list[Array] = []
        direct = len(self.field_sizes)
        if self.inputs is not None:
            direct, ids = len(self.inputs.direct), ids[:, np.array(self.inputs.direct, int)]
        joint, places = self._tables()
        widths = [places[field].table.shape[1] for field in range(direct)]
        folded = [
            self._folds(size, width, rows)
            for size, width in zip(self.field_sizes, widths, strict=False)
        ]
        # Neighbours that are not folded share one gather, and one scatter of its gradient.
        own = dict(self.own)
        spread = self.exchange is not None and self.exchange.splits(len(joint))
        runs = [
            list(run)
            for _, run in itertools.groupby(
                range(direct), lambda field: (field if field in own else -1, folded[field])
            )
        ]
        lengths = [sum(self.field_sizes[f] for f in run) for run in runs if run[0] not in own]
        lengths[-1:] = [len(joint) - sum(lengths[:-1])] if lengths else []
        parts = iter(() if spread else split(joint, lengths))
        for run in runs:
            # Where devices share its rows, a part of the joint table would have to be moved.
            whole = run[0] in own or spread
            table, first = places[run[0]] if whole else (next(parts), 0)
            sizes = [self.field_sizes[field] for field in run]
            columns = ids[:, run[0] : run[-1] + 1]
            if folded[run[0]]:
                if spread and run[0] not in own:
                    table = table[first + np.arange(sum(sizes))]
                tables += split(table, [*sizes, len(table) - sum(sizes)])[:-1]
                indicators += [
                    jax.nn.one_hot(column, size, dtype=self.dtype)
                    for column, size in zip(jnp.unstack(columns, axis=1), sizes, strict=True)
                ]
            else:
                starts = np.cumsum([first, *sizes[:-1]], dtype=np.int32)
                wanted = columns.astype(jnp.int32) + starts
                gathered.append(gather_rows(table, wanted, self.exchange).reshape(rows, -1))
        if self.num_numerical:
            init = fan_in_uniform(self.num_numerical)
            kernel = self.param("numerical_kernel", init, (self.num_numerical, self.dim))
            bias = self.param("numerical_bias", init, (self.dim,))
            table = jnp.concatenate([kernel, bias[None]]).astype(self.dtype)
            block = jnp.concatenate([numerical, jnp.ones((rows, 1), self.dtype)], axis=1)
            widths.append(self.dim)
            folded.append(self._folds(len(table), self.dim, rows))
            if folded[-1]:
                tables.append(table)
                indicators.append(block)
            else:
                gathered.append(block @ table)
        if self.inputs is not None:
            several = SeveralValues(
                self.inputs,
                self.field_sizes,
                self.vector_widths or (self.dim,) * len(self.inputs.vectors),
                self.dtype,
                self.exchange,
                name="several",
            )
            for vector in several(batch, places, partial(self._folds, rows=rows)):
                folded.append(isinstance(vector, Folded))
                if isinstance(vector, Folded):
                    tables.append(vector.table)
                    indicators.append(vector.block)
                    widths.append(vector.table.shape[1])
                else:
                    gathered.append(vector)
                    widths.append(vector.shape[1])
        return EmbeddedFeatures(
            indicators=jnp.concatenate(indicators, axis=1),
            tables=tuple(tables),
            gathered=jnp.concatenate(gathered, axis=1),
            folded=tuple(folded),
            widths=tuple(widths),
        )

    def _tables(self) -> tuple[Array, list[Place]]:
        """The table of fields without one of their own, and where each vocabulary's rows are."""
        own = dict(self.own)
        others = [size for table, size in enumerate(self.field_sizes) if table not in own]
        joint = jnp.zeros((0, self.dim), self.dtype)
        if others:
            # Xavier over the table as a whole, as pytorch-fm does it.
            shape = (table_rows(others), self.dim)
            joint = self.param("embedding", nn.initializers.xavier_uniform(), shape)
            joint = joint.astype(self.dtype)
        places, start = [], 0
        for table, size in enumerate(self.field_sizes):
            if table in own:
                array = OwnTable(size, own[table], name=own_table(table))().astype(self.dtype)
                places.append(Place(array, 0))
            else:
                places.append(Place(joint, start))
                start += size
        return joint, places

    def _folds(self, size: int, width: int, rows: int) -> bool:
        if self.fold == "auto":
            # Per output column, forward and back: folded 2 products with the block and 3 with
            # the table, otherwise 3 with the vectors, and a gather and a scatter besides.
            return size * (rows + width) <= 2 * width * rows
        return self.fold == "always"
