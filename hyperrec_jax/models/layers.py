"""Layers that all models share: embedded features, dropout, normalisation, banks of networks."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Array
from jax import lax

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.adapters import ADAPTERS, Adapter
from hyperrec_jax.models.mixture import Mixture
from hyperrec_jax.models.products import product

Fold = Literal["auto", "always", "never"]
Norm = Literal["batch", "pooled", "layer"]
Layout = Literal["auto", "loop", "batched"]
Block = Literal["none", "residual", "cross"]
Parameters = dict[str, Any]

EPSILON = 1e-5
MOMENTUM = 0.1

LARGE_TABLE_ROWS = 1_000_000
"""A table of at least so many rows can be split over devices; `table_rows` makes it even."""


def fan_in_uniform(fan_in: int) -> Callable[..., Array]:
    """Initialiser `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`, that of `torch.nn.Linear`."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@flax.struct.dataclass
class EmbeddedFeatures:
    """The vectors of a batch's fields side by side, `[batch, vectors * dim]`, not yet computed.

    Stands where an array of that shape would in `features @ kernel`. A field of few ids is a
    one-hot block times a table, so that `(one_hot @ table) @ kernel` is computed as
    `one_hot @ (table @ kernel)`: the tables of all such fields are multiplied with the kernel
    once a batch rather than once a row, and the blocks, built once, serve every kernel. The
    numericals are a block too: they and the constant 1 are its columns, their weights and bias
    its table.

    Attributes:
      indicators: `[batch, sum of sizes]` blocks of the folded vectors, side by side.
      tables: `[size, dim]` a folded vector.
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
        blocks = iter(zip(_split(self.indicators, sizes, axis=1), self.tables, strict=True))
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
        rows = _split(kernel, [dim] * len(self.folded))
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
    preference `[ray, 1, task]`, is multiplied once.

    Attributes:
      parts: Inputs whose leading axes broadcast against one another.
    """

    parts: tuple[Array | EmbeddedFeatures | Mixture, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        lead = jnp.broadcast_shapes(*(part.shape[:-1] for part in self.parts))
        return (*lead, sum(part.shape[-1] for part in self.parts))

    def __matmul__(self, kernel: Array) -> Array:
        blocks = _split(kernel, [part.shape[-1] for part in self.parts])
        return sum(part @ block for part, block in zip(self.parts, blocks, strict=True))


def _split(x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
    """Parts of the given sizes; unlike slices, their gradients are joined in one concatenation."""
    return list(lax.split(x, sizes, axis=axis)) if sizes else []


Features = Array | EmbeddedFeatures | Joined | Mixture


def table_rows(field_sizes: Sequence[int]) -> int:
    """Rows of the table of all fields; a large one ends in unused rows, up to a multiple of 512."""
    rows = sum(field_sizes)
    return rows if rows < LARGE_TABLE_ROWS else -(-rows // 512) * 512


class FeatureEmbedding(nn.Module):
    """Embeds ids from one table for all fields, and all numericals in one linear layer.

    Attributes:
      field_sizes: Number of ids of each field; the table's rows are the fields' in order, see
        `table_rows`.
      num_numerical: Number of numericals; with 0 they give no vector.
      dim: Width of a vector.
      fold: `auto` folds the fields for which that takes fewer multiplications; `always` and
        `never` do what they say. All have the same parameters and, but for rounding, results.
      dtype: Of the result.
    """

    field_sizes: tuple[int, ...]
    num_numerical: int
    dim: int
    fold: Fold = "auto"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, batch: Mapping[str, Array]) -> EmbeddedFeatures:
        ids, numerical = batch["categorical"], batch["numerical"].astype(self.dtype)
        rows = numerical.shape[0]
        indicators = [jnp.zeros((rows, 0), self.dtype)]
        gathered = [jnp.zeros((rows, 0, self.dim), self.dtype)]
        tables: list[Array] = []
        folded = [self._folds(size, rows) for size in self.field_sizes]
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
            lengths[-1] += len(embedding) - sum(lengths)
            for run, table in zip(runs, _split(embedding, lengths), strict=True):
                sizes = [self.field_sizes[field] for field in run]
                columns = ids[:, run[0] : run[-1] + 1]
                if folded[run[0]]:
                    tables += _split(table, [*sizes, len(table) - sum(sizes)])[:-1]
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


class Linear(nn.Module):
    """`x @ kernel + bias`, initialised as `torch.nn.Linear`."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Features) -> Array:
        init = fan_in_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return product(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


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


def batch_norm(
    x: Array,
    bias: Array,
    scale: Array,
    shift: Array,
    stats: Parameters,
    train: bool,
    pooled: bool = False,
) -> tuple[Array, Parameters]:
    """Normalises `x + bias` over the batch axis -2, with the semantics of `torch.nn.BatchNorm1d`.

    One pass gives mean and variance. The bias of the dense layer before moves nothing but the
    running mean, so that it takes no pass of its own. Under `jit` with a sharded batch the
    statistics are those of the global batch. Leading axes are those of several rays. Normalised
    apart, a ray is trained on statistics of its own but predicts by the running estimates, which
    follow the mean over the rays (as switchable networks, Yu et al. 2019, arXiv 1812.08928, fail
    without statistics of their own); pooled, training and prediction agree.

    Args:
      x: `[..., batch, width]`.
      bias: `[width]`.
      scale: `[width]`.
      shift: `[width]`.
      stats: Running `mean` and `variance`, `[width]` each.
      train: Whether to normalise by the batch rather than by the running estimates.
      pooled: Whether the leading axes share one mean and variance.

    Returns:
      The normalised input and the new running estimates (whose variance is the unbiased one).
    """
    if train:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1)) if pooled else -2
        mean = wide.mean(axis=axes, keepdims=True)
        variance = jnp.maximum((wide * wide).mean(axis=axes, keepdims=True) - mean * mean, 0)
        count = wide.size // mean.size
        unbiased = variance * (count / max(count - 1, 1))
        stats = jax.tree.map(
            lambda old, new: (
                (1 - MOMENTUM) * old
                + MOMENTUM * lax.stop_gradient(new).reshape(-1, new.shape[-1]).mean(axis=0)
            ),
            stats,
            {"mean": mean + bias, "variance": unbiased},
        )
    else:
        mean, variance = stats["mean"] - bias, stats["variance"]
    slope = scale * lax.rsqrt(variance + EPSILON)
    return (x * slope + (shift - mean * slope)).astype(x.dtype), stats


def layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Normalises over the last axis (Ba et al. 2016, arXiv 1607.06450)."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.maximum((wide * wide).mean(axis=-1, keepdims=True) - mean * mean, 0)
    return ((wide - mean) * lax.rsqrt(variance + EPSILON) * scale + shift).astype(x.dtype)


def to_logits(outputs: Array) -> Array:
    """One output of each network of a bank, `[task, ..., batch, 1]`, as `[..., batch, task]`."""
    logits = jnp.moveaxis(outputs[..., 0], 0, -1)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class Bank(nn.Module):
    """Several networks of one shape, their parameters stacked along a leading axis.

    Each is, for every width, a dense layer, normalisation, ReLU and dropout; then, with `outputs`,
    one more dense layer. Experts, bottoms, towers, critics and gates all are banks. The leading
    axis can be sharded over devices.

    Attributes:
      copies: Number of networks.
      widths: Of the hidden layers.
      outputs: Width of a last layer without activation, or None for no such layer.
      dropout: Rate after each hidden layer.
      norm: `batch`, `pooled` (over the rays of a batch, too) or `layer`.
      dtype: Of activations and products.
      layout: `loop` runs one network after another, which keeps their activations in a CPU's
        cache; `batched` runs all at once, as accelerators and an axis sharded over devices want
        it; `auto` goes by the backend.
      adapter: How a preference changes the hidden layers; see `hyperrec_jax.models.adapters`.
      rank: Of low-rank adapters.
      alike: Whether all networks begin with the same parameters.
      block: One more layer after the hidden ones, of the last width: `residual`,
        `x + relu(W x + b)` (He et al. 2016, arXiv 1512.03385), or `cross`, `x + x * (W x + b)`, the
        products of DCN-v2 (Wang et al. 2021, arXiv 2008.13535).
    """

    copies: int
    widths: tuple[int, ...]
    outputs: int | None = None
    dropout: float = 0.0
    norm: Norm = "batch"
    dtype: str = "float32"
    layout: Layout = "auto"
    adapter: str = "none"
    rank: int = 4
    alike: bool = False
    block: Block = "none"

    @nn.compact
    def __call__(
        self,
        x: Features | tuple[Features, ...],
        train: bool,
        code: Array | None = None,
    ) -> Array:
        """Outputs `[copy, ..., batch, width]`.

        Args:
          x: `[..., batch, in]` for all networks, or a tuple with an input for each.
          train: Whether dropout and batch statistics are on.
          code: What the adapters read, `[..., 1 or batch, code]`; None without an adapter.

        Raises:
          UserError: training with batch normalisation on a batch of one row.
        """
        inputs = x if isinstance(x, tuple) else (x,) * self.copies
        adapter = ADAPTERS[self.adapter]
        layers: list[Parameters] = []
        variables = []
        width = inputs[0].shape[-1]
        for index, out in enumerate(self.widths):
            name = f"layer_{index}"
            layers.append(self.param(name, self._init_layer(adapter, code), width, out))
            if self.norm != "layer":
                variables.append(self.variable("batch_stats", name, self._init_stats, out))
            width = out
        if self.block != "none":
            layers.append(self.param("block", self._stacked(_init_dense), width, width))
        if self.outputs is not None:
            layers.append(self.param("output", self._stacked(_init_dense), width, self.outputs))
        if train and variables and inputs[0].shape[-2] < 2:
            raise UserError("batch normalisation cannot train on a batch of one row: use more")

        rates = self.dropout if train else 0.0
        key = self.make_rng("dropout") if rates and self.widths else jax.random.key(0)
        keys = jax.random.split(key, self.copies)

        def run(layers: list, stats: list, key: Array, x: Any) -> tuple[Array, list]:
            return self._network(layers, stats, key, x, code, adapter, train)

        stats = [variable.value for variable in variables]
        if self._loops():
            trees = (_unstack(tree, self.copies) for tree in (layers, stats, keys))
            each = zip(*trees, inputs, strict=True)
            results = [run(*arguments) for arguments in each]
            y, stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
        elif isinstance(x, tuple):
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs)
            y, stats = jax.vmap(run)(layers, stats, keys, stacked)
        else:
            y, stats = jax.vmap(run, in_axes=(0, 0, 0, None))(layers, stats, keys, x)
        if train and not self.is_initializing():
            for variable, value in zip(variables, stats, strict=True):
                variable.value = value
        return y

    def _loops(self) -> bool:
        if self.layout == "auto":
            return jax.default_backend() == "cpu"
        return self.layout == "loop"

    def _network(
        self,
        layers: list[Parameters],
        stats: list[Parameters],
        key: Array,
        x: Features,
        code: Array | None,
        adapter: Adapter,
        train: bool,
    ) -> tuple[Array, list[Parameters]]:
        """One network of the bank, a pure function."""
        updated = []
        for index in range(len(self.widths)):
            layer = layers[index]
            bias, scale, shift = layer["bias"], layer["scale"], layer["shift"]
            y = adapter.before_norm(layer, x, product(x, layer["kernel"].astype(self.dtype)), code)
            if self.norm != "layer":
                pooled = self.norm == "pooled"
                y, new = batch_norm(y, bias, scale, shift, stats[index], train, pooled)
                updated.append(new)
            else:
                y = layer_norm(y + bias.astype(self.dtype), scale, shift)
            x = nn.relu(adapter.after_norm(layer, y, code))
            if train:
                x = dropout(jax.random.fold_in(key, index), x, self.dropout)
        if self.block != "none":
            layer = layers[len(self.widths)]
            hidden = cast(Array, x)
            y = product(hidden, layer["kernel"].astype(self.dtype)) + layer["bias"].astype(
                self.dtype
            )
            x = hidden + (nn.relu(y) if self.block == "residual" else hidden * y)
        if self.outputs is not None:
            layer = layers[-1]
            x = product(x, layer["kernel"].astype(self.dtype)) + layer["bias"].astype(self.dtype)
        return x, updated

    def _init_layer(self, adapter: Adapter, code: Array | None) -> Callable[..., Parameters]:
        def init(key: Array, width: int, out: int) -> Parameters:
            dense_key, adapter_key = jax.random.split(key)
            code_width = 0 if code is None else code.shape[-1]
            return (
                _init_dense(dense_key, width, out)
                | {"scale": jnp.ones(out), "shift": jnp.zeros(out)}
                | adapter.init(adapter_key, width, out, code_width, self.rank)
            )

        return self._stacked(init)

    def _stacked(self, init: Callable[..., Parameters]) -> Callable[..., Parameters]:
        def stacked(key: Array, *sizes: int) -> Parameters:
            keys = jax.random.split(key, self.copies)
            keys = keys[jnp.zeros(self.copies, int)] if self.alike else keys
            return jax.vmap(lambda key: init(key, *sizes))(keys)

        return stacked

    def _init_stats(self, width: int) -> Parameters:
        shape = (self.copies, width)
        return {"mean": jnp.zeros(shape), "variance": jnp.ones(shape)}


def _init_dense(key: Array, width: int, out: int) -> Parameters:
    kernel_key, bias_key = jax.random.split(key)
    init = fan_in_uniform(width)
    return {"kernel": init(kernel_key, (width, out)), "bias": init(bias_key, (out,))}


def _unstack(tree: Any, copies: int) -> list[Any]:
    """The tree of each copy, from a tree of arrays with a leading axis of copies."""

    def parts(leaf: Array) -> list[Array]:
        if leaf.ndim == 1:
            return list(leaf)
        # Along an axis that exists already, so that XLA joins the gradients of the copies, and of
        # the splits of a copy, in a single concatenation.
        return _split(leaf.reshape(-1, *leaf.shape[2:]), [leaf.shape[1]] * copies)

    leaves, structure = jax.tree.flatten(tree)
    each = [parts(leaf) for leaf in leaves]
    return [jax.tree.unflatten(structure, [part[i] for part in each]) for i in range(copies)]
