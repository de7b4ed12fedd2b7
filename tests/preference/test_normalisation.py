"""Loss normalisation: scales, gradients and state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Statistics, create_goal
from hyperrec_jax.preference.normalisation import (
    NORMALISERS,
    constant_losses,
    create_normaliser,
)

OPTIONS = {
    "reference": {"utopia": [0.08, 0.003], "nadir": [0.12, 0.006]},
    "entropy": {"constant_losses": [0.098, 0.0043]},
}
LOSSES = jnp.array([[0.1, 0.004], [0.12, 0.003]])


@pytest.mark.parametrize("name", sorted(NORMALISERS))
def test_normalisers_jit_and_reach_the_losses_alone(name: str) -> None:
    normaliser = create_normaliser(name, 2, **OPTIONS.get(name, {}))
    state = jax.jit(normaliser.update)(normaliser.init(), LOSSES[0])
    assert jax.tree.structure(state) == jax.tree.structure(normaliser.init())
    apply = jax.jit(normaliser.apply)
    assert apply(state, LOSSES).shape == LOSSES.shape
    if not normaliser.needs_several_preferences:
        np.testing.assert_allclose(apply(state, LOSSES[1]), apply(state, LOSSES)[1], rtol=1e-6)
    slopes = jax.grad(lambda losses: apply(state, losses).sum())
    assert (np.asarray(slopes(LOSSES)) > 0).all()
    assert np.isfinite(slopes(jnp.zeros((2, 2)))).all()
    assert np.isfinite(apply(normaliser.init(), jnp.zeros((2, 2)))).all()


def test_none_changes_nothing() -> None:
    normaliser = create_normaliser("none", 2)
    np.testing.assert_array_equal(normaliser.apply(normaliser.init(), LOSSES), LOSSES)


def test_running_scale_is_the_unbiased_average_of_the_past() -> None:
    normaliser = create_normaliser("running_scale", 2, decay=0.9)
    state = normaliser.init()
    np.testing.assert_allclose(normaliser.apply(state, LOSSES).mean(axis=0), 1, rtol=1e-6)
    past = np.random.default_rng(0).uniform(0.01, 0.1, (30, 2)).astype(np.float32)
    for losses in past:
        state = normaliser.update(state, jnp.asarray(losses))
    weights = 0.9 ** np.arange(29, -1, -1)
    expected = np.average(past, axis=0, weights=weights)
    np.testing.assert_allclose(normaliser.apply(state, LOSSES), LOSSES / expected, rtol=1e-5)


def test_running_scale_takes_no_gradient_through_its_first_step() -> None:
    normaliser = create_normaliser("running_scale", 2)
    slopes = jax.grad(lambda x: normaliser.apply(normaliser.init(), x).sum())(LOSSES[0])
    np.testing.assert_allclose(slopes, 1 / LOSSES[0], rtol=1e-6)


def test_front_places_the_preferences_within_the_batch() -> None:
    normaliser = create_normaliser("front", 2, decay=0.5, floor=0.01)
    preferences = jnp.array([[0.10, 0.0060], [0.12, 0.0045], [0.14, 0.0040]])
    state = normaliser.update(normaliser.init(), preferences)
    np.testing.assert_allclose(
        normaliser.apply(state, preferences), [[0, 1], [0.5, 0.25], [1, 0]], atol=1e-6
    )
    # The noise that all preferences share moves nothing.
    np.testing.assert_allclose(
        normaliser.apply(state, preferences + jnp.array([0.01, 0.001])),
        normaliser.apply(state, preferences),
        atol=1e-5,
    )
    state = normaliser.update(state, preferences[:2])
    spans = (np.array([0.04, 0.002]) * 0.25 + np.array([0.02, 0.0015]) * 0.5) / 0.75
    np.testing.assert_allclose(
        normaliser.apply(state, preferences).max(axis=0) * spans, [0.04, 0.002], rtol=1e-5
    )


def test_front_takes_what_is_below_the_floor_for_noise() -> None:
    normaliser = create_normaliser("front", 2, floor=0.1)
    preferences = jnp.array([[1.0, 0.5], [1.01, 0.5]])
    state = normaliser.update(normaliser.init(), preferences)
    np.testing.assert_allclose(
        normaliser.apply(state, preferences)[1], [0.01 / 0.1005, 0], rtol=1e-4
    )


def test_running_scale_forgets_a_step_that_is_not_finite() -> None:
    normaliser = create_normaliser("running_scale", 2)
    state = normaliser.update(normaliser.init(), LOSSES[0])
    spoilt = normaliser.update(state, jnp.array([jnp.nan, 0.1]))
    jax.tree.map(np.testing.assert_array_equal, state, spoilt)


def test_reference_runs_from_zero_to_one() -> None:
    normaliser = create_normaliser("reference", 2, **OPTIONS["reference"])
    values = normaliser.apply((), jnp.array([[0.08, 0.006], [0.12, 0.003]]))
    np.testing.assert_allclose(values, [[0, 1], [1, 0]], atol=1e-6)


def test_entropy_scales_a_constant_prediction_to_one() -> None:
    rates = np.array([0.02, 0.0005])
    rows = 10**10
    known = [Statistics.of([0, 1], [rows * (1 - rate), rows * rate]) for rate in rates]
    goals = [create_goal("binary", name) for name in "ab"]
    losses = constant_losses(goals, known)
    normaliser = create_normaliser("entropy", 2, constant_losses=losses)
    constant = [stats.bernoulli(rate).entropy() for rate in rates]
    np.testing.assert_allclose(normaliser.apply((), jnp.array(constant)), 1, rtol=1e-5)


def test_constant_losses_of_all_kinds() -> None:
    labels = np.random.default_rng(0).poisson(2, 1000)
    known = Statistics.of(labels)
    goals = [create_goal(kind, kind).fitted(known) for kind in ("regression", "count", "value")]
    losses = constant_losses(goals, [known] * 3)
    expected = [goal.constant_loss(known) for goal in goals]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    # A label of one class only has a scale, too.
    one_class = constant_losses([create_goal("binary", "a")], [Statistics.of(np.zeros(1000))])
    assert 0 < one_class[0] < 0.01


def test_log_makes_gradients_relative() -> None:
    normaliser = create_normaliser("log", 2)
    slopes = jax.grad(lambda x: normaliser.apply((), x).sum())(LOSSES)
    np.testing.assert_allclose(slopes, 1 / LOSSES, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("zscore", {}, "no normaliser 'zscore'; there are entropy"),
        ("running_scale", {"decay": 1.0}, r"give a number in \[0, 1\)"),
        ("reference", {"utopia": [0.1, 0.1]}, "needs the option 'nadir'"),
        ("reference", {"utopia": [0.1, 0.1], "nadir": [0.2, 0.1]}, "above utopia"),
        ("reference", {"utopia": [0.1], "nadir": [0.2, 0.1]}, "give 2 finite numbers"),
        ("entropy", {"constant_losses": [0.1, 0.0]}, "labels are all the same"),
    ],
)
def test_bad_normalisers_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_normaliser(name, 2, **options)
