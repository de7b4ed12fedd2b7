"""Weights from losses and gradients, against solvers and against the definitions."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linprog, minimize

from hyperrec_jax.preference import weighting


def random_gradients(seed: int, num_tasks: int, size: int = 8) -> np.ndarray:
    """Gradients of uneven lengths, often in conflict, `[task, size]`."""
    generator = np.random.default_rng(seed)
    gradients = generator.standard_normal((num_tasks, size)) + generator.normal(0, 1, size)
    return (gradients * np.exp(generator.normal(0, 1, (num_tasks, 1)))).astype(np.float32)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 6])
def test_min_norm_is_the_quadratic_programs_solution(num_tasks: int) -> None:
    solve = jax.jit(weighting.min_norm)
    for seed in range(20):
        gradients = random_gradients(seed, num_tasks)
        gram = (gradients @ gradients.T).astype(np.float64)
        weights = np.asarray(solve(jnp.asarray(gram, jnp.float32)), np.float64)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        oracle = minimize(
            lambda w, gram=gram: w @ gram @ w / np.trace(gram),
            np.full(num_tasks, 1 / num_tasks),
            bounds=[(0, 1)] * num_tasks,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        assert weights @ gram @ weights / np.trace(gram) <= oracle.fun + 1e-5


def test_min_norm_of_equal_or_zero_gradients_is_even() -> None:
    for gram in (np.ones((2, 2)), np.zeros((2, 2)), np.zeros((3, 3)), np.ones((3, 3))):
        weights = weighting.min_norm(jnp.asarray(gram, jnp.float32))
        np.testing.assert_allclose(weights, 1 / len(gram), atol=1e-6)


@pytest.mark.parametrize("num_tasks", [2, 3, 4, 5, 7])
def test_simplex_programs_are_highs(num_tasks: int) -> None:
    solve = jax.jit(weighting.simplex_program)
    statuses = set()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        objective = generator.standard_normal(num_tasks)
        rows = generator.standard_normal((num_tasks + 1, num_tasks))
        bounds = generator.normal(-0.4, 0.5, num_tasks + 1)
        bounds[generator.random(num_tasks + 1) < 0.3] = -np.inf
        kept = np.isfinite(bounds)
        program = (-objective, -rows[kept], -bounds[kept], np.ones((1, num_tasks)), [1.0], (0, 1))
        oracle = linprog(*program)
        weights = np.asarray(
            solve(*(jnp.asarray(x, jnp.float32) for x in (objective, rows, bounds)))
        )
        statuses.add(oracle.success)
        assert np.isfinite(weights).all() == oracle.success
        if oracle.success:
            assert weights.sum() == pytest.approx(1, abs=1e-5)
            assert (rows[kept] @ weights >= bounds[kept] - 2e-4).all()
            assert objective @ weights == pytest.approx(-oracle.fun, abs=2e-3)
    assert statuses == {True, False}


def epo_program(losses: np.ndarray, preference: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The linear program of Mahapatra and Rajan 2020, straight from the paper, by HiGHS."""
    num_tasks = len(losses)
    shares = preference * losses / (preference * losses).sum()
    mu = (shares * np.log(num_tasks * shares)).sum()
    pull = gram @ (preference * (np.log(num_tasks * shares) - mu))
    at_least = []
    if mu > 1e-4:
        objective = pull
        worst = np.argmax(preference * losses)
        for j in range(num_tasks):
            if not (pull > 0).any() or j == worst:
                at_least.append((gram[j], 0.0))
            elif pull[j] <= 0:
                at_least.append((gram[j], pull[j]))
    else:
        objective = gram.sum(axis=0)
        at_least = [(row, 0.0) for row in gram] + [(pull, min(0.0, pull.max()))]
    rows, bounds = (np.array(x) for x in zip(*at_least, strict=True))
    result = linprog(-objective, -rows, -bounds, np.ones((1, num_tasks)), [1.0], (0, 1))
    assert result.success
    return objective @ result.x


@pytest.mark.parametrize("num_tasks", [2, 3, 4, 6])
def test_epo_solves_the_papers_program(num_tasks: int) -> None:
    solve = jax.jit(weighting.epo)
    for seed in range(25):
        generator = np.random.default_rng(seed)
        gradients = random_gradients(seed, num_tasks)
        gram = (gradients @ gradients.T).astype(np.float64)
        gram /= np.trace(gram)
        preference = generator.dirichlet(np.ones(num_tasks))
        on_the_preference = seed % 3 == 0
        losses = (
            0.1 / (preference + 0.01) if on_the_preference else generator.exponential(1, num_tasks)
        )
        preference = (preference + 0.01) / (preference + 0.01).sum()
        weights = np.asarray(
            solve(*(jnp.asarray(x, jnp.float32) for x in (losses, preference, gram)))
        )
        shares = preference * losses / (preference * losses).sum()
        mu = (shares * np.log(num_tasks * shares)).sum()
        pull = gram @ (preference * (np.log(num_tasks * shares) - mu))
        objective = gram.sum(axis=0) if on_the_preference else pull
        expected = epo_program(losses, preference, gram)
        assert objective @ weights == pytest.approx(expected, abs=1e-4 * np.abs(objective).max())


