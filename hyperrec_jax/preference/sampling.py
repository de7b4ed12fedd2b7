"""Preference vectors ("rays"): sampled for training, on a grid for evaluation.

The one convention of the project: component `r_i` of a ray is the weight of task `i`. Rays are not
negative and sum to one. A high `r_i` asks for a low loss of task `i`.
"""

import math
import os
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hyperrec_jax.errors import UserError
from hyperrec_jax.options import Fraction, Positive
from hyperrec_jax.registry import Registry

Sampler = Callable[[jax.Array, int, jax.Array | float], jax.Array]
"""`sample(key, num_rays, progress) -> [ray, task]`; jit-able, with `num_rays` static.

`progress` is the part of the training run that has passed, in [0, 1]."""


SAMPLERS: Registry[Sampler] = Registry("sampler", "hyperrec_jax.preference")
"""All samplers by name."""

register = SAMPLERS.register

Concentration = Positive | tuple[Positive, ...]
"""Of a Dirichlet distribution: one number, or one per task."""


def create_sampler(name: str, num_tasks: int, **options: object) -> Sampler:
    """Makes a sampler of training rays.

    Args:
      name: 'dirichlet', 'stratified', 'centre_to_corners' or 'fixed'.
      num_tasks: Number of tasks, at least 1.
      **options: The keyword arguments of the function of that name in this module.

    Raises:
      UserError: unknown name or option, or a value out of its range.
    """
    return SAMPLERS.create(name, num_tasks, **options)


@register("dirichlet")
def dirichlet(
    num_tasks: int, *, concentration: Concentration = 0.1, corners: Fraction = 0.0
) -> Sampler:
    """Independent draws from a Dirichlet distribution.

    Args:
      num_tasks: Number of tasks.
      concentration: One number, or one a task; see `stratified`.
      corners: Probability that a ray is replaced by a corner (all weight on one task).
    """
    alpha = _concentration(concentration, num_tasks)
    _check_probability("corners", corners)

    def sample(key: jax.Array, num_rays: int, progress: jax.Array | float) -> jax.Array:
        ray_key, corner_key = jax.random.split(key)
        rays = jax.random.dirichlet(ray_key, jnp.asarray(alpha), (num_rays,))
        return _with_corners(corner_key, rays, corners)

    return sample


@register("stratified")
def stratified(
    num_tasks: int, *, concentration: Concentration = 0.1, corners: Fraction = 0.0
) -> Sampler:
    """Rays of a Dirichlet distribution that cover the simplex evenly in every batch.

    A lattice in the unit cube, shifted at random (Cranley & Patterson 1976, SIAM Journal on
    Numerical Analysis 13) and mapped onto the simplex by stick breaking: each ray alone is a draw
    from the distribution; with two tasks each of `num_rays` parts of the simplex of equal
    probability holds one ray. As the lattice is a constant, thousands of rays cost little.

    Args:
      num_tasks: Number of tasks.
      concentration: Of the Dirichlet distribution; one number, or one a task. 1 is uniform on the
        simplex, less favours the corners, more the centre. What lies between two ends that a model
        serves well it mostly serves well, too; the ends need their rows (`benchmarks/fronts.py`).
      corners: Probability that a ray is replaced by a corner (all weight on one task).
    """
    alpha = _concentration(concentration, num_tasks)
    _check_probability("corners", corners)
    quantiles = _stick_quantiles(alpha)

    def sample(key: jax.Array, num_rays: int, progress: jax.Array | float) -> jax.Array:
        shift_key, corner_key = jax.random.split(key)
        shift = jax.random.uniform(shift_key, (num_tasks - 1,))
        cube = (_lattice(num_rays, num_tasks - 1) + shift) % 1.0
        place = cube * (len(quantiles) - 1)
        knot = jnp.minimum(place.astype(jnp.int32), len(quantiles) - 2)
        low, high = (
            jnp.take_along_axis(jnp.asarray(quantiles), index, axis=0) for index in (knot, knot + 1)
        )
        breaks = low + (place - knot) * (high - low)
        ends = jnp.ones((num_rays, 1))
        left = jnp.concatenate([ends, jnp.cumprod(1 - breaks, axis=1)], axis=1)
        rays = left * jnp.concatenate([breaks, ends], axis=1)
        return _with_corners(corner_key, rays, corners)

    return sample


