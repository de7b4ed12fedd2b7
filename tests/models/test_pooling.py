"""Pooling of masked values: by a loop, and by PyTorch with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.inputs import Inputs, Lookup, PooledIds
from hyperrec_jax.models.features import FeatureEmbedding
from hyperrec_jax.models.pooling import Attention, TargetAttention, pool_weights, weighted_sum
from tests.support.compiled import compiled

DIM, LENGTH, ROWS = 6, 5, 7


def example(seed=0):
    """Vectors, a target and a mask in which a row has no value and one has all."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(ROWS, LENGTH, DIM)).astype(np.float32)
    target = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    mask = rng.random((ROWS, LENGTH)) < 0.6
    mask[0], mask[1] = False, True
    return vectors, target, mask


@functools.partial(jax.jit, static_argnums=0)
def pool(pooling, vectors, mask):
    return weighted_sum(pool_weights(mask, pooling, "float32"), vectors)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    pooling=st.sampled_from(["mean", "sum"]),
)
def test_mean_and_sum_are_those_of_a_loop(lengths, pooling):
    vectors = np.random.default_rng(sum(lengths)).normal(size=(4, 4, 3))
    mask = np.arange(4) < np.array(lengths)[:, None]
    pooled = pool(pooling, vectors, mask)
    for row, length in enumerate(lengths):
        expected = vectors[row, :length].sum(axis=0)
        if pooling == "mean" and length:
            expected /= length
        np.testing.assert_allclose(pooled[row], expected, atol=1e-6)


def test_attention_is_that_of_pytorch_row_by_row():
    vectors, _, mask = example()
    module = Attention()
    params = compiled(module.init, jax.random.key(0), vectors, mask)
    pooled = compiled(module.apply, params, vectors, mask)
    kernel, bias, query = (torch.tensor(params["params"][k]) for k in ("kernel", "bias", "query"))
    for row in range(ROWS):
        there = torch.tensor(vectors[row][mask[row]])
        weights = torch.softmax(torch.tanh(there @ kernel + bias) @ query, dim=0)
        np.testing.assert_allclose(pooled[row], (weights[:, None] * there).sum(0), atol=1e-5)


class Din(torch.nn.Module):
    """The activation unit of DIN as PyTorch libraries write it, for one row at a time."""

    def __init__(self, dim, widths):
        super().__init__()
        layers, inputs = [], 4 * dim
        for width in widths:
            layers += [torch.nn.Linear(inputs, width), torch.nn.PReLU(width)]
            inputs = width
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(inputs, 1))

    def forward(self, history, target):
        target = target.expand_as(history)
        both = torch.cat([history, target, history - target, history * target], dim=-1)
        return (self.layers(both) * history).sum(0)


def test_target_attention_is_that_of_pytorch_with_its_gradients():
    vectors, target, mask = example()
    torch.manual_seed(0)
    module, reference = TargetAttention(widths=(8, 4)), Din(DIM, (8, 4))
    linear = [layer for layer in reference.layers if isinstance(layer, torch.nn.Linear)]
    slopes = [layer for layer in reference.layers if isinstance(layer, torch.nn.PReLU)]
    params = {f"kernel_{i}": layer.weight.detach().numpy().T for i, layer in enumerate(linear)}
    params |= {f"bias_{i}": layer.bias.detach().numpy() for i, layer in enumerate(linear)}
    params |= {f"slope_{i}": layer.weight.detach().numpy() for i, layer in enumerate(slopes)}
    own = jax.eval_shape(module.init, jax.random.key(0), vectors, target, mask)["params"]
    assert jax.tree.map(jnp.shape, dict(own)) == jax.tree.map(jnp.shape, params)

    def pooled(params, vectors, target):
        return module.apply({"params": params}, vectors, target, mask)

    given_vectors = torch.tensor(vectors, requires_grad=True)
    given_target = torch.tensor(target, requires_grad=True)
    rows = [reference(given_vectors[r][mask[r]], given_target[r]) for r in range(ROWS)]
    np.testing.assert_allclose(
        compiled(pooled, params, vectors, target), torch.stack(rows).detach(), atol=1e-5
    )
    (torch.stack(rows) ** 2).sum().backward()
    of_params, of_vectors, of_target = compiled(
        jax.grad(lambda *inputs: (pooled(*inputs) ** 2).sum(), (0, 1, 2)), params, vectors, target
    )
    np.testing.assert_allclose(of_vectors, given_vectors.grad, atol=1e-4)
    np.testing.assert_allclose(of_target, given_target.grad, atol=1e-4)
    for index, layer in enumerate(linear):
        np.testing.assert_allclose(of_params[f"kernel_{index}"].T, layer.weight.grad, atol=1e-4)
    np.testing.assert_allclose(of_params["slope_0"], slopes[0].weight.grad, atol=1e-4)


