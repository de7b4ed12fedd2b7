"""Preferences: samplers, grids and what a user types."""

import math

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.errors import UserError
from hyperrec_jax.preference.grid import das_dennis, evaluation_grid, parse_preferences
from hyperrec_jax.preference.sampling import SAMPLERS, Sampler, create_sampler

OPTIONS = {"fixed": {"preferences": [[1.0] * 3, [0.0, 3.0, 1.0]]}}


def draw(sampler: Sampler, key: int, count: int, progress: float = 0.0) -> np.ndarray:
    """Preferences `[count, goal]` of a sampler, compiled as in a run."""
    return np.asarray(jax.jit(sampler, static_argnums=1)(jax.random.key(key), count, progress))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samples_lie_on_the_simplex_and_jit(name: str) -> None:
    sample = jax.jit(create_sampler(name, 3, **OPTIONS.get(name, {})), static_argnums=1)
    preferences = np.asarray(sample(jax.random.key(0), 500, 0.7))
    assert preferences.shape == (500, 3)
    assert preferences.min() >= 0
    np.testing.assert_allclose(preferences.sum(axis=1), 1, atol=1e-6)
    assert not np.array_equal(preferences, sample(jax.random.key(1), 500, 0.7))


@pytest.mark.parametrize("name", ["dirichlet", "stratified", "centre_to_corners"])
def test_one_task_has_one_preference(name: str) -> None:
    preferences = draw(create_sampler(name, 1), 0, 5, 0.5)
    np.testing.assert_allclose(preferences, np.ones((5, 1)))


def test_dirichlet_has_the_moments_of_its_concentration() -> None:
    preferences = draw(create_sampler("dirichlet", 2, concentration=(1, 1.2)), 0, 20_000)
    np.testing.assert_allclose(preferences.mean(axis=0), [1 / 2.2, 1.2 / 2.2], atol=0.005)
    np.testing.assert_allclose(preferences[:, 0].var(), 1 * 1.2 / (2.2**2 * 3.2), rtol=0.03)


def test_corners_come_with_their_probability() -> None:
    for name in ("dirichlet", "stratified"):
        preferences = draw(create_sampler(name, 3, concentration=1.0, corners=0.1), 2, 5000)
        corner = preferences.max(axis=1) == 1
        assert corner.mean() == pytest.approx(0.1, abs=0.015)
        np.testing.assert_allclose(preferences[corner].mean(axis=0), 1 / 3, atol=0.08)


@pytest.mark.parametrize("num_preferences", [1, 2, 16, 37])
def test_stratified_puts_one_preference_into_each_part(num_preferences: int) -> None:
    preferences = draw(create_sampler("stratified", 2, concentration=1.0), 3, num_preferences)
    parts = np.sort(np.asarray(preferences)[:, 1])
    edges = np.arange(num_preferences + 1) / num_preferences
    assert (parts >= edges[:-1] - 1e-6).all()
    assert (parts <= edges[1:] + 1e-6).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=8)  # each compiles
@given(
    alpha=st.lists(st.floats(0.05, 20), min_size=2, max_size=5),
    num_preferences=st.sampled_from([1, 3, 100]),
)
def test_stratified_preferences_are_draws_from_their_distribution(
    alpha: list[float], num_preferences: int
) -> None:
    sampler = create_sampler("stratified", len(alpha), concentration=alpha)
    sample = jax.jit(jax.vmap(lambda key: sampler(key, num_preferences, 0)))
    preferences = sample(jax.random.split(jax.random.key(1), 3000 // num_preferences)).reshape(
        -1, len(alpha)
    )
    np.testing.assert_allclose(preferences.sum(axis=1), 1, atol=1e-6)
    for task, own in enumerate(alpha):
        # Each weight is Beta(alpha_i, the rest); 1.95 / sqrt(n) is exceeded once in 1,000 times.
        marginal = scipy.stats.beta(own, sum(alpha) - own)
        values = np.asarray(preferences[:, task], np.float64)
        grid = np.linspace(0.01, 0.99, 50)
        gap = np.abs((values[:, None] <= grid).mean(axis=0) - marginal.cdf(grid)).max()
        assert gap < 2.5 / math.sqrt(len(values))


def test_stratified_covers_the_simplex_of_many_tasks_better_than_chance() -> None:
    options = {"concentration": 1.0}
    far = {}
    for name in ("stratified", "dirichlet"):
        preferences = draw(create_sampler(name, 3, **options), 0, 64)
        places = das_dennis(3, 12)
        far[name] = np.linalg.norm(places[:, None] - preferences, axis=-1).min(axis=1).mean()
    assert far["stratified"] < 0.9 * far["dirichlet"]


def test_schedule_runs_from_centre_to_corners() -> None:
    sample = create_sampler("centre_to_corners", 2)
    spread = [draw(sample, 0, 4000, p)[:, 0].std() for p in (0.0, 0.5, 1.0)]
    assert spread[0] < 0.12
    assert spread[0] < spread[1] < spread[2]
    assert spread[2] > 0.35


def test_fixed_preferences_come_in_turn() -> None:
    preferences = create_sampler("fixed", 2, preferences=[[1, 0], [1, 1], [1, 3]])(
        jax.random.key(0), 6, 0
    )
    assert sorted(np.asarray(preferences)[:3, 0].tolist()) == [0.25, 0.5, 1.0]
    np.testing.assert_array_equal(preferences[:3], preferences[3:])


def test_fixed_without_preferences_is_equal_weights() -> None:
    preferences = create_sampler("fixed", 3)(jax.random.key(0), 2, 0)
    np.testing.assert_allclose(preferences, np.full((2, 3), 1 / 3), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sobol", {}, "there are centre_to_corners, dirichlet"),
        ("dirichlet", {"alpha": 1}, "has no option 'alpha'; there are concentration, corners"),
        ("dirichlet", {"concentration": -1}, "a number above 0 or a list of numbers above 0"),
        ("dirichlet", {"concentration": (1, 2, 3)}, "give one number, or 2"),
        ("dirichlet", {"concentration": "high"}, "give a number above 0"),
        ("stratified", {"corners": 1.5}, r"give a number in \[0, 1\]"),
        ("fixed", {"preferences": [0, 0]}, "all weights are zero"),
    ],
)
def test_bad_samplers_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_sampler(name, 2, **options)


