"""The quick gradient of a product is the product's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models.products import product


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("width", [1, 5])
def test_value_and_gradients_are_those_of_the_plain_product(lead, width):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (*lead, 7, width))
    kernel = jax.random.normal(keys[1], (width, 4))

    def with_gradients(multiply):
        loss = jax.value_and_grad(lambda *values: jnp.sin(multiply(*values)).sum(), (0, 1))
        return loss(x, kernel)

    ours, expected = with_gradients(product), with_gradients(jnp.matmul)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, expected
    )