@pytest.mark.parametrize("pooling", ["attention", "target_attention"])
def test_what_stands_in_the_place_of_padding_changes_nothing(pooling):
    vectors, target, mask = example()
    module = Attention() if pooling == "attention" else TargetAttention()
    rest = (mask,) if pooling == "attention" else (target, mask)
    params = compiled(module.init, jax.random.key(0), vectors, *rest)
    other = np.where(mask[..., None], vectors, 1e4).astype(np.float32)

    @jax.jit
    def pooled(params, vectors):
        def total(params, vectors):
            values = module.apply(params, vectors, *rest)
            return values.sum(), values

        slopes, values = jax.grad(total, (0, 1), has_aux=True)(params, vectors)
        return values, slopes

    values, slopes = pooled(params, other)
    np.testing.assert_array_equal(pooled(params, vectors)[0], values)
    assert (values[0] == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert (slopes[1][~mask] == 0).all()


# Two tables of items and colours; the second column shares the items.
INPUTS = Inputs(
    direct=(0, 2),
    shared=(Lookup(1, 0),),
    pooled=(
        PooledIds(2, 3, "mean"),
        PooledIds(0, 4, "target_attention", Lookup(0, 0)),
        PooledIds(1, 2, "sum"),
        PooledIds(0, 2, "attention"),
    ),
    vectors=(3, 1),
)
SIZES = (9, 4, 5)


def several_batch(rows=8):
    rng = np.random.default_rng(3)
    columns = [rng.integers(0, size, rows) for size in (9, 9, 4)]
    pooled = [
        np.where(rng.random((rows, width)) < 0.7, rng.integers(0, size, (rows, width)), -1)
        for size, width in ((5, 3), (9, 4), (4, 2), (9, 2))
    ]
    return {
        "categorical": np.stack(columns, axis=1),
        "numerical": rng.normal(size=(rows, 2)).astype(np.float32),
        "multivalued": np.concatenate(pooled, axis=1),
        "vectors": rng.normal(size=(rows, 4)).astype(np.float32),
    }


def test_vectors_of_all_fields_are_those_of_a_loop():
    batch = several_batch()
    module = FeatureEmbedding(SIZES, 2, DIM, "never", inputs=INPUTS)
    params = compiled(module.init, jax.random.key(0), batch)["params"]
    x = compiled(lambda params: module.apply({"params": params}, batch).concatenate(), params)
    x = x.reshape(8, -1, DIM)
    attend, soften = jax.jit(TargetAttention().apply), jax.jit(Attention().apply)
    items, colours, tags = np.split(np.asarray(params["embedding"]), np.cumsum(SIZES)[:-1])
    params = jax.tree.map(np.asarray, params)
    several = params["several"]
    for row in range(8):
        item, other, colour = batch["categorical"][row]
        bags = np.split(batch["multivalued"][row], [3, 7, 9])
        own, history, sums, mine = (bag[bag >= 0] for bag in bags)
        attended = attend(
            {"params": several["target_attention_1"]},
            items[history][None],
            items[item][None],
            np.ones((1, len(history)), bool),
        )
        softmax = soften(
            {"params": several["attention_3"]}, items[mine][None], np.ones((1, len(mine)), bool)
        )
        numbers = batch["numerical"][row] @ params["numerical_kernel"] + params["numerical_bias"]
        vectors = np.split(batch["vectors"][row], [3])
        projected = [
            v @ several[f"vector_kernel_{i}"] + several[f"vector_bias_{i}"]
            for i, v in enumerate(vectors)
        ]
        expected = [
            items[item], colours[colour], numbers, items[other],
            tags[own].mean(axis=0) if len(own) else np.zeros(DIM),
            attended[0], colours[sums].sum(axis=0), softmax[0], *projected,
        ]  # fmt: skip
        np.testing.assert_allclose(x[row], np.stack(expected), atol=1e-5)


def test_folded_and_plain_paths_are_equal_with_their_gradients():
    batch = several_batch()
    embed = {
        fold: FeatureEmbedding(SIZES, 2, DIM, fold, inputs=INPUTS) for fold in ("never", "always")
    }
    params = compiled(embed["never"].init, jax.random.key(0), batch)["params"]
    kernel = jax.random.normal(jax.random.key(1), (10 * DIM, 7))
    parts = {}

    def loss(params, fold):
        x = embed[fold].apply({"params": params}, batch)
        parts[fold] = x.folded
        return (jnp.tanh(x @ kernel) ** 2).sum() + (x.mean() ** 2).sum()

    plain, folded = (compiled(jax.value_and_grad(loss), params, fold) for fold in embed)
    assert parts["always"] == (*(True, True, True, False, True, False, True, False, True, True),)
    np.testing.assert_allclose(plain[0], folded[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain[1], folded[1])
