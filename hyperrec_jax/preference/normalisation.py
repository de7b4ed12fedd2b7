"""Loss normalisation: goal losses onto one scale, so that a preference means the same for each.

A click loss of 0.10 and a conversion loss of 0.004 make a preference of (0.5, 0.5) one of (0.96,
0.04). A normaliser is a triple of pure functions, as optax transformations are; its state belongs
to the training state and its checkpoints.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import RowGoal, Statistics
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.options import FROM_DATA, Positive, Rate
from hyperrec_jax.registry import Registry

TINY = 1e-8


class Normaliser(NamedTuple):
    """Three pure functions, all jit-able.

    Attributes:
      init: `init() -> state`.
      apply: `apply(state, losses [..., goal]) -> normalised [..., goal]`; gradients reach the
        losses, not the state.
      update: `update(state, losses [preference, goal]) -> state`, with the losses of a step.
      needs_several_preferences: Whether it compares the preferences of a batch.
    """

    init: Callable[[], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    update: Callable[[Any, jax.Array], Any]
    needs_several_preferences: bool = False


NORMALISERS: Registry[Normaliser] = Registry("normaliser", "hyperrec_jax.preference")
"""All normalisers by name."""

register = NORMALISERS.register


def create_normaliser(name: str, num_tasks: int, **options: object) -> Normaliser:
    """Makes a normaliser.

    Args:
      name: 'none', 'running_scale', 'reference', 'entropy', 'log' or 'front'.
      num_tasks: Number of goals.
      **options: The keyword arguments of the function of that name in this module.

    Raises:
      UserError: unknown name or option, or a value out of its range.
    """
    return NORMALISERS.create(name, num_tasks, **options)


@register("none")
def none(num_tasks: int) -> Normaliser:
    """`l_i = L_i`."""
    return _stateless(lambda losses: losses)


class RunningScale(NamedTuple):
    """Exponential averages: of the losses `[goal]`, and of the weight that went into them `[]`."""

    total: jax.Array
    weight: jax.Array


@register("running_scale")
def running_scale(num_tasks: int, *, decay: Rate = 0.99) -> Normaliser:
    """`l_i = L_i / mean(L_i)` by an exponential average of the past steps.

    The first step divides by its own losses. As the average follows the losses down, gradients are
    those of `log L_i` in the long run.

    Args:
      num_tasks: Number of goals.
      decay: Decay of the average per step, in [0, 1).
    """

    def init() -> RunningScale:
        return RunningScale(jnp.zeros(num_tasks), jnp.zeros(()))

    def apply(state: RunningScale, losses: jax.Array) -> jax.Array:
        started = state.weight > 0
        past = state.total / jnp.where(started, state.weight, 1)
        now = losses.reshape(-1, num_tasks).mean(axis=0)
        scale = jax.lax.stop_gradient(jnp.where(started, past, now))
        return losses / jnp.maximum(scale, TINY)

    def update(state: RunningScale, losses: jax.Array) -> RunningScale:
        return _averaged(state, losses.reshape(-1, num_tasks).mean(axis=0), decay)

    return Normaliser(init, apply, update)


@register("reference")
def reference(num_tasks: int, *, utopia: ArrayLike, nadir: ArrayLike) -> Normaliser:
    """`l_i = (L_i - z_i) / (n_i - z_i)`: 0 at the best, 1 at the worst that the front reaches.

    Args:
      num_tasks: Number of goals.
      utopia: The loss `z_i` of a model trained for goal `i` alone, `[goal]`.
      nadir: The highest loss `n_i` of goal `i` over the models trained for one goal, `[goal]`.
    """
    best, worst = _per_task("utopia", utopia, num_tasks), _per_task("nadir", nadir, num_tasks)
    if not (worst > best).all():
        raise UserError("reference: nadir must be above utopia in every goal")
    return _stateless(lambda losses: (losses - best) / (worst - best))


@register("entropy")
def entropy(num_tasks: int, *, constant_losses: Annotated[ArrayLike, FROM_DATA]) -> Normaliser:
    """`l_i = L_i / H_i`, the loss of the best constant prediction: 1 is what features must beat.

    For a binary goal that is the entropy of its base rate, and this is known as normalised
    cross-entropy (He et al. 2014, 'Practical lessons from predicting clicks').

    Args:
      num_tasks: Number of goals.
      constant_losses: Loss of the best constant prediction of each goal, `[goal]`, above 0.
    """
    scale = _per_task("constant_losses", constant_losses, num_tasks)
    if not (scale > 0).all():
        raise UserError(
            f"entropy: the losses of the best constants {scale.tolist()} must be above 0; a goal "
            "whose labels are all the same can't be scaled, use normaliser 'running_scale'"
        )
    return _stateless(lambda losses: losses / scale)


def constant_losses(goals: Sequence[RowGoal], statistics: Sequence[Statistics]) -> np.ndarray:
    """The loss of the best constant prediction of each goal, `[goal]`, float32.

    Args:
      goals: The goals.
      statistics: Statistics of each goal's training labels.
    """
    losses = np.empty(len(goals), np.float32)
    for index, (goal, known) in enumerate(zip(goals, statistics, strict=True)):
        if isinstance(goal, Binary):
            # Half a row of each class more (Krichevsky and Trofimov 1981): a label of one class
            # only has a scale, too.
            rate = (known.logs.weight + 0.5) / (known.values.weight + 1)
            losses[index] = entropy_scale(np.float32(rate))
        else:
            losses[index] = goal.constant_loss(known)
    return losses


def entropy_scale(base_rates: ArrayLike) -> np.ndarray:
    """The log loss of a constant prediction: entropy `[goal]`, in nats, of rates in (0, 1)."""
    rates = np.asarray(base_rates)
    return -rates * np.log(rates) - (1 - rates) * np.log1p(-rates)


@register("log")
def log(num_tasks: int) -> Normaliser:
    """`l_i = log L_i`: gradients relative to the loss, whatever its scale.

    Values are negative below a loss of 1: meant for objectives that are linear in the losses.
    """
    return _stateless(lambda losses: jnp.log(losses + TINY))


@register("front")
def front(num_tasks: int, *, decay: Rate = 0.99, floor: Positive = 0.005) -> Normaliser:
    """`l_ki = (L_ki - min_k L_ki) / range_i`: places on the front that the model spans by now.

    The preferences of a batch see the same rows, so that the differences between them are free of
    most of the batch's noise, which is many times the whole front. The best preference of the batch
    is 0 in each goal; the range is an exponential average of `max_k L_ki - min_k L_ki`. So no run
    for one goal alone is needed for a scale, and where the goals do not conflict (all `l` near 0)
    `smooth_chebyshev` becomes a linear scalarisation.

    Args:
      num_tasks: Number of goals.
      decay: Decay of the average per step, in [0, 1).
      floor: Smallest range in parts of the mean loss, above 0: what differs by less is noise.
    """

    def init() -> RunningScale:
        return RunningScale(jnp.zeros(num_tasks), jnp.zeros(()))

    def apply(state: RunningScale, losses: jax.Array) -> jax.Array:
        held = jax.lax.stop_gradient(losses.reshape(-1, num_tasks))
        span = state.total / jnp.where(state.weight > 0, state.weight, 1)
        scale = jnp.maximum(span, floor * held.mean(axis=0))
        return (losses - held.min(axis=0)) / jnp.maximum(scale, TINY)

    def update(state: RunningScale, losses: jax.Array) -> RunningScale:
        return _averaged(state, jnp.ptp(losses.reshape(-1, num_tasks), axis=0), decay)

    return Normaliser(init, apply, update, needs_several_preferences=True)


def _averaged(state: RunningScale, values: jax.Array, decay: float) -> RunningScale:
    """The exponential average with one more step, unless that is not finite."""
    finite = jnp.isfinite(values).all()
    new = RunningScale(
        decay * state.total + (1 - decay) * jnp.where(finite, values, 0),
        decay * state.weight + 1 - decay,
    )
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)


def _stateless(function: Callable[[jax.Array], jax.Array]) -> Normaliser:
    return Normaliser(
        init=lambda: (),
        apply=lambda state, losses: function(losses),
        update=lambda state, losses: state,
    )


def _per_task(name: str, values: ArrayLike, num_tasks: int) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if array.shape != (num_tasks,) or not np.isfinite(array).all():
        raise UserError(f"{name} = {values!r}: give {num_tasks} finite numbers, one for each goal")
    return array
