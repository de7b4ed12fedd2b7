"""Analytic problems: fronts that are attained and not beaten, and what objectives make of them."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.problems import PROBLEMS, Problem
from hyperrec_jax.evaluation import pareto
from hyperrec_jax.preference.objectives import create_objective

pytestmark = pytest.mark.slow

VOLUMES = {  # of the continuous front, from references 1, 1.1 and 2
    "parabolas": (0.8333, 1.0433, 3.8333),
    "fonseca_fleming": (0.3421, 0.5521, 3.3421),
    "concave_toy": (0.3421, 0.5521, 3.3421),
    "zdt1": (0.6667, 0.8767, 3.6667),
    "zdt2": (0.3333, 0.5433, 3.3333),
    "dtlz2": (0.4764, 0.8074, 7.4764),
}

ZDT3_PARTS = np.array(  # of the first loss
    [
        [0.0, 0.0830015349],
        [0.1822287280, 0.2577623634],
        [0.4093136748, 0.4538821041],
        [0.6183967944, 0.6525117038],
        [0.8233317983, 0.8518328654],
    ]
)


def pareto_set(name: str, problem: Problem) -> np.ndarray:
    """Variables whose losses are on the front, `[point, variable]`."""
    generator = np.random.default_rng(0)
    if name in ("fonseca_fleming", "concave_toy"):
        end = problem.num_variables**-0.5
        return np.tile(np.linspace(-end, end, 50)[:, None], problem.num_variables)
    points = np.full((50, problem.num_variables), 0.5 if name == "dtlz2" else 0.0)
    points[:, : problem.num_tasks - 1] = generator.random((50, problem.num_tasks - 1))
    return points


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_fronts_are_attained(name: str) -> None:
    problem = PROBLEMS[name]()
    losses = jax.vmap(problem.losses)(jnp.asarray(pareto_set(name, problem)))
    distances = np.linalg.norm(np.asarray(losses)[:, None] - problem.front, axis=-1).min(axis=1)
    tolerance = 0.03 if name == "dtlz2" else 0.003  # half the distance of neighbours
    if name == "zdt3":  # most of its curve is dominated
        first = np.asarray(losses)[:, 0]
        on_front = ((first[:, None] > ZDT3_PARTS[:, 0]) & (first[:, None] < ZDT3_PARTS[:, 1])).any(
            1
        )
        assert 5 < on_front.sum() < 45
        assert (distances[~on_front] > 0).all()
        distances = distances[on_front]
    assert distances.max() < tolerance


def test_zdt3_has_its_five_parts() -> None:
    first = PROBLEMS["zdt3"]().front[:, 0]
    gaps = np.flatnonzero(np.diff(first) > 0.05)
    np.testing.assert_allclose(first[np.append(gaps, -1)], ZDT3_PARTS[:, 1], atol=0.004)
    np.testing.assert_allclose(first[np.insert(gaps + 1, 0, 0)], ZDT3_PARTS[:, 0], atol=0.004)


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_fronts_are_not_beaten(name: str) -> None:
    problem = PROBLEMS[name]()
    assert pareto.non_dominated(problem.front).all()
    unit = np.random.default_rng(0).random((3000, problem.num_variables)) ** 3
    points = problem.lower + unit * (problem.upper - problem.lower)
    losses = np.asarray(jax.jit(jax.vmap(problem.losses))(jnp.asarray(points)), np.float64)
    assert pareto.hypervolume(np.concatenate([problem.front, losses]), 2) <= problem.volume(2)
    assert pareto.hypervolume(problem.front, 1.1) < problem.volume(1.1)


@pytest.mark.parametrize("name", sorted(VOLUMES))
def test_hypervolumes_are_the_known_ones(name: str) -> None:
    volumes = [PROBLEMS[name]().volume(reference) for reference in (1, 1.1, 2)]
    np.testing.assert_allclose(volumes, VOLUMES[name], atol=2e-4)


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_slopes_are_finite_at_the_corners_of_the_box(name: str) -> None:
    problem = PROBLEMS[name]()
    for value in (float(problem.lower), float(problem.upper)):
        slopes = jax.jit(jax.jacobian(problem.losses))(jnp.full(problem.num_variables, value))
        assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("name", "reaches"), [("linear", False), ("smooth_chebyshev", True), ("chebyshev", True)]
)
def test_linear_fails_on_a_concave_front_and_chebyshev_does_not(name: str, reaches: bool) -> None:
    # Exact minimisation over a fine grid of ZDT2's Pareto set: no optimiser to blame.
    front = jnp.asarray(PROBLEMS["zdt2"]().front, jnp.float32)
    objective = create_objective(name)
    preferences = jnp.stack([jnp.linspace(0.1, 0.9, 17), jnp.linspace(0.9, 0.1, 17)], axis=1)
    value = jax.vmap(
        lambda preference, losses: objective.loss(losses, preference, None, ()), (None, 0)
    )
    best = front[jnp.argmin(jax.vmap(value, (0, None))(preferences, front), axis=1)]
    inside = (np.asarray(best) > 0.02).all(axis=1)
    assert inside.all() if reaches else not inside.any()


def test_benchmark_prints_and_writes_one_table(tmp_path: Path) -> None:
    output = tmp_path / "analytic.md"
    command = "-m benchmarks.analytic --problems parabolas --objectives linear --seeds 2"
    arguments = [sys.executable, *command.split(), "--steps", "200", "--output", str(output)]
    root = Path(__file__).parents[2]
    printed = subprocess.run(arguments, cwd=root, check=True, capture_output=True, text=True).stdout
    rows = [line.split("|") for line in printed.splitlines() if "parabolas" in line]
    assert [row[3].strip() for row in rows] == ["linear"]
    assert all(float(row[7]) > 80 for row in rows)  # per cent of the true hypervolume
    assert output.read_text().endswith(printed)
    assert "--steps 200 --seeds 2" in output.read_text()
