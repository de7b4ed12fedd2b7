"""The loss of a batch of whole lists, trained end to end: the step of the second stage.

    preferences = run.lists.sampler(key, lists)                     one per list
    logits      = model(params, batch, preference of the row's list)
    scores      = log sum_i w_i sigmoid(logits_i) / scale_i         preference/expected_gain.py
                  or sum_i w_i logits_i
    loss        = list loss(scores) + weight * the goals' own losses
                  + weight * what lists fall short of the goals of whole lists

The goals' own losses keep the probabilities calibrated, whose sum the score is: a list loss alone
is content with any numbers in the right order. They are counted once for each row, whatever the
preference of its list, in units of what a constant prediction has. A goal of whole lists has no
loss of single rows here: its output begins as that of the labels of its column, and is free from
then on.

The network runs as it does when it serves: batch norm by the running statistics of the first stage,
which stay as they are, and without dropout. A batch of 2,048 rows has a few dozen lists, whose rows
share a user, so that its own means and variances are those of a few dozen users: normalised by
them, the second stage would train another function than the one that validation measures, and would
not begin at the formula.
"""

import jax
import jax.numpy as jnp
import optax

from hyperrec_jax.config.lists import ListTraining
from hyperrec_jax.config.run import Run
from hyperrec_jax.preference import list_goals
from hyperrec_jax.preference.expected_gain import list_score
from hyperrec_jax.preference.list_losses import has_positive, mean_over_lists, to_lists
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import KEPT_PREFERENCES, Forward

TEMPERATURE = 0.3
"""Difference of scores at which a pair counts as decided for a goal of whole lists."""


def list_loss(
    run: Run, params: optax.Params, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Forward]:
    """List loss and the goals' own losses of a batch that `ListReader` packed.

    Padding rows take part in nothing.

    Args:
      run: A run with `lists`.
      params: The model's parameters.
      state: The state before the batch.
      batch: Rows of whole lists, with `mask`, `list_index` and `position`.
      key: Random key of the preferences.
    """
    lists = run.lists
    assert lists is not None
    progress = (state.step - run.first_step) / max(lists.total_steps, 1)
    preferences = lists.sampler(key, lists.reader.lists_per_batch, progress)
    # Padding rows have the number after the last list: they take the last one's preference.
    of_row = jnp.take(preferences, batch["list_index"], axis=0, mode="clip")
    variables = {"params": params, "batch_stats": state.batch_stats}
    outputs = jnp.asarray(run.model.apply(variables, batch, of_row, False), jnp.float32)
    logits = jnp.broadcast_to(outputs, of_row.shape)
    labels = batch["labels"].astype(jnp.float32)
    ranking = ranking_loss(lists, logits, labels, of_row, preferences, batch)
    rows = batch["mask"].sum()
    each = optax.sigmoid_binary_cross_entropy(logits, labels)
    losses = (each * batch["mask"][:, None]).sum(axis=0) / rows  # [goal]
    relative = losses / jnp.asarray(lists.constant_losses, jnp.float32)
    own = (relative * lists.of_rows).sum() / max(lists.of_rows.sum(), 1)
    loss = ranking + lists.prediction_weight * own
    return loss, Forward(losses[None], preferences[:KEPT_PREFERENCES], state.batch_stats)


def ranking_loss(
    lists: ListTraining,
    logits: jax.Array,
    gains: jax.Array,
    of_row: jax.Array,
    preferences: jax.Array,
    batch: Batch,
) -> jax.Array:
    """Mean loss of the lists that have a positive of some goal, and what all lists fall short of
    the goals of whole lists.

    Args:
      lists: The second stage.
      logits: `[row, goal]`.
      gains: `[row, goal]`.
      of_row: Preference of each row's list, `[row, goal]`.
      preferences: Preference of each list, `[list, goal]`.
      batch: With `mask`, `list_index` and `position` of the rows.

    Returns:
      `[]`.
    """
    scores = list_score(logits, of_row, jnp.asarray(lists.scales), lists.score)

    def placed(values: jax.Array) -> jax.Array:
        return to_lists(
            values,
            batch["list_index"],
            batch["position"],
            lists.reader.lists_per_batch,
            lists.reader.max_items,
        )

    list_gains = jnp.moveaxis(placed((gains * lists.of_rows).T), 0, -1)  # [list, item, goal]
    mask = placed(batch["mask"])
    list_scores = placed(scores)
    losses = lists.loss(list_scores, list_gains, mask, preferences)
    loss = mean_over_lists(losses, has_positive(list_gains, mask).any(axis=-1))
    for goal in lists.varied:
        value = list_goals.MEASURES[goal.measure](
            list_scores,
            placed(batch["categorical"][:, goal.field]),
            mask,
            k=lists.cutoff,
            temperature=TEMPERATURE,
        )
        short = preferences[:, goal.place] * (1 - value)
        loss += lists.variety_weight * mean_over_lists(short, mask.any(axis=-1))
    return loss
