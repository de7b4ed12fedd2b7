"""The step of a run with all that it asks for, and several steps compiled into one call."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.averaging import with_average
from hyperrec_jax.training.gram import gram_loss
from hyperrec_jax.training.lazy_tables import with_lazy_tables
from hyperrec_jax.training.meta_training import adapted
from hyperrec_jax.training.skipping import skip_nonfinite
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import BatchLoss, RunStep, StepMetrics, batch_loss, train_step
from hyperrec_jax.training.unknown_ids import with_unknown_ids

Step = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
"""`step(state, batch) -> (state, metrics)`, of one run."""


def make_step(run: Run, loss: BatchLoss | None = None) -> Step:
    """The step of a run: `train_step` in the wrappers that its model and options ask for.

    Args:
      run: The run.
      loss: Loss of a batch; None for the objective's.
    """
    if loss is None:
        loss = gram_loss if run.objective.needs_gram else batch_loss
        if run.model.inner_learning_rate:
            loss = adapted(loss)
    step: RunStep = functools.partial(train_step, loss=loss)
    if run.config["train"]["skip_nonfinite"]:
        step = skip_nonfinite(step)
    step = with_average(with_unknown_ids(with_lazy_tables(step, run), run), run)
    return functools.partial(step, run)


def make_dispatch(step: Step, shardings: Any = None) -> Callable[..., Any]:
    """Compiles several steps into one call: `dispatch(state, batches [length, batch, ...])`.

    With a third argument `count` only the first so many batches are trained on, and the metrics of
    the others are zero: one compiled program serves a whole call and the shorter one that ends an
    epoch. The state is donated: its buffers are reused, the caller's reference is dead.

    Args:
      step: From `make_step`.
      shardings: Shardings of the state that comes out, a pytree; with those that go in, calls never
        compile anew for a placement that the compiler chose.
    """

    # Its shapes are asked for and then it is used: JAX keeps the first trace for the second.
    traced_once = jax.jit(step, inline=True)

    def dispatch(
        state: TrainState, batches: Batch, count: jax.Array | int | None = None
    ) -> tuple[TrainState, StepMetrics]:
        if count is None:
            return jax.lax.scan(step, state, batches)

        def batch(index: jax.Array | int) -> Batch:
            return jax.tree.map(lambda leaf: leaf[index], batches)

        def body(
            index: jax.Array, carry: tuple[TrainState, StepMetrics]
        ) -> tuple[TrainState, StepMetrics]:
            state, kept = carry
            state, metrics = traced_once(state, batch(index))
            return state, jax.tree.map(lambda all_, one: all_.at[index].set(one), kept, metrics)

        length = len(jax.tree.leaves(batches)[0])
        shapes = jax.eval_shape(traced_once, state, batch(0))[1]
        empty = jax.tree.map(lambda one: jnp.zeros((length, *one.shape), one.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, empty))

    return jax.jit(dispatch, donate_argnums=0, out_shardings=(shardings, None))


def padded(batches: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Batches `[count, batch, ...]` with zeros up to `[length, batch, ...]`."""
    missing = length - len(next(iter(batches.values())))
    if not missing:
        return dict(batches)
    return {
        name: (jnp if isinstance(leaf, jax.Array) else np).pad(
            leaf, ((0, missing), *[(0, 0)] * (leaf.ndim - 1))
        )
        for name, leaf in batches.items()
    }
