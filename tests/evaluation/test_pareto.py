"""Measures of a front against brute force, SciPy and known values."""

from itertools import combinations

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperrec_jax.evaluation import pareto
from hyperrec_jax.evaluation.bootstrap import bootstrap

quick = settings(deadline=None, max_examples=60)


@st.composite
def clouds(draw: st.DrawFn, max_points: int = 9) -> np.ndarray:
    """Points on a coarse grid, so that ties and equal points happen."""
    shape = draw(st.integers(1, max_points)), draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return generator.integers(0, 7, shape) / 5


def brute_hypervolume(points: np.ndarray, reference: float) -> float:
    """Inclusion-exclusion over the boxes from each point to the reference."""
    inside = points[(points < reference).all(axis=1)]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for chosen in combinations(inside, size):
            total -= (-1) ** size * np.prod(reference - np.max(chosen, axis=0))
    return total


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@quick
@given(points=clouds())
def test_hypervolume_is_inclusion_exclusion(points: np.ndarray) -> None:
    expected = brute_hypervolume(points, 1.1)
    assert pareto.hypervolume(points, 1.1) == pytest.approx(expected, abs=1e-12)
    assert pareto.hypervolume(points, np.full(points.shape[1], 1.1)) == pytest.approx(
        expected, abs=1e-12
    )


def test_hypervolume_of_points_beyond_the_reference_is_zero() -> None:
    assert pareto.hypervolume([[2, 0.0], [0, 1]], 1) == 0
    assert pareto.hypervolume([[2, 0.0], [0.5, 0.5]], 1) == 0.25
    assert pareto.hypervolume([[0.25, 0.5]], [1, 2]) == 0.75 * 1.5


def test_hypervolume_of_continuous_fronts() -> None:
    x = np.linspace(0, 1, 20_001)
    front = np.stack([x**2, (1 - x) ** 2], axis=1)
    for reference, volume in [(1, 0.8333), (1.1, 1.0433), (2, 3.8333)]:
        assert pareto.hypervolume(front, reference) == pytest.approx(volume, abs=2e-4)


@pytest.mark.parametrize("goals", [6, 8])
def test_hypervolume_of_many_goals_is_nearly_the_exact_one(goals: int) -> None:
    points = np.random.default_rng(goals).random((25, goals)) * 0.5 + 0.1
    exact = moocore.hypervolume(points, ref=np.ones(goals))
    assert pareto.hypervolume(points, 1.0) == pytest.approx(exact, rel=2e-3)
    assert pareto.hypervolume_method(goals) != "exact" == pareto.hypervolume_method(5)


def test_hypervolume_of_twenty_goals_is_there_at_once() -> None:
    # The exact algorithm would not end within a day.
    points = np.random.default_rng(0).random((25, 20)) * 0.5 + 0.1
    box = np.prod(1 - points, axis=1)
    assert box.max() < pareto.hypervolume(points, 1.0) < box.sum()


@quick
@given(points=clouds())
def test_non_dominated_is_the_definition(points: np.ndarray) -> None:
    expected = [not any(dominates(other, point) for other in points) for point in points]
    np.testing.assert_array_equal(pareto.non_dominated(points), expected)
    assert pareto.non_dominated_fraction(points) == pytest.approx(np.mean(expected))


@quick
@given(points=clouds(), seed=st.integers(0, 99))
def test_hypervolume_is_that_of_the_non_dominated(points: np.ndarray, seed: int) -> None:
    volume = pareto.hypervolume(points, 1.1)
    front = points[pareto.non_dominated(points)]
    assert pareto.hypervolume(front, 1.1) == pytest.approx(volume)
    better = points - np.random.default_rng(seed).random(points.shape) / 10
    assert pareto.hypervolume(better, 1.1) >= volume - 1e-12


def test_domination_within_noise_is_not_counted() -> None:
    generator = np.random.default_rng(0)
    points = np.array([[0.0, 1.0], [1.0, 0.0], [1.001, 0.001], [1.2, 0.9]])
    noise = 0.01 * generator.standard_normal((400, 4, 2))
    apart, paired = points + noise, points + noise[:, :1]
    np.testing.assert_array_equal(pareto.dominated_beyond_noise(apart), [0, 0, 0, 1])
    assert pareto.non_dominated_fraction(points) == 0.5
    assert pareto.non_dominated_fraction(points, apart) == 0.75
    # Noise that all points share leaves their differences exact.
    np.testing.assert_array_equal(pareto.dominated_beyond_noise(paired), [0, 0, 1, 1])
    assert pareto.non_dominated_fraction(points, paired) == 0.5


def test_domination_by_different_points_in_turn_is_not_beyond_noise() -> None:
    first, second, middle = [0.0, 0.0], [2.0, 2.0], [1.0, 1.0]
    even = np.tile([[first, second, middle], [second, first, middle]], (10, 1, 1))
    assert not pareto.dominated_beyond_noise(even, level=0.6).any()
    assert pareto.dominated_beyond_noise(even, level=0.5).all()


def test_bootstrap_feeds_the_fraction() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((2, 3000)) < 0.3
    good = labels + generator.standard_normal((2, 3000))
    logits = np.stack([good, good + 0.001 * generator.standard_normal((2, 3000)), -good])
    samples = bootstrap(labels, logits, resamples=100)
    dominated = pareto.dominated_beyond_noise(1 - samples.auc)
    np.testing.assert_array_equal(dominated, [False, False, True])


@quick
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 40))
def test_spearman_is_scipys(seed: int, size: int) -> None:
    x, y = np.random.default_rng(seed).integers(0, 9, (2, size))
    if np.ptp(x) and np.ptp(y):
        assert pareto.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    else:
        assert np.isnan(pareto.spearman(x, y))


