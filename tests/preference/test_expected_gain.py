"""The score of a list: the expected gain, and its logarithm."""

import itertools

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.errors import UserError
from hyperrec_jax.preference.expected_gain import (
    expected_gain,
    gain_scales,
    log_expected_gain,
    structured_score,
)

LOGITS = arrays.arrays(np.float64, (6, 3), elements=st.floats(-30, 30))
WEIGHTS = arrays.arrays(np.float64, 3, elements=st.sampled_from([0.0, 0.1, 0.5, 1.0])).filter(
    lambda weights: weights.sum() > 0
)
SCALES = arrays.arrays(np.float64, 3, elements=st.floats(1e-3, 1e3))


@settings(deadline=None)
@given(LOGITS, WEIGHTS, SCALES)
def test_structured_score_is_the_logarithm_of_the_formula(logits, weights, scales):
    expected = np.log(expected_gain(scipy.special.expit(logits), weights, scales))
    np.testing.assert_allclose(
        structured_score(logits, weights, scales), expected, rtol=1e-9, atol=1e-12
    )


@settings(max_examples=30, deadline=None)
@given(LOGITS, WEIGHTS, SCALES)
def test_jax_equals_numpy(logits, weights, scales):
    logits, weights, scales = (x.astype(np.float32) for x in (logits, weights, scales))
    ours = structured_score(jnp.asarray(logits), jnp.asarray(weights), jnp.asarray(scales))
    assert isinstance(ours, jax.Array)
    values = structured_score(logits, weights, scales)
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float32
    np.testing.assert_allclose(ours, values, rtol=1e-5, atol=1e-5)


def test_no_order_has_a_larger_expected_value():
    """Rearrangement, by trying all orders of five rows."""
    generator = np.random.default_rng(0)
    expectations, scales = generator.random((5, 2)), np.array([0.1, 3.0])
    discounts = 1 / np.log2(np.arange(5) + 2)
    for weight in (0.0, 0.3, 0.8, 1.0):
        weights = np.array([weight, 1 - weight])

        def value(order, weights=weights):
            sums = (discounts[:, None] * expectations[list(order)]).sum(0)
            return (weights * sums / scales).sum()

        best = max(map(value, itertools.permutations(range(5))))
        by_score = np.argsort(-expected_gain(expectations, weights, scales))
        assert value(by_score) == pytest.approx(best)


@pytest.mark.parametrize("far", [-200.0, 200.0])
def test_values_and_gradients_are_finite_at_a_weight_of_0_and_far_logits(far):
    logits = jnp.array([[far, -far], [-far, far], [far, far]])
    weights, scales = jnp.array([1.0, 0.0]), jnp.array([0.1, 1e-6])

    def total(logits, weights):
        return structured_score(logits, weights, scales).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(logits, weights)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert not gradients[0][:, 1].any()
    alone = -jnp.logaddexp(0, -logits[:, 0]) - jnp.log(scales[0])
    np.testing.assert_allclose(structured_score(logits, weights, scales), alone, rtol=1e-6)


def test_gradient_is_each_goals_share_of_the_gain():
    logits, weights = jnp.array([[0.3, -1.0]]), jnp.array([0.4, 0.6])
    scales = jnp.array([0.2, 0.05])
    gradient = jax.grad(lambda z: structured_score(z, weights, scales)[0])(logits)
    parts = weights * jax.nn.sigmoid(logits) / scales
    expected = parts / parts.sum() * (1 - jax.nn.sigmoid(logits))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_the_three_forms_of_a_preference():
    generator = np.random.default_rng(1)
    logits, scales = generator.normal(size=(4, 2)), np.array([1.0, 2.0])
    grid = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    each = np.stack([structured_score(logits, weights, scales) for weights in grid])
    np.testing.assert_allclose(structured_score(logits, grid[:, None], scales), each)
    per_row = grid[[0, 1, 2, 1]]
    np.testing.assert_allclose(
        structured_score(logits, per_row, scales), each[[0, 1, 2, 1], np.arange(4)]
    )


def test_amounts_take_part_by_their_logarithm():
    expectations = np.array([[0.1, 20.0], [0.7, 3.0]])
    weights, scales = np.array([0.3, 0.7]), np.array([0.4, 9.0])
    np.testing.assert_allclose(
        np.exp(log_expected_gain(np.log(expectations), weights, scales)),
        expected_gain(expectations, weights, scales),
    )


def test_scales_are_means_and_a_goal_without_gain_is_refused():
    np.testing.assert_allclose(
        gain_scales(np.array([[[0.1, 2.0]], [[0.3, 4.0]]]), ("click", "spend")), [0.2, 3.0]
    )
    with pytest.raises(UserError, match=r"goal spend: the mean of its expected gains .* is 0"):
        gain_scales(np.array([[0.1, 0.0]]), ("click", "spend"))