def test_two_task_grid_is_the_quarter_circle() -> None:
    grid = evaluation_grid(2, 5)
    angles = np.arctan2(grid[:, 1], grid[:, 0])
    np.testing.assert_allclose(angles, np.linspace(0.1, math.pi / 2 - 0.1, 5))
    np.testing.assert_allclose(grid[0], [0.90880, 0.09120], atol=1e-4)
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    np.testing.assert_allclose(grid, grid[::-1, ::-1])


def test_grid_of_one_preference_is_the_centre() -> None:
    np.testing.assert_allclose(evaluation_grid(3, 1), [[1 / 3] * 3])
    np.testing.assert_allclose(evaluation_grid(1, 25), [[1.0]])
    with pytest.raises(UserError, match="at least 1"):
        evaluation_grid(2, 0)


@settings(deadline=None, max_examples=30)
@given(num_tasks=st.integers(3, 6), num_preferences=st.integers(2, 60))
def test_larger_grids_are_the_smallest_das_dennis_ones(
    num_tasks: int, num_preferences: int
) -> None:
    grid = evaluation_grid(num_tasks, num_preferences)
    partitions = round(1 / grid[grid > 0].min())
    assert len(grid) == math.comb(partitions + num_tasks - 1, num_tasks - 1) >= num_preferences
    assert partitions == 1 or math.comb(partitions + num_tasks - 2, num_tasks - 1) < num_preferences
    assert len(np.unique(grid, axis=0)) == len(grid)
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    np.testing.assert_array_equal(grid[0], np.eye(num_tasks)[0])
    assert grid.tolist() == das_dennis(num_tasks, partitions).tolist()


def test_preferences_are_parsed_and_scaled(tmp_path) -> None:
    np.testing.assert_allclose(parse_preferences("0.3,0.7; 2,2;", 2), [[0.3, 0.7], [0.5, 0.5]])
    np.testing.assert_allclose(parse_preferences("1e308,1e308", 2), [[0.5, 0.5]])
    assert len(parse_preferences(";".join(["0.25,0.75"] * 500), 2)) == 500
    path = tmp_path / "preferences.csv"
    path.write_text("# click, conversion\n1,3\n\n0,2\n")
    np.testing.assert_allclose(parse_preferences(str(path), 2), [[0.25, 0.75], [0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.3,-0.7", "negative"),
        ("0,0", "all weights are zero"),
        ("0.5,0.5;1", "1 weights for 2 goals"),
        ("a,b", "expected 2 numbers.*nor is there such a file"),
        ("nan,1", "not a finite number"),
        ("inf,1", "not a finite number"),
        ("", "no preference"),
    ],
)
def test_bad_preferences_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_preferences(text, 2)
    assert "\n" not in str(error.value)


def test_bad_preference_files_name_the_line(tmp_path) -> None:
    path = tmp_path / "preferences.csv"
    path.write_text("1,3\nclick,conversion\n")
    with pytest.raises(UserError, match=r"preferences.csv, line 2: expected 2 numbers"):
        parse_preferences(str(path), 2)
    path.write_bytes(b"\xff\xfe1,2")
    with pytest.raises(UserError, match="cannot read"):
        parse_preferences(str(path), 2)
