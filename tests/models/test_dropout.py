import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models.dropout import dropout


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.999])
def test_dropout_is_unbiased(rate):
    x = jnp.ones((501, 803))
    dropped = np.asarray(dropout(jax.random.key(0), x, rate))
    kept = max(256 - round(256 * rate), 1) / 256
    assert set(np.unique(dropped)) == {0, np.float32(1 / kept)}
    error = 4 * np.sqrt((1 - kept) / kept / x.size)
    assert dropped.mean() == pytest.approx(1, abs=error)
    for axis in (0, 1):  # No unit and no row has a rate of its own.
        spread = dropped.mean(axis=axis).std()
        assert spread == pytest.approx(np.sqrt((1 - kept) / kept / x.shape[axis]), rel=0.15)


def test_dropout_follows_its_key():
    x = jnp.ones((8, 6))
    one, same, other = (dropout(jax.random.key(k), x, 0.5) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    np.testing.assert_array_equal(dropout(jax.random.key(0), x, 0.0), x)