@register("centre_to_corners")
def centre_to_corners(
    num_tasks: int, *, start: Positive = 10.0, end: Positive = 0.3, corners: Fraction = 0.1
) -> Sampler:
    """A symmetric Dirichlet distribution that moves from the centre to the corners.

    The concentration runs geometrically from `start` to `end` over the training run, the
    probability of a corner linearly from 0 to `corners`. The idea of the schedule is PaLoRA's
    (Dimitriadis et al. 2025, arXiv 2407.08056): first a good model, then the spread.

    Args:
      num_tasks: Number of tasks.
      start: Concentration at the start; above 1 near the centre.
      end: Concentration at the end; below 1 near the corners.
      corners: Probability, at the end, that a ray is replaced by a corner.
    """
    first, last = _concentration(start, num_tasks), _concentration(end, num_tasks)
    _check_probability("corners", corners)

    def sample(key: jax.Array, num_rays: int, progress: jax.Array | float) -> jax.Array:
        ray_key, corner_key = jax.random.split(key)
        alpha = jnp.asarray(first) ** (1 - progress) * jnp.asarray(last) ** progress
        rays = jax.random.dirichlet(ray_key, alpha, (num_rays,))
        return _with_corners(corner_key, rays, corners * progress)

    return sample


@register("fixed")
def fixed(num_tasks: int, *, rays: Sequence[float] | ArrayLike) -> Sampler:
    """Given rays in turn, from a random start.

    Args:
      num_tasks: Number of tasks.
      rays: `[task]` or `[ray, task]`; scaled to sum to one.
    """
    table = normalise(np.atleast_2d(np.asarray(rays, np.float64)), num_tasks, "fixed sampler")

    def sample(key: jax.Array, num_rays: int, progress: jax.Array | float) -> jax.Array:
        start = jax.random.randint(key, (), 0, len(table))
        return jnp.asarray(table, jnp.float32)[(start + jnp.arange(num_rays)) % len(table)]

    return sample


def evaluation_grid(num_tasks: int, num_rays: int) -> np.ndarray:
    """A grid of rays `[ray, task]`, the first of which favours the first task.

    Two tasks: `num_rays` angles evenly from 0.1 to pi/2 - 0.1 on the quarter circle, each ray
    scaled to sum to one (the original PO-MoE's grid, and that of Pareto hypernetworks, Navon et al.
    2021, arXiv 2010.04104). More tasks: the smallest Das-Dennis grid of at least `num_rays` rays.
    One ray is the centre; one task has the ray (1).

    Raises:
      UserError: `num_rays` is below 1.
    """
    if num_rays < 1:
        raise UserError(f"a grid needs at least 1 preference, not {num_rays}")
    if num_tasks == 1 or num_rays == 1:
        return np.full((1, num_tasks), 1 / num_tasks)
    if num_tasks == 2:
        angles = np.linspace(0.1, np.pi / 2 - 0.1, num_rays)
        rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return rays / rays.sum(axis=1, keepdims=True)
    partitions = 1
    while math.comb(partitions + num_tasks - 1, num_tasks - 1) < num_rays:
        partitions += 1
    return das_dennis(num_tasks, partitions)


def das_dennis(num_tasks: int, partitions: int) -> np.ndarray:
    """All rays whose components are multiples of `1 / partitions`, `[ray, task]`.

    There are `C(partitions + tasks - 1, tasks - 1)`, corners included, in descending order (Das and
    Dennis 1998, SIAM Journal on Optimization 8).
    """
    bars = combinations(range(partitions + num_tasks - 1), num_tasks - 1)
    edges = np.array([(-1, *bar, partitions + num_tasks - 1) for bar in bars])
    return (np.diff(edges, axis=1) - 1)[::-1] / partitions


