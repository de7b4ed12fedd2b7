"""Objectives against known fronts: a hypernetwork from preferences to variables, nothing else.

    python -m benchmarks.analytic [--problems ...] [--objectives ...] [--steps N] [--output FILE]

A small network maps a preference to the variables of an analytic problem. It is trained with 32
preferences per step on losses that the true utopia and nadir normalise, then asked for a dense grid
of preferences. One row for each objective and problem, each figure the mean over seeds:
  IGD            mean distance from the true front to the nearest answer; "worst" over the seeds
  hypervolume    of the answers, in raw losses, from the reference point (1.1, ..., 1.1)
  % of true      the same, in per cent of the whole true front's
  non-dominated  part of an evaluation grid of 25 preferences (28 for three goals) on its own front
  Spearman       of loss and weight over that grid, of the goal that obeys least; -1 obeys
"""

import argparse
import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.problems import PROBLEMS, Problem
from hyperrec_jax.evaluation import pareto
from hyperrec_jax.preference.grid import das_dennis, evaluation_grid
from hyperrec_jax.preference.normalisation import create_normaliser
from hyperrec_jax.preference.objectives import Objective, create_objective
from hyperrec_jax.preference.sampling import create_sampler

OBJECTIVES = (
    "linear",
    "cosine",
    "cosine_original",
    "chebyshev",
    "smooth_chebyshev",
    "epo",
    "pareto_mtl",
    "hypervolume",
)
Answer = Callable[[np.ndarray], np.ndarray]
PREFERENCES = 32
REFERENCE = 1.1
NOTE = """\
Chosen on these very problems, so no test of them: the number of steps (of 2000 and 6000, since at
2000 `smooth_chebyshev` was at 0.011 on the parabolas) and the cosine weight of `hypervolume` (1, of
0.1, 0.3, 1 and 3). All else stands at its default. Seconds depend on what else the machine does.
"""


class Hypernetwork(nn.Module):
    """Preference `[..., goal]` to variables `[..., variable]` in (0, 1)."""

    num_variables: int

    @nn.compact
    def __call__(self, preferences: jax.Array) -> jax.Array:
        hidden = preferences
        for _ in range(2):
            hidden = nn.tanh(nn.Dense(64)(hidden))
        return nn.sigmoid(nn.Dense(self.num_variables)(hidden))


class Result(NamedTuple):
    """Columns of one row of the table, `[seed]` each; see the module's docstring."""

    igd: np.ndarray
    volume: np.ndarray
    non_dominated: np.ndarray
    spearman: np.ndarray


def run(problem: Problem, objective: Objective, steps: int, seeds: int) -> Result:
    """Trains and measures one objective on one problem.

    Args:
      problem: Of `benchmarks.problems`.
      objective: A conditioned objective.
      steps: Training steps.
      seeds: Number of runs, with seeds 0, 1, ...
    """
    answer = train(problem, objective, steps, seeds)
    preferences = evaluation_grid(problem.num_tasks, 25)
    rows = [
        (
            pareto.inverted_generational_distance(losses, problem.front),
            pareto.hypervolume(losses, REFERENCE),
            pareto.non_dominated_fraction(grid),
            np.max(pareto.preference_correlation(preferences, grid)),
        )
        for losses, grid in zip(
            answer(dense_preferences(problem.num_tasks)), answer(preferences), strict=True
        )
    ]
    return Result(*np.array(rows).T)


def train(problem: Problem, objective: Objective, steps: int, seeds: int) -> Answer:
    """Trains one network per seed, side by side.

    Returns:
      `answer(preferences [preference, goal]) -> losses [seed, preference, goal]`.
    """
    network = Hypernetwork(problem.num_variables)
    sample = create_sampler("stratified", problem.num_tasks, concentration=1.0, corners=0.1)
    normaliser = create_normaliser(
        "reference",
        problem.num_tasks,
        utopia=problem.front.min(axis=0),
        nadir=problem.front.max(axis=0),
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def evaluate(unit: Any) -> jax.Array:
        return problem.losses(problem.lower + unit * (problem.upper - problem.lower))

    def loss(params: Any, preferences: jax.Array) -> jax.Array:
        units = network.apply(params, preferences)
        losses = normaliser.apply((), jax.vmap(evaluate)(units))
        gram = None
        if objective.needs_gram:
            slopes = jax.vmap(jax.jacobian(lambda x: normaliser.apply((), evaluate(x))))(units)
            gram = slopes @ slopes.mT
        return objective.loss(losses, preferences, gram, ())

    @jax.jit
    @jax.vmap
    def fit(seed: jax.Array) -> Any:
        key = jax.random.key(seed)

        def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
            params, moments = carry
            preferences = sample(jax.random.fold_in(key, index), PREFERENCES, index / steps)
            updates, moments = optimizer.update(jax.grad(loss)(params, preferences), moments)
            return (optax.apply_updates(params, updates), moments), None

        params = network.init(key, jnp.ones((1, problem.num_tasks)))
        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    fitted = fit(jnp.arange(seeds))

    def answer(preferences: np.ndarray) -> np.ndarray:
        units = jax.vmap(network.apply, (0, None))(fitted, jnp.asarray(preferences))
        return np.asarray(jax.vmap(jax.vmap(evaluate))(units), np.float64)

    return answer


@functools.cache
def dense_preferences(num_tasks: int) -> np.ndarray:
    """Preferences all over the simplex, and all over the directions `1 / r` of their losses."""
    preferences = das_dennis(num_tasks, 1000 if num_tasks == 2 else 80)
    inverse = 1 / np.maximum(preferences, 1e-3)
    return np.concatenate([preferences, inverse / inverse.sum(axis=1, keepdims=True)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file too")
    options = parser.parse_args(arguments)

    lines = [
        "| problem | front | objective | IGD | worst | hypervolume | % of true | non-dominated "
        "| Spearman | seconds |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.problems:
        problem = PROBLEMS[name]()
        for objective in options.objectives:
            started = time.perf_counter()
            result = run(problem, create_objective(objective), options.steps, options.seeds)
            seconds = time.perf_counter() - started
            igd, volume, non_dominated, spearman = (column.mean() for column in result)
            share = 100 * volume / problem.volume(REFERENCE)
            lines.append(
                f"| {name} | {problem.shape} | {objective} | {igd:.4f} | {result.igd.max():.4f} "
                f"| {volume:.4f} | {share:.2f} | {non_dominated:.2f} | {spearman:.3f} "
                f"| {seconds:.0f} |"
            )
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join([*_header(options), *lines, ""]))


def _header(options: argparse.Namespace) -> list[str]:
    """What the table was made with."""
    command = (
        f"python -m benchmarks.analytic --steps {options.steps} --seeds {options.seeds} "
        f"--problems {' '.join(options.problems)} --objectives {' '.join(options.objectives)} "
        f"--output {options.output}"
    )
    packages = ("jax", "flax", "optax", "moocore", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    machine = f"{os.cpu_count()} cores, {jax.default_backend()}; Python {platform.python_version()}"
    return [
        "# Objectives against known fronts",
        "",
        f"`{command}`",
        "",
        f"{machine}; {versions}.",
        "",
    ]


if __name__ == "__main__":
    main()
