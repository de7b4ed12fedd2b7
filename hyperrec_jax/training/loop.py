"""The training loop: reads batches, calls the step, tells the hooks.

A step is a pure function of its number, the state and the store, so that a run which is killed
and started again ends in the same parameters as one that never was.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.readers.rows import Reader, prefetch
from hyperrec_jax.errors import TrainingError
from hyperrec_jax.parallel import processes
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.checkpoint import Progress
from hyperrec_jax.training.dispatch import make_dispatch, make_step, padded
from hyperrec_jax.training.hooks import Hook
from hyperrec_jax.training.signals import stop_signals
from hyperrec_jax.training.state import TrainState, state_template
from hyperrec_jax.training.step import BatchLoss, StepMetrics


def dispatch_schedule(
    start: int, steps_per_epoch: int, epochs: int, steps_per_dispatch: int
) -> Iterator[tuple[int, int]]:
    """The calls `(first step, number of steps)` from `start` to the end of the run.

    Their bounds depend on the step alone, not on `start`: a resumed run makes the very calls that
    an undisturbed one makes. No call crosses the end of an epoch.
    """
    step = start
    while step < epochs * steps_per_epoch:
        in_epoch = step % steps_per_epoch
        whole = steps_per_dispatch - in_epoch % steps_per_dispatch
        count = min(whole, steps_per_epoch - in_epoch)
        yield step, count
        step += count


def run_loop(
    run: Run,
    reader: Reader,
    state: TrainState,
    progress: Progress,
    hooks: Sequence[Hook],
    loss: BatchLoss | None = None,
) -> Progress:
    """Trains from a state to the end of the run.

    Args:
      run: The run.
      reader: Its batches by step, from 0 at the run's first step on.
      state: Where to begin; its buffers are given away.
      progress: Up to this state; updated in place, by the hooks.
      hooks: Told of every call and epoch, in their order; closed at the end.
      loss: Loss of a batch; None for the objective's.

    Returns:
      The progress at the end.

    Raises:
      TrainingError: a loss is not finite.
      Preempted: SIGTERM came; the hooks have saved the state.
    """
    settings, per_epoch = run.config["train"], reader.steps_per_epoch
    offset = run.first_step
    start = int(state.step) - offset
    length = min(settings["steps_per_dispatch"], per_epoch)
    schedule = list(dispatch_schedule(start, per_epoch, settings["epochs"], length))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state_template(run))
    dispatch = make_dispatch(make_step(run, loss), shardings)
    pending: tuple[int, int, StepMetrics] | None = None
    began = time.perf_counter()

    def settle() -> None:
        """Reads the metrics of the last call, which waits for it; raises if a loss is bad."""
        nonlocal pending, began
        if pending is None:
            return
        first, count, metrics = pending
        pending = None
        metrics = jax.tree.map(lambda leaf: leaf[:count], processes.fetch(metrics))
        now = time.perf_counter()
        seconds, began = now - began, now
        check_finite(first, metrics, per_epoch, offset)
        for hook in hooks:
            hook.trained(offset + first + count, metrics, count * reader.batch_size / seconds)

    with stop_signals() as stop, contextlib.ExitStack() as closing:
        for hook in hooks:
            closing.callback(hook.close)
            hook.begin(progress, offset + start, offset + settings["epochs"] * per_epoch)
        for (first, count), batch in zip(schedule, prefetch(reader, schedule), strict=True):
            placed = place_batch(padded(batch, length), run.mesh, axis=1)
            state, metrics = dispatch(state, placed, count)
            settle()
            pending = first, count, metrics
            done = first + count
            if done % per_epoch == 0:
                settle()
                for hook in hooks:
                    hook.epoch_ended(state, progress)
                began = time.perf_counter()
                if progress.finished:
                    break
            elif any(hook.due(offset + first, offset + done) for hook in hooks):
                settle()
                for hook in hooks:
                    hook.save(state, progress)
            if stop.requested():
                settle()
                for hook in hooks:
                    hook.save(state, progress)
                raise stop.exception(offset + done)
    return progress


def check_finite(first: int, metrics: StepMetrics, per_epoch: int, offset: int = 0) -> None:
    """Refuses to go on after a loss that is not finite.

    Args:
      first: Number of the first of the steps, counted from the run's first step.
      metrics: Metrics of some steps, with a leading axis.
      per_epoch: Steps in an epoch.
      offset: Number of the run's first step.

    Raises:
      TrainingError: a loss is NaN or infinite, and its step was not left out.
    """
    bad = ~np.isfinite(metrics.loss)
    if not bad.any() or metrics.skipped[-1] > 0:  # skipped steps are left out and counted
        return
    index = int(bad.argmax())
    step = first + index
    preference = ", ".join(f"{weight:.4f}" for weight in metrics.preferences[index][0])
    raise TrainingError(
        f"the loss is {metrics.loss[index]} at step {offset + step} (batch {step % per_epoch} of "
        f"epoch {step // per_epoch + 1}, preference {preference}); the last checkpoint is kept; "
        "try a lower optimizer.learning_rate, or train.skip_nonfinite=True"
    )
