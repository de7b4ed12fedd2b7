"""What all goals with a loss for each row have in common."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import RowGoal, Rows, Statistics, create_goal

quick = settings(deadline=None, max_examples=15)
ROWS = 24

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "binary": ("binary", {}),
    "sampled": ("binary", {"sampling_rate": 0.1}),
    "squared": ("regression", {"error": "squared", "target": "identity"}),
    "squared_log1p": ("regression", {"error": "squared", "target": "log1p"}),
    "squared_standardised": ("regression", {"error": "squared", "target": "standardised"}),
    "huber": ("regression", {"error": "huber", "target": "identity", "delta": 0.7}),
    "huber_log1p": ("regression", {"error": "huber", "target": "log1p", "delta": 0.3}),
    "huber_standardised": ("regression", {"error": "huber", "target": "standardised"}),
    "count": ("count", {}),
    "value": ("value", {}),
}
EVERY = pytest.mark.parametrize("case", CASES)


def draw_labels(case: str, generator: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    """Labels of the kind, at least two of them different."""
    kind = CASES[case][0]
    if kind == "binary":
        labels = generator.random(rows) < generator.uniform(0.1, 0.9)
    elif kind == "count":
        labels = generator.poisson(generator.uniform(0.1, 20), rows)
    elif kind == "value":
        amounts = generator.lognormal(generator.uniform(-2, 8), generator.uniform(0.2, 2), rows)
        labels = amounts * (generator.random(rows) < 0.6)
    else:
        labels = generator.lognormal(0, 1, rows) * 3
    labels = labels.astype(np.float32)
    labels[:4] = [0, 1, 0, 1] if kind in ("binary", "count") else [0, 2, 0, 5]
    return labels


def fitted(case: str, statistics: Statistics) -> RowGoal:
    kind, options = CASES[case]
    goal = create_goal(kind, case, **options)
    assert isinstance(goal, RowGoal)
    return goal.fitted(statistics)


@functools.cache
def compiled(goal: RowGoal) -> Any:
    """Mean loss of constant outputs, and its gradient."""

    def loss(constant: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        outputs = jnp.broadcast_to(constant, (*labels.shape, goal.outputs))
        return goal.batch_loss(outputs, Rows(labels, weights=weights))

    return jax.jit(jax.value_and_grad(loss))


@EVERY
@quick
@given(seed=st.integers(0, 2**32 - 1), weighted=st.booleans())
def test_constant_loss_is_the_minimum_over_constants(case: str, seed: int, weighted: bool) -> None:
    generator = np.random.default_rng(seed)
    # Fitted to other labels once and for all, as for an evaluation split; so it compiles once.
    goal = fitted(case, Statistics.of(draw_labels(case, np.random.default_rng(0))))
    labels = draw_labels(case, generator)
    weights = generator.uniform(0, 3, ROWS) if weighted else np.ones(ROWS)
    statistics = Statistics.of(labels, weights)
    constant, prior = goal.constant_loss(statistics), goal.prior(statistics)
    assert prior.shape == (goal.outputs,)

    def function(outputs: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = compiled(goal)(outputs.astype(np.float32), labels, weights)
        return float(loss), np.asarray(gradient, np.float64)

    tolerance = 2e-5 * max(1, abs(constant))
    assert function(prior)[0] == pytest.approx(constant, abs=tolerance)
    start = prior + generator.normal(0, 0.5, goal.outputs)
    best = optimize.minimize(function, start, jac=True, method="BFGS")
    assert best.fun == pytest.approx(constant, abs=20 * tolerance)
    assert best.fun >= constant - tolerance
    for _ in range(5):
        other = prior + generator.normal(0, generator.choice([0.01, 1, 5]), goal.outputs)
        assert function(other)[0] >= constant - tolerance


@EVERY
def test_gradients_are_finite_at_extremes(case: str) -> None:
    generator = np.random.default_rng(1)
    labels = draw_labels(case, generator)
    if CASES[case][0] in ("count", "value"):
        labels[4:7] = [1e6, 1e9, 3]
    goal = fitted(case, Statistics.of(labels))
    scales = np.array([0, 1, -1, 30, -30, 1e3, -1e3, 1e4, -1e4])
    outputs = jnp.asarray(scales[:, None, None] * np.ones((ROWS, goal.outputs)), jnp.float32)
    losses = jax.jit(goal.loss)(outputs, labels)
    gradients = jax.jit(jax.grad(lambda out: goal.loss(out, labels).sum()))(outputs)
    assert losses.shape == (len(scales), ROWS)
    assert losses.dtype == jnp.float32
    assert jnp.isfinite(losses).all()
    assert jnp.isfinite(gradients).all()
    assert jnp.isfinite(goal.predict(outputs)).all()
    assert np.isfinite(goal.predict(np.asarray(outputs, np.float64))).all()


@EVERY
def test_rows_without_a_label_count_for_nothing(case: str) -> None:
    generator = np.random.default_rng(2)
    labels = draw_labels(case, generator)
    goal = fitted(case, Statistics.of(labels))
    mask = generator.random(ROWS) < 0.6
    outputs = jnp.asarray(generator.normal(size=(ROWS, goal.outputs)), jnp.float32)
    gaps = np.where(mask, labels, np.nan)

    function = jax.jit(jax.value_and_grad(goal.batch_loss))
    value, gradient = function(outputs, Rows(gaps, mask))
    kept = jax.jit(goal.batch_loss)(outputs[mask], Rows(labels[mask]))
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    assert not gradient[~mask].any()
    assert gradient[mask].any()
    nothing = Rows(np.full(ROWS, np.nan), np.zeros(ROWS, bool))
    value, gradient = function(outputs, nothing)
    assert value == 0
    assert not gradient.any()


@EVERY
def test_jit_and_vmap_over_preferences(case: str) -> None:
    generator = np.random.default_rng(3)
    labels = draw_labels(case, generator)
    goal = fitted(case, Statistics.of(labels))
    outputs = jnp.asarray(generator.normal(size=(3, ROWS, goal.outputs)), jnp.float32)
    rows = Rows(labels, labels > 0.5, generator.uniform(0, 2, ROWS).astype(np.float32))
    together = jax.jit(goal.batch_loss)(outputs, rows)
    apart = jax.jit(jax.vmap(lambda out: goal.batch_loss(out, rows)))(outputs)
    assert together.shape == (3,)
    np.testing.assert_allclose(together, apart, rtol=1e-5)
    for one, alone in zip(outputs, together, strict=True):
        np.testing.assert_allclose(goal.batch_loss(one, rows), alone, rtol=1e-5)
    predictions = jax.jit(goal.predict)(outputs)
    assert predictions.shape == (3, ROWS)
    np.testing.assert_allclose(predictions, goal.predict(np.asarray(outputs)), rtol=2e-5)


@EVERY
def test_bfloat16_outputs_are_computed_in_float32(case: str) -> None:
    generator = np.random.default_rng(4)
    labels = draw_labels(case, generator)
    goal = fitted(case, Statistics.of(labels))
    outputs = jnp.asarray(generator.normal(size=(ROWS, goal.outputs)), jnp.bfloat16)
    assert (goal.loss(outputs, labels) == goal.loss(outputs.astype(jnp.float32), labels)).all()
    assert goal.loss(outputs, labels).dtype == jnp.float32
    assert goal.predict(outputs).dtype == jnp.float32


@EVERY
def test_prior_predicts_the_mean(case: str) -> None:
    labels = draw_labels(case, np.random.default_rng(5))
    statistics = Statistics.of(labels)
    goal = fitted(case, statistics)
    prediction = float(goal.predict(goal.prior(statistics)[None])[0])
    if case == "sampled":
        rate = labels.mean()
        assert prediction == pytest.approx(rate / (rate + (1 - rate) / 0.1))
    elif case == "value":
        logs = np.log(labels[labels > 0].astype(np.float64))
        expected = (labels > 0).mean() * np.exp(logs.mean() + logs.var() / 2)
        assert prediction == pytest.approx(expected, rel=1e-4)
    elif case == "squared_log1p":
        assert prediction == pytest.approx(np.expm1(np.log1p(labels).mean()))
    elif not case.startswith("huber"):
        assert prediction == pytest.approx(labels.mean(), rel=1e-5)
    else:
        assert labels.min() < prediction < labels.max()


@EVERY
def test_metrics_of_a_random_model(case: str) -> None:
    """Every metric reads outputs of every number of rows, and rows of weight 0 change none."""
    generator = np.random.default_rng(6)
    labels = draw_labels(case, generator)
    goal = fitted(case, Statistics.of(labels))
    outputs = generator.normal(size=(ROWS, goal.outputs)).astype(np.float32)
    weights = (generator.random(ROWS) < 0.7).astype(np.float64)
    weights[:4] = 1
    kept = weights > 0
    assert goal.primary in goal.metrics
    for metric in goal.metrics.values():
        value = metric(labels, outputs, weights)
        assert np.isfinite(value)
        assert value == pytest.approx(metric(labels[kept], outputs[kept]))
        assert np.isnan(metric(labels[:0], outputs[:0]))
        with pytest.raises(UserError, match="the outputs of 1 of 24 rows are NaN"):
            metric(labels, np.where(np.arange(ROWS)[:, None] == 3, np.nan, outputs))
        with pytest.raises(ValueError, match="leave out the rows without a label"):
            metric(np.full(ROWS, np.nan), outputs)
        with pytest.raises(ValueError, match=r"must be \[row\]"):
            metric(labels[1:], outputs)
        with pytest.raises(ValueError, match="weights"):
            metric(labels, outputs, -weights)
        with pytest.raises(ValueError, match="weights"):
            metric(labels, outputs, weights[1:])


@EVERY
def test_goals_are_hashable_and_equal_by_value(case: str) -> None:
    statistics = Statistics.of(draw_labels(case, np.random.default_rng(7)))
    assert fitted(case, statistics) == fitted(case, statistics)
    assert hash(fitted(case, statistics)) == hash(fitted(case, statistics))


@EVERY
def test_without_labels_there_is_no_constant(case: str) -> None:
    goal = fitted(case, Statistics.of(draw_labels(case, np.random.default_rng(8))))
    for statistics in (Statistics.of([]), Statistics.of([1.0], [0.0])):
        for function in (goal.prior, goal.constant_loss):
            with pytest.raises(UserError, match=f"goal '{case}' has no row with a label"):
                function(statistics)


@EVERY
def test_accepts_its_labels(case: str) -> None:
    labels = draw_labels(case, np.random.default_rng(9))
    goal = fitted(case, Statistics.of(labels))
    assert goal.accepts(labels).all()
    assert not goal.accepts(np.array([np.nan, np.inf])).any()
    assert goal.label_rule
