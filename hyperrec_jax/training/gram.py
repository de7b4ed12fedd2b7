"""The loss of objectives that compare the gradients of the goals, such as EPO or MGDA.

They read the inner products of the goals' gradients, taken where the goals meet: at the
representations that a model passes through `mark_shared`, not at every shared parameter (MGDA-UB,
Sener and Koltun 2018, arXiv 1810.04650).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hyperrec_jax.config.run import Run
from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import PERTURBATIONS
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import (
    KEPT_PREFERENCES,
    Forward,
    draw_preferences,
    goal_losses,
)


def gram_loss(
    run: Run, params: optax.Params, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Forward]:
    """As `step.batch_loss`, with the inner products of the goals' gradients for the objective.

    Raises:
      UserError: the model marks no representation that its goals share.
    """
    preference_key, dropout_key = jax.random.split(key)
    preferences = draw_preferences(run, preference_key, state, batch)

    def normalised_losses(perturbations: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        losses, stats = goal_losses(
            run, params, state.batch_stats, batch, preferences, dropout_key, perturbations
        )
        return run.normaliser.apply(state.normaliser, losses), (losses, stats)

    nothing = _no_perturbation(run, state, batch)
    normalised, pullback, (losses, stats) = jax.vjp(normalised_losses, nothing, has_aux=True)
    gram = inner_products(pullback, normalised)
    loss = run.objective.loss(normalised, preferences, gram, state.objective)
    return loss, Forward(losses, preferences[:KEPT_PREFERENCES], stats)


def _no_perturbation(run: Run, state: TrainState, batch: Batch) -> Any:
    """Zeros to add to the representations that the model's goals share.

    Raises:
      UserError: the model marks none.
    """

    def marked() -> Any:
        num_goals = batch["labels"].shape[1]
        return run.model.apply(
            state.variables,
            batch,
            jnp.full((num_goals,), 1 / num_goals),
            True,
            rngs={"dropout": run.step_key},
            mutable=["batch_stats", PERTURBATIONS],
        )[1]

    shapes = jax.eval_shape(marked).get(PERTURBATIONS)
    if not shapes:
        raise UserError(
            "the objective compares the gradients of the goals where they meet, and model "
            f"{type(run.model).__name__} marks no such place: call its mark_shared there"
        )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return {PERTURBATIONS: zeros}


def inner_products(pullback: Callable[[jax.Array], Any], losses: jax.Array) -> jax.Array:
    """Inner products of the goals' gradients at the shared representation, `[goal, goal]`.

    Args:
      pullback: From a cotangent of the losses to one of the representation.
      losses: `[preference, goal]`; the loss of a goal is its mean over the preferences.
    """
    num_preferences, num_goals = losses.shape
    cotangents = jnp.eye(num_goals, dtype=losses.dtype)[:, None] / num_preferences
    gradients = jax.vmap(pullback)(jnp.broadcast_to(cotangents, (num_goals, *losses.shape)))
    products = [
        jnp.einsum("i...,j...->ij", leaf, leaf, precision="highest")
        for leaf in jax.tree.leaves(gradients)
    ]
    return jax.lax.stop_gradient(jnp.stack(products).sum(axis=0))
