import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hyperrec_jax.models import norms


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_that_of_torch(train):
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (16, 5)).astype(np.float32)
    oracle = torch.nn.BatchNorm1d(5).train(train)
    with torch.no_grad():
        for values in (oracle.weight, oracle.bias, oracle.running_mean, oracle.running_var):
            values.uniform_(0.5, 1.5)
    stats = {"mean": oracle.running_mean.numpy(), "variance": oracle.running_var.numpy()}
    stats = jax.tree.map(np.array, stats)
    scale, shift = (values.detach().numpy() for values in (oracle.weight, oracle.bias))
    bias = np.linspace(-1, 1, 5, dtype=np.float32)
    y, new = norms.batch_norm(x - bias, bias, scale, shift, stats, train)
    np.testing.assert_allclose(y, oracle(torch.from_numpy(x)).detach(), atol=1e-5)
    np.testing.assert_allclose(new["mean"], oracle.running_mean, atol=1e-6)
    np.testing.assert_allclose(new["variance"], oracle.running_var, rtol=1e-5)


def test_batch_norm_normalises_every_preference_apart():
    x = jax.random.normal(jax.random.key(0), (3, 16, 5)) * jnp.arange(1, 4)[:, None, None]
    one, zero = jnp.ones(5), jnp.zeros(5)
    stats = {"mean": zero, "variance": one}
    y, new = norms.batch_norm(x, zero, one, zero, stats, True)
    apart = [norms.batch_norm(part, zero, one, zero, stats, True) for part in x]
    np.testing.assert_allclose(y, jnp.stack([part for part, _ in apart]), atol=1e-5)
    for name, value in new.items():
        expected = np.mean([stats[name] for _, stats in apart], axis=0)
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_pooled_batch_norm_shares_the_statistics_of_all_preferences():
    x = np.random.default_rng(0).normal(1, 2, (3, 8, 5)).astype(np.float32)
    zeros, ones = np.zeros(5, np.float32), np.ones(5, np.float32)
    stats = {"mean": zeros, "variance": ones}
    together = norms.batch_norm(x, zeros, ones, zeros, stats, True, pooled=True)
    rows = norms.batch_norm(x.reshape(24, 5), zeros, ones, zeros, stats, True)
    np.testing.assert_allclose(together[0].reshape(24, 5), rows[0], rtol=1e-5, atol=1e-6)
    for name in stats:
        np.testing.assert_allclose(together[1][name], rows[1][name], rtol=1e-6)


def test_layer_norm_is_that_of_torch():
    x = np.random.default_rng(0).normal(1, 2, (4, 7)).astype(np.float32)
    scale, shift = np.linspace(1, 2, 7, dtype=np.float32), np.linspace(-1, 1, 7, dtype=np.float32)
    expected = torch.nn.functional.layer_norm(
        *map(torch.from_numpy, (x,)), (7,), torch.from_numpy(scale), torch.from_numpy(shift)
    )
    np.testing.assert_allclose(norms.layer_norm(x, scale, shift), expected, atol=1e-5)
