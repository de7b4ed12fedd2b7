import functools

import jax
import numpy as np
import pytest

from hyperrec_jax.models.adapters import ADAPTERS
from hyperrec_jax.models.banks import Bank
from tests.support.compiled import compiled

pytestmark = pytest.mark.slow

WIDTH, OUT, CODE, RANK = 4, 5, 3, 2
PLAIN = ("kernel", "bias", "scale", "shift")


@pytest.mark.parametrize("name", ["film", "low_rank"])
def test_adapters_begin_as_the_identity_and_can_leave_it(name):
    x = np.random.default_rng(0).normal(size=(8, WIDTH)).astype(np.float32)
    code = np.ones((1, CODE), np.float32)
    bank = Bank(copies=2, widths=(OUT,), norm="layer", adapter=name, rank=RANK)
    variables = compiled(bank.init, jax.random.key(1), x, False, code)
    layer = {key: variables["params"]["layer_0"][key] for key in PLAIN}
    plain = Bank(copies=2, widths=(OUT,), norm="layer")
    expected = compiled(plain.apply, {"params": {"layer_0": layer}}, x, False)
    found = compiled(bank.apply, variables, x, False, code)
    np.testing.assert_allclose(found, expected, atol=1e-6)

    @jax.jit
    def loss(params, code):
        return (bank.apply({"params": params}, x, False, code) ** 2).sum()

    @jax.jit
    def descended(params, code):
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params, code))

    moved = descended(variables["params"], code)
    assert loss(moved, code) < loss(variables["params"], code)
    assert abs(loss(moved, code) - loss(moved, 2 * code)) > 1e-4


def _parameters(name):
    init = functools.partial(ADAPTERS[name].init, width=WIDTH, out=OUT, code=CODE, rank=RANK)
    return jax.jit(init)(jax.random.key(0))


def test_film_scales_and_shifts():
    parameters = _parameters("film")
    parameters["film_bias"] = np.arange(2.0 * OUT, dtype=np.float32)
    y = np.random.default_rng(1).normal(size=(3, OUT)).astype(np.float32)
    code = np.zeros((1, CODE), np.float32)
    adapted = compiled(ADAPTERS["film"].after_norm, parameters, y, code)
    gamma, beta = np.arange(OUT), np.arange(OUT, 2 * OUT)
    np.testing.assert_allclose(adapted, y * (1 + gamma) + beta, rtol=1e-6)


def test_low_rank_is_a_kernel_of_its_own_for_every_code():
    rng = np.random.default_rng(1)
    shapes = (RANK, OUT), (6, WIDTH), (WIDTH, OUT), (6, CODE)
    up, x, kernel, codes = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    parameters = jax.tree.map(np.asarray, _parameters("low_rank")) | {"up": up}
    adapted = compiled(ADAPTERS["low_rank"].before_norm, parameters, x, x @ kernel, codes)
    for row, code in enumerate(codes):
        diagonal = np.diag(code @ parameters["diagonal"])
        own = kernel + parameters["down"] @ diagonal @ parameters["up"]
        np.testing.assert_allclose(adapted[row], x[row] @ own, atol=1e-4)
