"""The state of a run: one pytree, all that a step reads and writes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from hyperrec_jax.errors import UserError

Batch = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """What changes from step to step.

    The run's random key is no part of it: every draw comes from `fold_in(key, step)`, so that a
    restored step draws what it would have drawn. The data position is the step, too.

    Attributes:
      step: Batches seen, int32 `[]`.
      params: The model's parameters.
      batch_stats: Running statistics of batch norm.
      opt_state: Optimizer state.
      normaliser: State of the loss normalisation.
      objective: State of the objective (empty for most).
      skipped: Steps left out because the loss was not finite, int32 `[]`.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    normaliser: Any
    objective: Any
    skipped: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """The collections that `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_optimizer(
    learning_rate: float,
    *,
    l2: float = 0.0,
    schedule: str = "constant",
    warmup_steps: int = 0,
    total_steps: int = 1,
    accumulate_steps: int = 1,
) -> optax.GradientTransformation:
    """Adam with L2 added to the gradient, as `torch.optim.Adam(weight_decay=l2)` has it.

    Args:
      learning_rate: Peak learning rate.
      l2: Coefficient of the L2 penalty on every parameter.
      schedule: `constant`, or `cosine` from the peak to zero at `total_steps`.
      warmup_steps: Steps of linear warm-up from zero.
      total_steps: Steps of the whole run.
      accumulate_steps: Batches whose mean gradient makes one update.

    Raises:
      UserError: unknown schedule.
    """
    if schedule == "constant":
        main = optax.constant_schedule(learning_rate)
    elif schedule == "cosine":
        main = optax.cosine_decay_schedule(learning_rate, max(1, total_steps - warmup_steps))
    else:
        raise UserError(f"optimizer.schedule={schedule!r}: take 'constant' or 'cosine'")
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        main = optax.join_schedules([warmup, main], [warmup_steps])
    optimizer = optax.chain(
        optax.add_decayed_weights(l2),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(main),
    )
    if accumulate_steps > 1:
        return optax.MultiSteps(optimizer, accumulate_steps).gradient_transformation()
    return optimizer


def init_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    normaliser: Any,
    objective: Any,
    batch: Batch,
    num_tasks: int,
    key: jax.Array,
    base_rates: np.ndarray | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      model: A model of `hyperrec_jax.models`.
      optimizer: An optax transformation.
      normaliser: From `normalisation.create_normaliser`.
      objective: From `objectives.create_objective`.
      batch: An example batch; only its shapes matter.
      num_tasks: Number of tasks.
      key: Random key of the initial parameters.
      base_rates: Of the training labels, `[task]`, for the first predictions to be; or None.
    """
    params_key, dropout_key = jax.random.split(key)
    preference = jnp.full((num_tasks,), 1 / num_tasks)
    variables = model.init({"params": params_key, "dropout": dropout_key}, batch, preference, False)
    params = variables["params"]
    if base_rates is not None:
        params = model.with_prior(params, base_rates)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        normaliser=normaliser.init(),
        objective=objective.init(num_tasks),
        skipped=jnp.zeros((), jnp.int32),
    )