def descend(
    weights: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    preference: jax.Array,
    centres: jax.Array,
) -> jax.Array:
    """Losses `|x - c_i|^2` after gradient steps with the weights."""

    def losses(x: jax.Array) -> jax.Array:
        return ((x - centres) ** 2).sum(axis=1)

    def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        gradients = jax.jacobian(losses)(x)
        return x - 0.05 * weights(losses(x), preference, gradients @ gradients.T) @ gradients, None

    start = jnp.asarray(np.random.default_rng(1).standard_normal(centres.shape[1]), jnp.float32)
    return losses(jax.lax.scan(step, start, None, 500)[0])


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_epo_ends_on_the_preference_and_on_the_front(num_tasks: int) -> None:
    preferences = np.array([[0.7, 0.3, 0.4], [0.2, 0.5, 0.3]])[:, :num_tasks]
    preferences /= preferences.sum(axis=1, keepdims=True)
    search = jax.vmap(partial(descend, weighting.epo, centres=jnp.eye(num_tasks, 4)))
    for preference, losses in zip(
        preferences, np.asarray(search(jnp.asarray(preferences))), strict=True
    ):
        # Mahapatra and Rajan's uniformity: 1 where all weighted losses are equal.
        assert 1 - stats.entropy(preference * losses, np.ones(num_tasks)) > 0.999
        # The Pareto set of |x - e_i|^2 is the simplex; there, the exact solution is Chebyshev's.
        on_front = minimize(
            lambda w, preference=preference: np.max(
                preference * ((w - np.eye(num_tasks)) ** 2).sum(axis=1)
            ),
            np.full(num_tasks, 1 / num_tasks),
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-9},
        )
        assert (preference * losses).max() == pytest.approx(on_front.fun, rel=0.02)


def test_pareto_mtl_ends_in_the_part_of_its_preference() -> None:
    centres = jnp.array([[1.0, 0], [-1.0, 0]])
    grid = jnp.asarray([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7], [0.1, 0.9]])
    ends = np.asarray(
        jax.vmap(
            lambda preference: descend(
                partial(weighting.pareto_mtl, vectors=grid), preference, centres
            )
        )(grid)
    )
    for k, losses in enumerate(ends):
        closeness = np.asarray(weighting.opposite(grid)) @ losses
        assert closeness[k] >= closeness.max() - 0.02 * np.linalg.norm(losses)
    assert (np.diff(ends[:, 0]) > 0).all()


def reference_pcgrad(gradients: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """The paper's algorithm 1 on the gradients themselves."""
    projected = gradients.astype(np.float64).copy()
    for i, order in enumerate(orders):
        for j in order:
            if i != j and projected[i] @ gradients[j] < 0:
                projected[i] -= (
                    projected[i] @ gradients[j] / (gradients[j] @ gradients[j]) * (gradients[j])
                )
    return projected.mean(axis=0)


@pytest.mark.parametrize("num_tasks", [2, 4])
def test_pcgrad_is_the_papers_algorithm(num_tasks: int) -> None:
    solve = jax.jit(weighting.pcgrad)
    for seed in range(10):
        gradients = random_gradients(seed, num_tasks)
        key = jax.random.key(seed)
        weights = np.asarray(solve(jnp.asarray(gradients @ gradients.T), key))
        keys = jax.random.split(key, num_tasks)
        orders = np.array([jax.random.permutation(k, num_tasks) for k in keys])
        expected = reference_pcgrad(gradients, orders)
        np.testing.assert_allclose(weights @ gradients, expected, rtol=1e-3, atol=1e-3)


def test_nash_weights_meet_their_equation() -> None:
    solve = jax.jit(weighting.nash)
    for seed in range(20):
        gradients = random_gradients(seed, 4)
        gram = gradients @ gradients.T
        weights = np.asarray(solve(jnp.asarray(gram)))
        product = weights * (gram @ weights)  # constant, as C w = 1 / w up to scale
        np.testing.assert_allclose(product / product.mean(), 1, atol=5e-3)
        assert (weights > 0).all()
    np.testing.assert_allclose(weighting.nash(jnp.zeros((3, 3))), 1 / 3, atol=1e-6)


@pytest.mark.parametrize(("num_tasks", "tolerance"), [(2, 1e-3), (3, 0.05), (4, 0.12)])
def test_hypervolume_weights_are_its_gradient(num_tasks: int, tolerance: float) -> None:
    generator = np.random.default_rng(0)
    points = generator.random((40, num_tasks))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # a concave front: all non-dominated
    points = points[:8].astype(np.float32)
    reference = np.full(num_tasks, 1.1)
    grow = jax.jit(weighting.hypervolume, static_argnums=2)
    weights = np.asarray(grow(jnp.asarray(points), jnp.asarray(reference), 4096))

    step = 1e-6
    slopes = np.zeros_like(points, dtype=np.float64)
    base = points.astype(np.float64)
    for index in np.ndindex(*points.shape):
        up, down = base.copy(), base.copy()
        up[index] += step
        down[index] -= step
        volumes = [moocore.hypervolume(moved, ref=reference) for moved in (down, up)]
        slopes[index] = (volumes[0] - volumes[1]) / (2 * step)
    slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)
    np.testing.assert_allclose(weights, slopes, atol=tolerance)


def test_hypervolume_counts_dominated_ones_in_their_layer_and_equal_ones_once() -> None:
    front = np.array([[0.1, 0.8], [0.5, 0.3]])
    points = np.concatenate([front, front + 0.1, front])
    grow = jax.jit(weighting.hypervolume)
    weights = np.asarray(grow(jnp.asarray(points), jnp.ones(2)))
    alone = np.asarray(grow(jnp.asarray(front), jnp.ones(2)))
    np.testing.assert_allclose(weights[:2], alone, rtol=1e-5)
    np.testing.assert_allclose(weights[4:], alone, rtol=1e-5)
    np.testing.assert_allclose(weights[2:4], grow(jnp.asarray(front + 0.1), jnp.ones(2)), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, rtol=1e-5)
