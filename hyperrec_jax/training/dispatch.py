"""The step of a run with all that it asks for, and several steps compiled into one call."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.gram import gram_loss
from hyperrec_jax.training.lazy_tables import with_lazy_tables
from hyperrec_jax.training.meta_training import adapted
from hyperrec_jax.training.skipping import skip_nonfinite
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import BatchLoss, RunStep, StepMetrics, batch_loss, train_step

Step = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
"""`step(state, batch) -> (state, metrics)`, of one run."""


def make_step(run: Run) -> Step:
    """The step of a run: `train_step` in the wrappers that its model and options ask for."""
    loss: BatchLoss = gram_loss if run.objective.needs_gram else batch_loss
    if run.model.inner_learning_rate:
        loss = adapted(loss)
    step: RunStep = functools.partial(train_step, loss=loss)
    if run.config["train"]["skip_nonfinite"]:
        step = skip_nonfinite(step)
    step = with_lazy_tables(step, run)
    return functools.partial(step, run)


def make_dispatch(step: Step, shardings: Any = None) -> Step:
    """Compiles several steps into one call: `dispatch(state, batches [count, batch, ...])`.

    The state is donated: its buffers are reused, the caller's reference is dead.

    Args:
      step: From `make_step`.
      shardings: Of the state that comes out, a pytree; with those that go in, calls never compile
        anew for a placement that the compiler chose.
    """

    def dispatch(state: TrainState, batches: Batch) -> tuple[TrainState, StepMetrics]:
        return jax.lax.scan(step, state, batches)

    return jax.jit(dispatch, donate_argnums=0, out_shardings=(shardings, None))
