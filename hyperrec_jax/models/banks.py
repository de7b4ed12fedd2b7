"""Dense layers, and banks of networks of one shape that run side by side."""

from collections.abc import Callable
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.adapters import ADAPTERS, Adapter
from hyperrec_jax.models.dropout import dropout
from hyperrec_jax.models.features import Features, split
from hyperrec_jax.models.initialisers import fan_in_uniform
from hyperrec_jax.models.norms import Norm, batch_norm, layer_norm
from hyperrec_jax.models.products import product

Layout = Literal["auto", "loop", "batched"]
Block = Literal["none", "residual", "cross"]
Parameters = dict[str, Any]


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


class Bank(nn.Module):
    """Several networks of one shape, their parameters stacked along a leading axis.

    Each is, for every width, a dense layer, normalisation, ReLU and dropout; then, with `outputs`,
    one more dense layer. Experts, bottoms, towers, critics and gates all are banks. The leading
    axis can be sharded over devices.

    Attributes:
      copies: Number of networks.
      widths: Widths of the hidden layers.
      outputs: Width of a last layer without activation, or None for no such layer.
      dropout: Dropout rate after each hidden layer.
      norm: Normalisation: `batch`, `pooled` (also over the preferences of a batch) or `layer`.
      dtype: Type of activations and products.
      layout: `loop` runs one network after another, which keeps their activations in a CPU's
        cache; `batched` runs all at once, as accelerators and an axis sharded over devices want
        it; `auto` goes by the backend.
      adapter: How a preference changes the hidden layers; see `hyperrec_jax.models.adapters`.
      rank: Rank of low-rank adapters.
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
        return split(leaf.reshape(-1, *leaf.shape[2:]), [leaf.shape[1]] * copies)

    leaves, structure = jax.tree.flatten(tree)
    each = [parts(leaf) for leaf in leaves]
    return [jax.tree.unflatten(structure, [part[i] for part in each]) for i in range(copies)]
