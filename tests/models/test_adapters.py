import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models.adapters import ADAPTERS
from hyperrec_jax.models.banks import Bank

WIDTH, OUT, CODE, RANK = 4, 5, 3, 2
PLAIN = ("kernel", "bias", "scale", "shift")


@pytest.mark.parametrize("name", ["film", "low_rank"])
def test_adapters_begin_as_the_identity_and_can_leave_it(name):
    x, code = jax.random.normal(jax.random.key(0), (8, WIDTH)), jnp.ones((1, CODE))
    bank = Bank(copies=2, widths=(OUT,), norm="layer", adapter=name, rank=RANK)
    variables = bank.init(jax.random.key(1), x, False, code)
    layer = {key: variables["params"]["layer_0"][key] for key in PLAIN}
    plain = Bank(copies=2, widths=(OUT,), norm="layer").apply(
        {"params": {"layer_0": layer}}, x, False
    )
    np.testing.assert_allclose(bank.apply(variables, x, False, code), plain, atol=1e-6)

    def loss(params, code):
        return (bank.apply({"params": params}, x, False, code) ** 2).sum()

    gradients = jax.grad(loss)(variables["params"], code)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], gradients)
    assert loss(moved, code) < loss(variables["params"], code)
    assert abs(loss(moved, code) - loss(moved, 2 * code)) > 1e-4


def test_film_scales_and_shifts():
    parameters = ADAPTERS["film"].init(jax.random.key(0), WIDTH, OUT, CODE, RANK)
    parameters["film_bias"] = jnp.arange(2.0 * OUT)
    y = jax.random.normal(jax.random.key(1), (3, OUT))
    adapted = ADAPTERS["film"].after_norm(parameters, y, jnp.zeros((1, CODE)))
    gamma, beta = jnp.arange(OUT), jnp.arange(OUT, 2 * OUT)
    np.testing.assert_allclose(adapted, y * (1 + gamma) + beta, rtol=1e-6)


def test_low_rank_is_a_kernel_of_its_own_for_every_code():
    parameters = ADAPTERS["low_rank"].init(jax.random.key(0), WIDTH, OUT, CODE, RANK)
    parameters["up"] = jax.random.normal(jax.random.key(1), (RANK, OUT))
    x = jax.random.normal(jax.random.key(2), (6, WIDTH))
    kernel = jax.random.normal(jax.random.key(3), (WIDTH, OUT))
    codes = jax.random.normal(jax.random.key(4), (6, CODE))
    adapted = ADAPTERS["low_rank"].before_norm(parameters, x, x @ kernel, codes)
    for row, code in enumerate(codes):
        diagonal = jnp.diag(code @ parameters["diagonal"])
        own = kernel + parameters["down"] @ diagonal @ parameters["up"]
        np.testing.assert_allclose(adapted[row], x[row] @ own, atol=1e-4)
