"""Leaving out steps whose loss or update is not finite."""

import jax
import jax.numpy as jnp

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import RunStep, StepMetrics


def skip_nonfinite(step: RunStep) -> RunStep:
    """A step that keeps the old state, and counts, where the new one would hold NaN or infinity."""

    def careful_step(run: Run, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        new, metrics = step(run, state, batch)
        changed = (new.params, new.batch_stats, new.opt_state)
        leaves = [
            leaf for leaf in jax.tree.leaves(changed) if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ]
        finite = jnp.isfinite(metrics.loss)
        for leaf in leaves:
            finite &= jnp.isfinite(leaf).all()
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        skipped = state.skipped + jnp.where(finite, 0, 1)
        kept = kept.replace(step=state.step + 1, skipped=skipped)
        return kept, metrics._replace(skipped=skipped)

    return careful_step
