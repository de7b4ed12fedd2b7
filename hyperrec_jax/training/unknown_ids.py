"""Training the unknown id: a share of a batch's ids is taken for values never seen.

Id 0 stands for all values that training never saw. Where every training row has a known value its
embedding stays what it was at the start, and a new item or user is scored by chance. With a small
share of ids dropped, id 0 learns to be the average of all others.
"""

import jax
import jax.numpy as jnp

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import RunStep, StepMetrics

_STREAM = 0x1D
"""Keeps this draw apart from those of the step itself, which begin at the same key."""


def drop_ids(ids: jax.Array, share: float, key: jax.Array) -> jax.Array:
    """Sets ids to 0, each with the same probability; padding (-1) stays.

    Args:
      ids: Integers, any shape.
      share: The probability, in [0, 1).
      key: Random key; the draw depends on it alone.
    """
    return jnp.where(jax.random.bernoulli(key, share, ids.shape) & (ids >= 0), 0, ids)


def with_unknown_ids(step: RunStep, run: Run) -> RunStep:
    """A step that drops `train.unknown_share` of all ids, if that is above 0.

    Which ones is a function of the run's seed and the number of the step, so that a resumed run
    drops those that an undisturbed one would have.

    Args:
      step: Step of a run.
      run: The run.
    """
    share = run.config["train"]["unknown_share"]
    if not share or not run.model.field_sizes:
        return step

    def dropping_step(run: Run, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.fold_in(run.step_key, state.step), _STREAM)
        dropped = {"categorical": drop_ids(batch["categorical"], share, key)}
        if "multivalued" in batch:
            of_lists = jax.random.fold_in(key, 1)
            dropped["multivalued"] = drop_ids(batch["multivalued"], share, of_lists)
        return step(run, state, batch | dropped)

    return dropping_step
