"""Objectives: goal losses and a preference into one number to minimise.

Goal losses `l [goal]` are as the loss normalisation leaves them. With several preferences per
batch an objective is the mean over them, unless it is made for all of them at once.

The one convention: a high `r_i` asks for a low loss of goal `i`. Linear scalarisation obeys it by
its weights; weighted Chebyshev, whose losses end along `1 / r`, by its balance.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hyperrec_jax.errors import UserError
from hyperrec_jax.options import Count, NotNegative, Positive, check_options, options_of
from hyperrec_jax.preference import weighting
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.preference.penalties import coverage_penalty, order_penalty
from hyperrec_jax.registry import Registry

Array = jax.Array
TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Objective:
    """One objective as pure, jit-able functions.

    Attributes:
      loss: `loss(task_losses, preferences, gram, state) -> []`. Goal losses and preferences are
        `[goal]` or `[..., preference, goal]` alike; gram holds the inner products of the goals'
        gradients, `[goal, goal]` (or, for conditioned objectives, `[preference, goal, goal]`: those
        of each), and is read only if `needs_gram`.
      conditioned: Whether the preferences matter.
      needs_gram: Whether gram must be given.
      linear: Whether the loss of several preferences is a weighted sum of all their goal losses, so
        that every row may have a preference of its own.
      directed: Whether the direction of the losses from their origin matters, which must then stay
        where it is.
      init: `init(num_tasks) -> state`, a pytree; empty for most.
      update: `update(state, task_losses [goal]) -> state`, once per step.
    """

    loss: Callable[[Array, Array, Array | None, Any], Array]
    conditioned: bool = True
    needs_gram: bool = False
    linear: bool = False
    directed: bool = False
    init: Callable[[int], Any] = lambda num_tasks: ()
    update: Callable[[Any, Array], Any] = lambda state, task_losses: state


def create_objective(
    name: str, *, order: NotNegative = 0.0, coverage: NotNegative = 0.0, **options: object
) -> Objective:
    """Makes an objective.

    Args:
      name: A key of `OBJECTIVES`.
      order: Weight of `order_penalty`, at least 0; conditioned objectives over several
        preferences only.
      coverage: Weight of `coverage_penalty`, at least 0; conditioned objectives only.
      **options: The keyword arguments of the function of that name in this module.

    Raises:
      UserError: unknown name or option, or a penalty that does not apply.
    """
    penalties = {"order": order, "coverage": coverage}
    check_options(f"objective {name!r}", options_of(create_objective), penalties)
    objective = OBJECTIVES.create(name, **options)
    if not (order or coverage):
        return objective
    if not objective.conditioned:
        raise UserError(f"objective '{name}' ignores the preference: order and coverage must be 0")

    def loss(task_losses: Array, preferences: Array, gram: Array | None, state: Any) -> Array:
        total = objective.loss(task_losses, preferences, gram, state)
        losses, weights = _rows(task_losses), _rows(preferences)
        if order:
            total += order * order_penalty(losses, weights)
        if coverage:
            total += coverage * jax.vmap(coverage_penalty)(losses, weights).mean()
        return total

    # A penalty compares losses with one another, so that the sum is not linear in them any more;
    # coverage reads their shares, which depend on where their origin is.
    return dataclasses.replace(
        objective, loss=loss, linear=False, directed=objective.directed or coverage > 0
    )


OBJECTIVES: Registry[Objective] = Registry("objective", "hyperrec_jax.preference")
"""All objectives by name."""

register = OBJECTIVES.register


def scalarised(
    *, linear: bool = False, directed: bool = False
) -> Callable[[Callable[..., Array]], Callable[..., Objective]]:
    """Makes an objective of a scalarisation: its mean over the preferences.

    Use it as `@register(NAME, scalarised())` over a function
    `f(losses [goal], preference [goal], *, option=default) -> []`.

    Args:
      linear: See `Objective`.
      directed: See `Objective`.
    """

    def make(function: Callable[..., Array]) -> Callable[..., Objective]:
        @functools.wraps(function)
        def construct(**options: Any) -> Objective:
            def loss(
                task_losses: Array, preferences: Array, gram: Array | None, state: Any
            ) -> Array:
                scalarise = functools.partial(function, **options)
                return jax.vmap(scalarise)(_rows(task_losses), _rows(preferences)).mean()

            return Objective(loss, linear=linear, directed=directed)

        return construct

    return make


def searched(function: Callable[..., Array]) -> Callable[..., Objective]:
    """Makes an objective of a search: weights that a preference and the gradients choose.

    Use it as `@register(NAME, searched)` over a function `f(losses [goal], preference [goal],
    gram [goal, goal], *, option=default) -> weights [goal]`.
    """

    @functools.wraps(function)
    def construct(**options: Any) -> Objective:
        def loss(task_losses: Array, preferences: Array, gram: Array | None, state: Any) -> Array:
            losses = _rows(task_losses)
            num_preferences, num_tasks = losses.shape
            grams = jnp.broadcast_to(jnp.asarray(gram), (num_preferences, num_tasks, num_tasks))
            search = functools.partial(function, **options)
            weights = jax.vmap(search)(*jax.lax.stop_gradient((losses, _rows(preferences), grams)))
            return (weights * losses).sum(axis=-1).mean()

        return Objective(loss, needs_gram=True)

    return construct


def balanced(
    weights: Callable[[Array, Any, Any], Array],
    *,
    needs_gram: bool = True,
    init: Callable[[int], Any] = lambda num_tasks: (),
    update: Callable[[Any, Array], Any] = lambda state, task_losses: state,
) -> Objective:
    """The objective of weights that losses and gradients choose, whatever the preference.

    Args:
      weights: `weights(losses [goal], gram [goal, goal] or None, state) -> [goal]`.
      needs_gram: See `Objective`.
      init: See `Objective`.
      update: See `Objective`.
    """

    def loss(task_losses: Array, preferences: Array, gram: Array | None, state: Any) -> Array:
        losses = _rows(task_losses).mean(axis=0)
        return weights(*jax.lax.stop_gradient((losses, gram, state))) @ losses

    return Objective(loss, False, needs_gram, init=init, update=update)


# Scalarisations of one preference: losses [goal], preference [goal] -> [].


@register("linear", scalarised(linear=True))
def linear(losses: Array, preference: Array) -> Array:
    """`sum_i r_i l_i`. Reaches the convex parts of a front only (Das and Dennis 1997).

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
    """
    return preference @ losses


@register("cosine", scalarised(directed=True))
def cosine(losses: Array, preference: Array, *, weight: NotNegative = 0.01) -> Array:
    """`sum_i r_i l_i - weight * cos(l, r)`: COSMOS (Ruchte and Grabocka 2021, arXiv 2103.13392).

    The cosine pulls the losses along the preference itself, where a high `r_i` means a high loss,
    against the linear term; a small weight keeps it a matter of spread.

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
      weight: Weight of the cosine.
    """
    return preference @ losses - weight * _cosine(losses, preference)


@register("cosine_original", scalarised(directed=True))
def cosine_original(losses: Array, preference: Array, *, weight: NotNegative = 0.05) -> Array:
    """`sum_i r_i l_i - weight * cos(l, 1 - r)`: the original PO-MoE's.

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
      weight: Weight of the cosine.
    """
    return preference @ losses - weight * _cosine(losses, 1 - preference)


@register("chebyshev", scalarised())
def chebyshev(losses: Array, preference: Array) -> Array:
    """`max_i r_i l_i` (Bowman 1976). Reaches every point of a front, convex or not.

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
    """
    return jnp.max(preference * losses)


@register("smooth_chebyshev", scalarised())
def smooth_chebyshev(losses: Array, preference: Array, *, temperature: Positive = 0.01) -> Array:
    """`mu log sum_i exp(r_i l_i / mu)`, mu the temperature (Lin et al. 2024, arXiv 2402.19078).

    Tends to `chebyshev` as mu falls; the gradient of each goal then no longer jumps.

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
      temperature: In units of `r_i l_i`, above 0.
    """
    return temperature * jax.nn.logsumexp(preference * losses / temperature)


# Weights of one preference: losses [goal], preference [goal], gram [goal, goal] -> [goal].


@register("epo", searched)
def epo(losses: Array, preference: Array, gram: Array, *, tolerance: NotNegative = 1e-4) -> Array:
    """Exact Pareto optimal search: see `weighting.epo` (Mahapatra and Rajan 2020).

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
      gram: Inner products of the goals' gradients, `[goal, goal]`.
      tolerance: Non-uniformity of `r_i l_i` that still counts as balance, at least 0.
    """
    return weighting.epo(losses, preference, gram, tolerance=tolerance)


@register("pareto_mtl", searched)
def pareto_mtl(losses: Array, preference: Array, gram: Array, *, vectors: Count = 5) -> Array:
    """Pareto MTL among parts of the front: see `weighting.pareto_mtl` (Lin et al. 2019).

    Args:
      losses: Goal losses, `[goal]`.
      preference: `[goal]`.
      gram: Inner products of the goals' gradients, `[goal, goal]`.
      vectors: Parts that the front is shared out among, at least 1.
    """
    grid = jnp.asarray(evaluation_grid(len(preference), vectors), jnp.float32)
    return weighting.pareto_mtl(losses, preference, gram, grid)


# Objectives over all preferences of a batch.


@register("hypervolume")
def hypervolume(*, reference: Positive = 1.1, weight: NotNegative = 1.0) -> Objective:
    """Hypervolume of the losses: `mean_k (sum_i w_ki l_ki - weight * cos(l_k, 1 / r_k))`.

    The weights w are the growth of the hypervolume (`weighting.hypervolume`), from the reference
    point `max(reference, 1.1 max_k l_ki)`. The cosine tells which preference goes where. Hoang et
    al. 2023 (arXiv 2212.01130), whose preferences point along the losses: theirs is `1 / r` here.
    For losses normalised to about [0, 1] and some 16 stratified preferences per batch.

    Args:
      reference: Reference point of the hypervolume, in normalised losses.
      weight: Weight of the cosine. Far below 1, preferences may collapse into one point or come in
        the wrong order where the front is concave.
    """

    def loss(task_losses: Array, preferences: Array, gram: Array | None, state: Any) -> Array:
        losses, directions = _rows(task_losses), weighting.opposite(_rows(preferences))
        held = jax.lax.stop_gradient(losses)
        corner = jnp.maximum(reference, 1.1 * held.max(axis=0))
        growth = weighting.hypervolume(held, corner)
        spread = jax.vmap(_cosine)(losses, directions)
        return ((growth * losses).sum(axis=-1) - weight * spread).mean()

    return Objective(loss, directed=True)


# Baselines that ignore the preference: one point, never a front.


@register("uniform")
def uniform() -> Objective:
    """`mean_i l_i`."""
    return Objective(
        lambda task_losses, preferences, gram, state: task_losses.mean(),
        conditioned=False,
        linear=True,
    )


@register("mgda")
def mgda() -> Objective:
    """Multiple gradient descent: see `weighting.min_norm` (Sener and Koltun 2018)."""
    return balanced(lambda losses, gram, state: weighting.min_norm(gram))


@register("nash")
def nash() -> Objective:
    """Nash bargaining: see `weighting.nash` (Navon et al. 2022)."""
    return balanced(lambda losses, gram, state: weighting.nash(gram))


@register("pcgrad")
def pcgrad() -> Objective:
    """Projected conflicting gradients: see `weighting.pcgrad` (Yu et al. 2020).

    The state counts the steps, from which the random order of the projections is drawn.
    """

    def weights(losses: Array, gram: Array, step: Array) -> Array:
        return weighting.pcgrad(gram, jax.random.fold_in(jax.random.key(0), step))

    return balanced(
        weights,
        init=lambda num_tasks: jnp.zeros((), jnp.int32),
        update=lambda step, task_losses: step + 1,
    )


def _rows(values: Array) -> Array:
    """`[goal]` or `[..., preference, goal]` as `[preference, goal]`."""
    return values.reshape(-1, values.shape[-1])


def _cosine(x: Array, y: Array) -> Array:
    """Cosine of the angle, with finite gradients at zero."""
    return x @ y / jnp.sqrt((x @ x + TINY) * (y @ y + TINY))
