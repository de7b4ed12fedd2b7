"""The optimizer of a run: Adam with L2, its learning-rate schedule, accumulated batches."""

import math

import optax

from hyperrec_jax.errors import UserError


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
      learning_rate: Peak learning rate, above 0.
      l2: Coefficient of the L2 penalty on every parameter, at least 0.
      schedule: `constant`, or `cosine` from the peak to zero at `total_steps`.
      warmup_steps: Steps of linear warm-up from zero, at least 0.
      total_steps: Steps of the whole run.
      accumulate_steps: Number of batches whose mean gradient makes one update.

    Raises:
      UserError: unknown schedule, or a number out of its range.
    """
    if not 0 < learning_rate < math.inf:
        raise UserError(f"optimizer.learning_rate={learning_rate}: must be a number above 0")
    if not 0 <= l2 < math.inf:
        raise UserError(f"optimizer.l2={l2}: must be a number of at least 0")
    if warmup_steps < 0:
        raise UserError(f"optimizer.warmup_steps={warmup_steps}: must be at least 0")
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
