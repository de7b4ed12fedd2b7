"""FAMO: weights of the goals that follow how fast the loss of each falls."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperrec_jax.options import NotNegative, Positive
from hyperrec_jax.preference.objectives import TINY, Array, Objective, balanced, register


class FamoState(NamedTuple):
    """Logits of the weights `[goal]`, logs of the last losses `[goal]`, steps, Adam's moments."""

    logits: Array
    log_losses: Array
    steps: Array
    optimizer: optax.OptState


@register("famo")
def famo(*, learning_rate: Positive = 0.025, decay: NotNegative = 0.001) -> Objective:
    """Fast adaptive multi-task optimisation (Liu et al. 2023, arXiv 2306.03792).

    Weights `w_i ~ z_i / l_i`, `z = softmax(xi)`, and after each step Adam moves the logits xi along
    the gradient of `sum_i z_i log(l_i / l_i')`, so that the goal that improved least gains. The
    improvement is taken between successive batches, which needs no second forward pass.

    Args:
      learning_rate: Learning rate of the logits.
      decay: Weight decay of the logits, added to their gradient.
    """
    adam = optax.chain(optax.add_decayed_weights(decay), optax.adam(learning_rate))

    def init(num_tasks: int) -> FamoState:
        zeros = jnp.zeros(num_tasks)
        return FamoState(zeros, zeros, jnp.zeros((), jnp.int32), adam.init(zeros))

    def weights(losses: Array, gram: Array | None, state: FamoState) -> Array:
        inverse = jax.nn.softmax(state.logits) / jnp.maximum(losses, TINY)
        return inverse / inverse.sum()

    def update(state: FamoState, task_losses: Array) -> FamoState:
        logs = jnp.log(jnp.maximum(task_losses, TINY))
        gain = jnp.where(state.steps > 0, state.log_losses - logs, 0.0)
        gradient = jax.vjp(jax.nn.softmax, state.logits)[1](gain)[0]
        updates, optimizer = adam.update(gradient, state.optimizer, state.logits)
        logits = optax.apply_updates(state.logits, updates)
        return FamoState(logits, logs, state.steps + 1, optimizer)

    return balanced(weights, needs_gram=False, init=init, update=update)