PREFERENCES = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
OBEYING = np.array([[0.1, 0.8], [0.3, 0.4], [0.7, 0.2]])


def test_order_measures_tell_obedience() -> None:
    np.testing.assert_allclose(pareto.preference_correlation(PREFERENCES, OBEYING), [-1, -1])
    np.testing.assert_allclose(pareto.preference_correlation(PREFERENCES, OBEYING[::-1]), [1, 1])


def test_spacing_and_span() -> None:
    line = np.stack([np.arange(4.0), 3 - np.arange(4.0)], axis=1)
    assert pareto.spacing(line) == 0
    assert pareto.span(line * [1, 2]) == 3
    uneven = line.copy()
    uneven[3] = [5, -2]
    assert pareto.spacing(uneven) == pytest.approx(np.std([2, 2, 2, 6], ddof=1))
    assert np.isnan(pareto.spacing(line[:2]))


def test_range_covered_between_the_ends() -> None:
    ends = np.array([[0.1, 0.9], [0.5, 0.3]])
    points = np.array([[0.2, 0.9], [0.3, 0.5]])
    np.testing.assert_allclose(pareto.range_covered(points, ends), [0.25, 4 / 6])
    np.testing.assert_allclose(pareto.range_covered([[0.0, 0.0], [1.0, 1.0]], ends), [1, 1])
    assert np.isnan(pareto.range_covered(points, np.full((2, 2), 0.5))).all()


@quick
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(2, 5), scale=st.floats(0.01, 100))
def test_the_angle_is_zero_where_weighted_losses_are_equal(
    seed: int, tasks: int, scale: float
) -> None:
    preferences = np.random.default_rng(seed).dirichlet(np.ones(tasks), 4) + 1e-3
    losses = scale / preferences
    np.testing.assert_allclose(pareto.angle_to_preference(preferences, losses), 0, atol=1e-6)


def test_corner_preferences_point_at_the_other_tasks() -> None:
    angles = pareto.angle_to_preference([[1, 0], [1, 0], [1, 0]], [[0, 1.0], [1, 0], [0, 0]])
    np.testing.assert_allclose(angles[:2], [0, np.pi / 2], atol=1e-6)
    assert np.isnan(angles[2])


def test_inverted_generational_distance_is_a_mean_of_nearest_distances() -> None:
    generator = np.random.default_rng(0)
    points, front = generator.random((7, 3)), generator.random((50, 3))
    nearest = np.linalg.norm(front[:, None] - points, axis=-1).min(axis=1)
    assert pareto.inverted_generational_distance(points, front) == pytest.approx(nearest.mean())


def test_conflict_is_found_where_there_is_one() -> None:
    generator = np.random.default_rng(0)
    noise = 0.01 * generator.standard_normal((3, 3, 2))
    found = pareto.conflict_test(OBEYING + noise)
    assert found.found
    np.testing.assert_allclose(found.span, np.ptp(OBEYING, axis=0), atol=0.03)
    np.testing.assert_allclose(found.deviation, 0.01, rtol=0.7)
    assert not pareto.conflict_test(np.full((3, 2), 0.5) + noise).found
    # A model that is worse in every task widens the range, not the front.
    assert not pareto.conflict_test(np.array([[0.5, 0.5], [2, 2], [3, 3]]) + noise).found


@pytest.mark.parametrize(
    "call",
    [
        lambda: pareto.hypervolume([1, 2], 3),
        lambda: pareto.hypervolume([[np.nan, 2]], 3),
        lambda: pareto.non_dominated(np.empty((0, 2))),
        lambda: pareto.dominated_beyond_noise([[1, 2]]),
        lambda: pareto.spearman([1, 2], [1]),
        lambda: pareto.range_covered([[1, 0]], [[1, 0]]),
        lambda: pareto.preference_correlation([[1, 0]], [[1, 0], [0, 1]]),
        lambda: pareto.conflict_test([[[1, 2]]]),
    ],
)
def test_bad_shapes_are_refused(call) -> None:
    with pytest.raises(ValueError, match="must be"):
        call()


def test_a_trade_off_is_a_gain_beyond_noise_in_two_goals() -> None:
    preferences = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.1, (200, 1, 2))  # noise that all preferences share cancels
    front = np.array([[1.0, 1.2], [1.1, 1.1], [1.2, 1.0]])
    result = pareto.trade_off(preferences, front + shared + rng.normal(0, 0.01, (200, 3, 2)))
    np.testing.assert_allclose(result.gain, 0.2, atol=0.01)
    np.testing.assert_allclose(result.deviation, 0.01 * np.sqrt(2), rtol=0.2)
    assert result.found
    one_sided = np.array([[1.0, 1.1], [1.1, 1.1], [1.2, 1.1]])
    assert not pareto.trade_off(preferences, one_sided + rng.normal(0, 0.01, (200, 3, 2))).found
    third = np.column_stack([preferences, np.full(3, 0.2)])
    beside = np.concatenate([front, np.ones((3, 1))], axis=1) + rng.normal(0, 0.01, (200, 3, 3))
    partly = pareto.trade_off(third / third.sum(axis=1, keepdims=True), beside)
    assert partly.traded.tolist() == [True, True, False]
    assert partly.verdict(["a", "b", "c"]) == "the preference trades off a, b"
    assert result.verdict(["a", "b"]) == "the preference trades off"
    assert not pareto.trade_off(preferences, front[::-1] + rng.normal(0, 0.01, (200, 3, 2))).found
    with pytest.raises(ValueError, match="resample, preference, goal"):
        pareto.trade_off(preferences, front)
