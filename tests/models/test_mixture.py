"""Lazy mixtures of experts, and experts tied to tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models.banks import Bank
from hyperrec_jax.models.gates import FLOOR, POWER, Anchors
from hyperrec_jax.models.mixture import Mixture
from tests.support.compiled import compiled

ROWS, EXPERTS, WIDTH, OUT = 6, 3, 5, 4


@pytest.mark.parametrize("preferences", [None, 2, 8])
@pytest.mark.parametrize("shared", [False, True])
def test_both_orders_are_the_weighted_sum_times_the_kernel(preferences, shared):
    lead = () if preferences is None else (preferences,)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = jax.random.uniform(keys[0], (*lead, 1 if shared else ROWS, EXPERTS))
    experts = jax.random.normal(keys[1], (EXPERTS, ROWS, WIDTH))
    kernel = jax.random.normal(keys[2], (WIDTH, OUT))

    def lazy(weights, experts, kernel):
        mixture = Mixture(weights, experts)
        assert mixture.shape == (*lead, ROWS, WIDTH)
        return mixture @ kernel

    def plain(weights, experts, kernel):
        wide = jnp.broadcast_to(weights, (*lead, ROWS, EXPERTS))
        return jnp.einsum("...be,ebh,ho->...bo", wide, experts, kernel)

    def with_gradients(function):
        loss = jax.grad(lambda *values: jnp.sin(function(*values)).sum(), (0, 1, 2))
        return function(weights, experts, kernel), *loss(weights, experts, kernel)

    results = jax.jit(lambda: (with_gradients(lazy), with_gradients(plain)))()
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_experts_may_depend_on_the_preference():
    keys = jax.random.split(jax.random.key(0), 2)
    weights = jax.random.uniform(keys[0], (2, 1, EXPERTS))
    experts = jax.random.normal(keys[1], (EXPERTS, 2, ROWS, WIDTH))
    assert Mixture(weights, experts).shape == (2, ROWS, WIDTH)

    @jax.jit
    def product(weights, experts):
        return Mixture(weights, experts) @ jnp.eye(WIDTH)

    weights, experts = np.asarray(weights), np.asarray(experts)
    together = product(weights, experts)
    for preference in range(2):
        expected = product(weights[preference], experts[:, preference])
        np.testing.assert_allclose(together[preference], expected, rtol=1e-5)


def test_anchors_favour_the_experts_of_the_weighted_task():
    anchors = Anchors(5)
    preferences = jnp.array([[[1.0, 0.0]], [[0.25, 0.75]]])
    logits, _ = jax.jit(anchors.init_with_output)(jax.random.key(0), preferences)
    assert logits.shape == (2, 1, 5)
    for preference, weights in zip(preferences, jax.nn.softmax(logits), strict=True):
        expected = (preference[0, jnp.array([0, 1, 0, 1, 0])] + FLOOR) ** POWER
        np.testing.assert_allclose(weights[0], expected / expected.sum(), rtol=1e-5)
    assert logits.min() == 0  # so that a ReLU gate begins alive


def test_networks_that_begin_alike():
    x = jax.random.normal(jax.random.key(0), (ROWS, WIDTH))
    for alike in (True, False):
        bank = Bank(3, (OUT,), outputs=2, alike=alike)
        start = jax.jit(bank.init_with_output, static_argnums=2)
        outputs, _ = start(jax.random.key(1), x, False)
        assert np.array_equal(outputs[0], outputs[1]) == alike
        assert np.array_equal(outputs[0], outputs[2]) == alike


@pytest.mark.parametrize("block", ["residual", "cross"])
def test_blocks_add_to_their_input(block):
    x = jax.random.normal(jax.random.key(0), (ROWS, WIDTH))
    plain, extended = (Bank(2, (OUT,), block=kind) for kind in ("none", block))
    variables = jax.jit(extended.init, static_argnums=2)(jax.random.key(1), x, False)
    layer = variables["params"].pop("block")
    hidden = np.asarray(compiled(plain.apply, variables, x, False))
    y = hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])[:, None]
    expected = hidden + (np.maximum(y, 0) if block == "residual" else hidden * y)
    variables["params"]["block"] = layer
    found = compiled(extended.apply, variables, x, False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
