"""The training step: a pure function of a run, the state and a batch.

    preferences = run.sampler(key, n, progress)              [preference, goal]
    losses      = goal_losses(run, params, batch, preferences)
    loss        = run.objective(run.normaliser(losses), preferences)
    params     <- run.optimizer(gradient of the loss)

Whatever else a step can do is a wrapper around these functions, in a file of its own: comparing
the gradients of the goals (`gram.py`), meta-training (`meta_training.py`), leaving out steps that
are not finite (`skipping.py`), large embedding tables (`lazy_tables.py`), ids dropped to train the
unknown one (`unknown_ids.py`). `dispatch.py` puts them together.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperrec_jax.config.run import Run
from hyperrec_jax.goals.losses import batch_losses, row_losses
from hyperrec_jax.training.state import ArrayTree, Batch, TrainState

KEPT_PREFERENCES = 16
"""Number of preferences of a batch that the metrics of a step keep."""


class StepMetrics(NamedTuple):
    """What a step reports.

    Attributes:
      loss: The objective's value, `[]`.
      goal_losses: Mean loss of each goal over rows and preferences, `[goal]`.
      preferences: Those drawn, `[preference, goal]`, the first 16.
      skipped: Steps left out so far, `[]`.
    """

    loss: jax.Array
    goal_losses: jax.Array
    preferences: jax.Array
    skipped: jax.Array


class Forward(NamedTuple):
    """What the loss of a batch leaves behind, beside its value.

    Attributes:
      losses: Losses of each goal under each preference, `[preference, goal]`.
      preferences: Those drawn, `[preference, goal]`, the first 16.
      batch_stats: Running statistics of batch norm after the batch.
    """

    losses: jax.Array
    preferences: jax.Array
    batch_stats: ArrayTree


BatchLoss = Callable[[Run, optax.Params, TrainState, Batch, jax.Array], tuple[jax.Array, Forward]]
"""`loss(run, params, state, batch, key) -> (loss [], Forward)`."""

RunStep = Callable[[Run, TrainState, Batch], tuple[TrainState, StepMetrics]]
"""`step(run, state, batch) -> (state, metrics)`."""


def draw_preferences(run: Run, key: jax.Array, state: TrainState, batch: Batch) -> jax.Array:
    """The preferences of a batch, `[preference, goal]`, or one per row, `[row, goal]`."""
    rows = batch["labels"].shape[0]
    count = rows if run.preference_per_row else run.num_preferences
    return run.sampler(key, count, state.step / run.total_steps)


def goal_losses(
    run: Run,
    params: optax.Params,
    batch_stats: ArrayTree,
    batch: Batch,
    preferences: jax.Array,
    key: jax.Array,
    perturbations: ArrayTree | None = None,
) -> tuple[jax.Array, ArrayTree]:
    """The loss of each goal under each preference, `[preference, goal]`.

    Args:
      run: The run.
      params: The model's parameters.
      batch_stats: The running statistics before the batch.
      batch: The rows.
      preferences: From `draw_preferences`.
      key: Key of dropout.
      perturbations: What `gram.py` adds to the representations that the goals share.

    Returns:
      The losses, and the collections that the model updated.
    """
    if run.preference_per_row:
        broadcast = preferences
    else:  # all rows under each preference
        broadcast = preferences[0] if run.num_preferences == 1 else preferences[:, None, :]
    outputs, updates = run.model.apply(
        {"params": params, "batch_stats": batch_stats, **(perturbations or {})},
        batch,
        broadcast,
        True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )
    weights = batch["weight"][:, 0] if "weight" in batch else None
    of_goals = row_losses if run.preference_per_row else batch_losses
    losses = of_goals(run.goals, outputs, batch["labels"], weights)
    # Models that take no preference give one vector of losses, whatever their number.
    return jnp.broadcast_to(losses, preferences.shape), updates.get("batch_stats", {})


def batch_loss(
    run: Run, params: optax.Params, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Forward]:
    """The objective of a batch under the preferences that are drawn for it."""
    preference_key, dropout_key = jax.random.split(key)
    preferences = draw_preferences(run, preference_key, state, batch)
    losses, stats = goal_losses(run, params, state.batch_stats, batch, preferences, dropout_key)
    normalised = run.normaliser.apply(state.normaliser, losses)
    loss = run.objective.loss(normalised, preferences, None, state.objective)
    return loss, Forward(losses, preferences[:KEPT_PREFERENCES], stats)


def train_step(
    run: Run, state: TrainState, batch: Batch, loss: BatchLoss = batch_loss
) -> tuple[TrainState, StepMetrics]:
    """One update of the parameters by one batch."""
    key = jax.random.fold_in(run.step_key, state.step)

    def of_params(params: optax.Params) -> tuple[jax.Array, Forward]:
        return loss(run, params, state, batch, key)

    (value, forward), gradients = jax.value_and_grad(of_params, has_aux=True)(state.params)
    updates, opt_state = run.optimizer.update(gradients, state.opt_state, state.params)
    mean_losses = forward.losses.mean(axis=0)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=forward.batch_stats,
        opt_state=opt_state,
        normaliser=run.normaliser.update(state.normaliser, forward.losses),
        objective=run.objective.update(state.objective, mean_losses),
    )
    return state, StepMetrics(value, mean_losses, forward.preferences, state.skipped)
