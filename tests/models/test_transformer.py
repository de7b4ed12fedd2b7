"""The transformer that reads a history, against PyTorch with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hyperrec_jax.models.transformer import Transformer

pytestmark = pytest.mark.slow

DIM, LENGTH = 8, 5
LENGTHS = np.array([0, 5, 3, 1])
MASK = np.arange(LENGTH) < LENGTHS[:, None]


def example():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(LENGTHS), LENGTH, DIM)).astype(np.float32)
    return vectors, rng.normal(size=(len(LENGTHS), DIM)).astype(np.float32)


def reference(params):
    """PyTorch's whole encoder layer with our weights."""
    layer = torch.nn.TransformerEncoderLayer(
        DIM, nhead=4, dim_feedforward=2 * DIM, dropout=0.0, batch_first=True
    ).eval()

    def weight(name):
        return torch.tensor(np.asarray(params[name]).T)

    with torch.no_grad():
        parts = ("query", "key", "value")
        attention = layer.self_attn
        attention.in_proj_weight.copy_(torch.cat([weight(f"{p}_kernel") for p in parts]))
        attention.in_proj_bias.copy_(torch.cat([weight(f"{p}_bias") for p in parts]))
        for own, theirs in (
            ("projection", attention.out_proj),
            ("hidden", layer.linear1),
            ("output", layer.linear2),
        ):
            theirs.weight.copy_(weight(f"{own}_kernel"))
            theirs.bias.copy_(weight(f"{own}_bias"))
        for own, theirs in (("attention_norm", layer.norm1), ("output_norm", layer.norm2)):
            theirs.weight.copy_(weight(f"{own}_scale"))
            theirs.bias.copy_(weight(f"{own}_shift"))
    return layer


@pytest.mark.parametrize("with_target", [True, False])
def test_the_block_is_that_of_pytorch(with_target):
    vectors, target = example()
    asked = target if with_target else None
    module = Transformer()
    params = module.init(jax.random.key(0), vectors, MASK, asked)["params"]
    # Norms and positions that do something.
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * np.random.default_rng(leaf.size).normal(size=leaf.shape), params
    )
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    pooled = module.apply({"params": params}, vectors, MASK, asked)
    layer, positions = reference(params), np.asarray(params["positions"])
    for row, length in enumerate(LENGTHS):
        if not length:
            assert (pooled[row] == 0).all()
            continue
        tokens = [vectors[row, i] + positions[length - 1 - i] for i in range(length)]
        if with_target:
            tokens.append(target[row] + np.asarray(params["target_position"]))
        # Padding as PyTorch masks it.
        padded = np.stack([*tokens, *[np.full(DIM, 9.0)] * (LENGTH + 1 - len(tokens))])
        away = torch.tensor(np.arange(LENGTH + 1) >= len(tokens))[None]
        inputs = torch.tensor(padded[None], dtype=torch.float32)
        expected = layer(inputs, src_key_padding_mask=away).detach()[0, len(tokens) - 1]
        np.testing.assert_allclose(pooled[row], expected, atol=1e-5)


@pytest.mark.parametrize("with_target", [True, False])
def test_padding_and_empty_histories_change_nothing(with_target):
    vectors, target = example()
    rest = (MASK, target) if with_target else (MASK,)
    module = Transformer()
    params = module.init(jax.random.key(0), vectors, *rest)
    other = np.where(MASK[..., None], vectors, 1e4).astype(np.float32)
    pooled, same = (jax.jit(module.apply)(params, each, *rest) for each in (vectors, other))
    np.testing.assert_array_equal(pooled, same)
    slopes = jax.grad(lambda p, v: (module.apply(p, v, *rest) ** 2).sum(), (0, 1))(params, other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert (slopes[1][~MASK] == 0).all()
    assert (np.abs(slopes[1][MASK]).sum(axis=-1) > 0).any()


def test_the_order_of_a_history_tells():
    vectors, target = example()
    module = Transformer()
    params = module.init(jax.random.key(0), vectors, MASK, target)
    turned = vectors.copy()
    turned[1] = vectors[1, ::-1]
    one, other = (module.apply(params, each, MASK, target) for each in (vectors, turned))
    assert np.abs(one[1] - other[1]).max() > 1e-4
    np.testing.assert_array_equal(one[2:], other[2:])
