"""Training the unknown id: a share of a batch's ids is taken for values never seen.

Id 0 stands for all values that training never saw. Where every training row has a known value its
embedding stays what it was at the start, and a new item or user is scored by chance. With a small
share of ids dropped, id 0 learns to be the average of all others. Fields whose values are hashed
have no unknown value, and none is dropped there.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import RunStep, StepMetrics

_STREAM = 0x1D
"""Keeps this draw apart from those of the step itself, which begin at the same key."""


def drop_ids(
    ids: jax.Array, share: float, key: jax.Array, may_drop: np.ndarray | bool = True
) -> jax.Array:
    """Sets ids to 0, each with the same probability; padding (-1) stays.

    Args:
      ids: Integers, `[..., column]`.
      share: The probability, in [0, 1).
      key: Random key; the draw depends on it alone.
      may_drop: Columns where ids may be dropped, bool `[column]`, or one answer for all.
    """
    drawn = jax.random.bernoulli(key, share, ids.shape) & (ids >= 0) & may_drop
    return jnp.where(drawn, 0, ids)


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

    schema = run.schema
    single = np.array([not field.hashed for field in schema.categorical], bool)
    several = np.array([not f.hashed for f in schema.multivalued for _ in range(f.length)], bool)

    def dropping_step(run: Run, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.fold_in(run.step_key, state.step), _STREAM)
        dropped = {"categorical": drop_ids(batch["categorical"], share, key, single)}
        if "multivalued" in batch:
            of_lists = jax.random.fold_in(key, 1)
            dropped["multivalued"] = drop_ids(batch["multivalued"], share, of_lists, several)
        return step(run, state, batch | dropped)

    return dropping_step
