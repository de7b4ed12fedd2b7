"""Preferences drawn for training; see `grid` for what a preference is."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hyperrec_jax.errors import UserError
from hyperrec_jax.options import Fraction, Positive
from hyperrec_jax.preference.grid import normalise
from hyperrec_jax.registry import Registry

Sampler = Callable[[jax.Array, int, jax.Array | float], jax.Array]
"""`sample(key, num_preferences, progress) -> [preference, goal]`; jit-able, the number static.

`progress` is the part of the training run that has passed, in [0, 1]."""


SAMPLERS: Registry[Sampler] = Registry("sampler", "hyperrec_jax.preference")
"""All samplers by name."""

register = SAMPLERS.register

Concentration = Positive | tuple[Positive, ...]
"""Concentration of a Dirichlet distribution: one number, or one for each goal."""


def create_sampler(name: str, num_tasks: int, **options: object) -> Sampler:
    """Makes a sampler of the preferences of training batches.

    Args:
      name: 'dirichlet', 'stratified', 'centre_to_corners' or 'fixed'.
      num_tasks: Number of goals, at least 1.
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
      num_tasks: Number of goals.
      concentration: One number, or one for each goal; see `stratified`.
      corners: Probability that a preference is replaced by a corner (all weight on one goal).
    """
    alpha = _concentration(concentration, num_tasks)
    _check_probability("corners", corners)

    def sample(key: jax.Array, num_preferences: int, progress: jax.Array | float) -> jax.Array:
        preference_key, corner_key = jax.random.split(key)
        preferences = jax.random.dirichlet(preference_key, jnp.asarray(alpha), (num_preferences,))
        return _with_corners(corner_key, preferences, corners)

    return sample


@register("stratified")
def stratified(
    num_tasks: int, *, concentration: Concentration = 0.1, corners: Fraction = 0.0
) -> Sampler:
    """Preferences of a Dirichlet distribution that cover the simplex evenly in every batch.

    A lattice in the unit cube, shifted at random (Cranley & Patterson 1976, SIAM Journal on
    Numerical Analysis 13) and mapped onto the simplex by stick breaking: each preference alone
    is a draw from the distribution; with two goals each of `num_preferences` parts of the simplex
    of equal probability holds one. As the lattice is a constant, thousands of them cost little.

    Args:
      num_tasks: Number of goals.
      concentration: Concentration of the distribution; one number, or one for each goal. 1 is
        uniform on the simplex, less favours the corners, more the centre. What lies between two
        ends that a model serves well it mostly serves well, too; the ends need their rows
        (`benchmarks/fronts.py`).
      corners: Probability that a preference is replaced by a corner (all weight on one goal).
    """
    alpha = _concentration(concentration, num_tasks)
    _check_probability("corners", corners)
    quantiles = _stick_quantiles(alpha)

    def sample(key: jax.Array, num_preferences: int, progress: jax.Array | float) -> jax.Array:
        shift_key, corner_key = jax.random.split(key)
        shift = jax.random.uniform(shift_key, (num_tasks - 1,))
        cube = (_lattice(num_preferences, num_tasks - 1) + shift) % 1.0
        place = cube * (len(quantiles) - 1)
        knot = jnp.minimum(place.astype(jnp.int32), len(quantiles) - 2)
        low, high = (
            jnp.take_along_axis(jnp.asarray(quantiles), index, axis=0) for index in (knot, knot + 1)
        )
        breaks = low + (place - knot) * (high - low)
        ends = jnp.ones((num_preferences, 1))
        left = jnp.concatenate([ends, jnp.cumprod(1 - breaks, axis=1)], axis=1)
        preferences = left * jnp.concatenate([breaks, ends], axis=1)
        return _with_corners(corner_key, preferences, corners)

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
      num_tasks: Number of goals.
      start: Concentration at the start; above 1 near the centre.
      end: Concentration at the end; below 1 near the corners.
      corners: Probability, at the end, that a preference is replaced by a corner.
    """
    first, last = _concentration(start, num_tasks), _concentration(end, num_tasks)
    _check_probability("corners", corners)

    def sample(key: jax.Array, num_preferences: int, progress: jax.Array | float) -> jax.Array:
        preference_key, corner_key = jax.random.split(key)
        alpha = jnp.asarray(first) ** (1 - progress) * jnp.asarray(last) ** progress
        preferences = jax.random.dirichlet(preference_key, alpha, (num_preferences,))
        return _with_corners(corner_key, preferences, corners * progress)

    return sample


@register("fixed")
def fixed(num_tasks: int, *, preferences: Sequence[float] | ArrayLike | None = None) -> Sampler:
    """Given preferences in turn, from a random start.

    Args:
      num_tasks: Number of goals.
      preferences: `[goal]` or `[preference, goal]`; each is scaled to sum to one.
        By default equal weights alone.
    """
    preferences = np.ones(num_tasks) if preferences is None else preferences
    table = normalise(
        np.atleast_2d(np.asarray(preferences, np.float64)), num_tasks, "fixed sampler"
    )

    def sample(key: jax.Array, num_preferences: int, progress: jax.Array | float) -> jax.Array:
        start = jax.random.randint(key, (), 0, len(table))
        return jnp.asarray(table, jnp.float32)[(start + jnp.arange(num_preferences)) % len(table)]

    return sample


def _with_corners(
    key: jax.Array, preferences: jax.Array, probability: jax.Array | float
) -> jax.Array:
    """Replaces each preference, with the probability, by a random corner of the simplex."""
    chosen_key, task_key = jax.random.split(key)
    num_preferences, num_tasks = preferences.shape
    chosen = jax.random.bernoulli(chosen_key, probability, (num_preferences, 1))
    tasks = jax.random.randint(task_key, (num_preferences,), 0, num_tasks)
    return jnp.where(chosen, jax.nn.one_hot(tasks, num_tasks), preferences)


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
    """Quantiles of the parts that stick breaking takes, `[knot, goal - 1]`, at even probabilities.

    Goal `i` takes a part ~ Beta(alpha_i, sum of those after) of what the goals before it have left.
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
        raise UserError(
            f"concentration {value!r}: give one number, or {num_tasks}, one for each goal"
        )
    if not (np.isfinite(alpha) & (alpha > 0)).all():
        raise UserError(f"concentration {value!r}: must be positive")
    return np.broadcast_to(alpha, (num_tasks,))


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} = {value}: a probability is between 0 and 1")
