"""Statistics of labels in one pass, and masked means."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.goals import Statistics, create_goal, masked_mean

quick = settings(deadline=None, max_examples=40)


@quick
@given(seed=st.integers(0, 2**32 - 1), chunks=st.integers(1, 6), offset=st.sampled_from([0, 1e9]))
def test_merged_chunks_are_the_whole(seed: int, chunks: int, offset: float) -> None:
    generator = np.random.default_rng(seed)
    labels = np.round(generator.lognormal(0, 1, 200), 1) * (generator.random(200) < 0.7) + offset
    weights = generator.uniform(0, 2, 200)
    parts = zip(np.array_split(labels, chunks), np.array_split(weights, chunks), strict=True)
    merged = functools.reduce(
        Statistics.merge, [Statistics.of(*part) for part in parts], Statistics.of([])
    )
    whole = Statistics.of(labels, weights)
    assert merged.count == whole.count == 200
    for name in ("values", "logs1p", "logs"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-6)
    assert merged.label_log_label == pytest.approx(whole.label_log_label)
    np.testing.assert_array_equal(merged.points, whole.points)
    np.testing.assert_allclose(merged.point_weights, whole.point_weights)
    variance = np.average((labels - np.average(labels, weights=weights)) ** 2, weights=weights)
    assert merged.values.variance == pytest.approx(variance, rel=1e-6)


def test_points_keep_weight_and_mean() -> None:
    generator = np.random.default_rng(0)
    labels, weights = generator.lognormal(0, 2, 10_000), generator.uniform(0, 2, 10_000)
    statistics = Statistics.of(labels, weights, max_points=100)
    assert len(statistics.points) <= 100
    assert (np.diff(statistics.points) > 0).all()
    assert statistics.point_weights.sum() == pytest.approx(weights.sum())
    mean = np.average(statistics.points, weights=statistics.point_weights)
    assert mean == pytest.approx(np.average(labels, weights=weights))


def test_huber_from_a_stream_is_that_of_all_labels() -> None:
    generator = np.random.default_rng(1)
    labels = generator.standard_t(2, 50_000) * 3 + 7
    streamed = functools.reduce(
        Statistics.merge, [Statistics.of(part) for part in np.array_split(labels, 40)]
    )
    assert len(streamed.points) <= 512
    goal = create_goal("regression", "delay", error="huber", target="identity", delta=1.5)
    exact = Statistics.of(labels, max_points=None)
    assert goal.constant_loss(streamed) == pytest.approx(goal.constant_loss(exact), rel=1e-3)
    assert goal.prior(streamed) == pytest.approx(goal.prior(exact), abs=0.01)


def test_json_keeps_everything() -> None:
    statistics = Statistics.of([0, 1.5, 3, 0], [1, 2, 0.5, 1])
    back = Statistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert back.to_json() == statistics.to_json()
    assert back.values.variance == statistics.values.variance
    assert back.positive_rate == pytest.approx(2.5 / 4.5)


@pytest.mark.parametrize(
    ("labels", "weights"),
    [([np.nan], None), ([np.inf], None), ([1.0], [-1.0]), ([1.0], [np.nan]), ([1.0, 2.0], [1.0])],
)
def test_refuses_what_it_cannot_sum(labels: list[float], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        Statistics.of(labels, weights)


@quick
@given(seed=st.integers(0, 2**32 - 1))
def test_masked_mean_is_numpys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    losses = generator.normal(size=(3, 17)).astype(np.float32)
    mask, weights = generator.random(17) < 0.5, generator.uniform(0.1, 2, 17)
    mask[0] = True
    result = masked_mean(jnp.asarray(losses), mask, weights)
    expected = np.average(losses[:, mask], axis=1, weights=weights[mask])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    unweighted = masked_mean(jnp.asarray(losses), mask)
    np.testing.assert_allclose(unweighted, losses[:, mask].mean(axis=1), rtol=1e-4, atol=1e-6)
    plain = masked_mean(jnp.asarray(losses))
    assert (plain == jnp.asarray(losses).mean(axis=-1)).all()


def test_masked_mean_ignores_what_is_not_finite() -> None:
    losses = jnp.array([1.0, jnp.nan, jnp.inf, 3.0])
    mask, weights = jnp.array([True, False, False, True]), jnp.array([1.0, jnp.nan, 5.0, 1.0])
    for given_weights in (None, weights):
        value, gradient = jax.value_and_grad(masked_mean)(losses, mask, given_weights)
        assert value == 2
        assert gradient.tolist() == [0.5, 0, 0, 0.5]
    assert masked_mean(losses, jnp.zeros(4, bool)) == 0
    assert masked_mean(jnp.array([1.0, jnp.nan]), None, jnp.array([2.0, 0.0])) == 1


def test_masked_mean_takes_a_mask_for_each_preference() -> None:
    losses, mask = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1, 0], [0, 1]])
    assert masked_mean(losses, mask).tolist() == [1, 4]