def parse_preferences(text: str, num_tasks: int) -> np.ndarray:
    """Reads rays from a command line or a file.

    Args:
      text: Rays as in '0.3,0.7;0.5,0.5', or the path of a CSV file with one ray a line (no header;
        empty lines and lines that start with '#' are skipped).
      num_tasks: Number of tasks.

    Returns:
      `[ray, task]`, each ray scaled to sum to one.

    Raises:
      UserError: a ray that is negative, all zero, not finite, of the wrong length or not of
        numbers; a file that cannot be read; no ray at all.
    """
    is_file = os.path.isfile(text)  # Path.is_file raises on a text longer than a file name
    if is_file:
        try:
            entries = Path(text).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the preferences in {text}: {error}") from None
    else:
        entries = text.split(";")
    rays = []
    for number, entry in enumerate(entries, 1):
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        where = f"{text}, line {number}" if is_file else f"preference '{entry.strip()}'"
        try:
            ray = [float(cell) for cell in entry.split(",")]
        except ValueError:
            hint = "" if is_file else " (nor is there such a file)"
            raise UserError(
                f"{where}: expected {num_tasks} numbers separated by commas, "
                f"got '{entry.strip()}'{hint}"
            ) from None
        rays.append(normalise(np.array(ray), num_tasks, where))
    if not rays:
        raise UserError(f"no preference in '{text}'; write one as 0.3,0.7")
    return np.stack(rays)


def normalise(rays: np.ndarray, num_tasks: int, where: str) -> np.ndarray:
    """Rays `[..., task]` scaled to sum to one.

    Args:
      rays: Weights, not negative, `[..., task]`.
      num_tasks: Number of tasks.
      where: Where the rays come from, for the message.

    Raises:
      UserError: wrong length, a negative or non-finite weight, or all weights zero.
    """
    if rays.shape[-1] != num_tasks:
        raise UserError(f"{where}: {rays.shape[-1]} weights for {num_tasks} tasks; give one a task")
    if not np.isfinite(rays).all():
        raise UserError(f"{where}: a weight is not a finite number")
    if (rays < 0).any():
        raise UserError(f"{where}: a weight is negative; weights are 0 or more")
    # By the largest first, so that the sum of huge weights cannot overflow.
    peak = rays.max(axis=-1, keepdims=True)
    if (peak == 0).any():
        raise UserError(f"{where}: all weights are zero; at least one must be positive")
    scaled = rays / peak
    return scaled / scaled.sum(axis=-1, keepdims=True)


def _with_corners(key: jax.Array, rays: jax.Array, probability: jax.Array | float) -> jax.Array:
    """Replaces each ray, with the probability, by a random corner of the simplex."""
    chosen_key, task_key = jax.random.split(key)
    num_rays, num_tasks = rays.shape
    chosen = jax.random.bernoulli(chosen_key, probability, (num_rays, 1))
    tasks = jax.random.randint(task_key, (num_rays,), 0, num_tasks)
    return jnp.where(chosen, jax.nn.one_hot(tasks, num_tasks), rays)


def _lattice(points: int, dimensions: int) -> np.ndarray:
    """Points that fill the unit cube evenly, `[point, dimension]`, in an order without a pattern.

    The first coordinate has the multiples of `1 / points`, the others the additive recurrence of
    the powers of a generalised golden ratio (Kronecker's sequence).
    """
    ratio = 2.0
    for _ in range(64):  # the root of x^d = x + 1, by fixed-point iteration
        ratio = (1 + ratio) ** (1 / max(dimensions, 2))
    index = np.arange(points)[:, None]
    steps = np.array([1 / points, *ratio ** -np.arange(1.0, dimensions)])[:dimensions]
    lattice = (index * steps) % 1.0
    return np.random.default_rng(0).permutation(lattice).astype(np.float32)


def _stick_quantiles(alpha: np.ndarray, knots: int = 4097) -> np.ndarray:
    """Quantiles of the parts that stick breaking takes, `[knot, task - 1]`, at even probabilities.

    Of what the tasks before have left, task `i` takes a part ~ Beta(alpha_i, sum of those after).
    """
    from scipy.special import betaincinv  # here, for training alone: serving starts without it

    after = alpha[::-1].cumsum()[::-1][1:]
    probabilities = np.linspace(0, 1, knots)[:, None]
    return betaincinv(alpha[:-1], after, probabilities).astype(np.float32)


def _concentration(value: ArrayLike, num_tasks: int) -> np.ndarray:
    try:
        alpha = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise UserError(f"concentration {value!r} is not a number or a list of numbers") from None
    if alpha.ndim > 1 or alpha.size not in (1, num_tasks):
        raise UserError(f"concentration {value!r}: give one number, or {num_tasks}, one a task")
    if not (np.isfinite(alpha) & (alpha > 0)).all():
        raise UserError(f"concentration {value!r}: must be positive")
    return np.broadcast_to(alpha, (num_tasks,))


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} = {value}: a probability is between 0 and 1")
