"""The training loop: dispatches steps, validates, saves, stops.

A step is a pure function of its number, the state and the store, so that a run which is killed
and started again ends in the same parameters as one that never was.
"""

import contextlib
import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from hyperrec_jax.data.readers.rows import Reader, prefetch
from hyperrec_jax.errors import Preempted, TrainingError, UserError
from hyperrec_jax.parallel import processes
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.log import MetricsLog
from hyperrec_jax.training.state import TrainState
from hyperrec_jax.training.step import Step, StepMetrics

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How long, and how often what.

    Attributes:
      epochs: Passes over the training rows.
      patience: Validations without a better value after which the run stops; 0 never stops it.
      steps_per_dispatch: Steps compiled into one call.
      checkpoint_every: Steps between saves within an epoch, rounded up to whole dispatches.
    """

    epochs: int
    patience: int
    steps_per_dispatch: int
    checkpoint_every: int


def dispatch_schedule(
    start: int, steps_per_epoch: int, options: LoopOptions
) -> Iterator[tuple[int, int]]:
    """The calls `(first step, number of steps)` from `start` to the end of the run.

    Their bounds depend on the step alone, not on `start`: a resumed run makes the very calls that
    an undisturbed one makes. No call crosses the end of an epoch.
    """
    step = start
    while step < options.epochs * steps_per_epoch:
        in_epoch = step % steps_per_epoch
        whole = options.steps_per_dispatch - in_epoch % options.steps_per_dispatch
        count = min(whole, steps_per_epoch - in_epoch)
        yield step, count
        step += count


def fit(
    workdir: Path,
    dispatch: Step,
    template: TrainState,
    init: Callable[[], TrainState],
    reader: Reader,
    mesh: Mesh,
    validate: Callable[[TrainState], dict[str, float]],
    options: LoopOptions,
    *,
    tasks: tuple[str, ...],
    data_fingerprint: str,
) -> Progress:
    """Trains from the latest checkpoint of a workdir, or from the start, to the end.

    Args:
      workdir: The run's folder.
      dispatch: From `step.make_dispatch`.
      template: The state's shapes and shardings.
      init: Makes the first state.
      reader: Batches by step.
      mesh: Devices.
      validate: Scores a state; its `value` (higher is better) selects the best state. A value of
        NaN means that the validation split can't tell: the newest state is then the best.
      options: Length and intervals.
      tasks: Names of the tasks, for the log.
      data_fingerprint: Of the store; a run resumes on the data that it was begun with.

    Returns:
      The progress at the end.

    Raises:
      UserError: the store is not that of the run.
      TrainingError: a loss is not finite.
      Preempted: SIGTERM came; the state is saved.
    """
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.restore_latest(template)
    if restored is None:
        state, progress = init(), Progress(data_fingerprint=data_fingerprint)
    else:
        state, progress = restored
        if progress.data_fingerprint != data_fingerprint:
            raise UserError(
                f"--workdir {workdir}: the store changed since the run was begun (fingerprint "
                f"{progress.data_fingerprint} -> {data_fingerprint}); take another folder"
            )
        logger.info("going on from step %d", int(state.step))
    if progress.stale < options.patience or options.patience == 0:
        progress.finished = progress.epoch >= options.epochs
    if progress.finished:
        return progress

    per_epoch = reader.steps_per_epoch
    start = int(state.step)
    total = options.epochs * per_epoch
    log = MetricsLog(workdir, start)
    schedule = list(dispatch_schedule(start, per_epoch, options))
    batches = prefetch(reader, schedule)
    bar = tqdm(
        total=total,
        initial=start,
        unit="step",
        disable=not processes.is_first(),
        desc=_epoch_of(progress, options),
        mininterval=1.0,
        dynamic_ncols=True,
    )
    pending: tuple[int, int, StepMetrics] | None = None
    began = time.perf_counter()

    def settle() -> None:
        """Reads the metrics of the last call, which waits for it; raises if a loss is bad."""
        nonlocal pending, began
        if pending is None:
            return
        first, count, metrics = pending
        pending = None
        metrics = processes.fetch(metrics)
        now = time.perf_counter()
        seconds, began = now - began, now
        _check_finite(first, metrics, per_epoch)
        means = metrics.task_losses.mean(axis=0)
        values = {f"loss/{task}": float(mean) for task, mean in zip(tasks, means, strict=True)}
        rows = count * reader.batch_size / seconds
        log.write(
            first + count,
            "train",
            {
                "loss": float(metrics.loss.mean()),
                **values,
                "rows_per_second": rows,
                "skipped": float(metrics.skipped[-1]),
            },
        )
        bar.update(count)
        bar.set_postfix_str(
            " ".join(f"{task} {mean:.4f}" for task, mean in zip(tasks, means, strict=True))
            + f", {rows:,.0f} rows/s"
        )

    with (
        bar,
        _stop_signals() as stop,
        contextlib.closing(checkpoints),
        contextlib.closing(log),
    ):
        for (first, count), batch in zip(schedule, batches, strict=True):
            placed = place_batch(batch, mesh, axis=1)
            state, metrics = dispatch(state, placed)
            settle()
            pending = first, count, metrics
            done = first + count
            if done % per_epoch == 0:
                settle()
                _end_epoch(state, progress, validate, options, checkpoints, log)
                began = time.perf_counter()
                bar.set_description(_epoch_of(progress, options))
                if progress.finished:
                    break
            elif done // options.checkpoint_every > first // options.checkpoint_every:
                settle()
                checkpoints.save_latest(state, progress)
            if stop.requested():
                settle()
                checkpoints.save_latest(state, progress)
                raise stop.exception(done)
    return progress


def _epoch_of(progress: Progress, options: LoopOptions) -> str:
    return f"epoch {min(progress.epoch + 1, options.epochs)}/{options.epochs}"


def _end_epoch(
    state: TrainState,
    progress: Progress,
    validate: Callable[[TrainState], dict[str, float]],
    options: LoopOptions,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> None:
    """Validates, updates the progress in place, saves the best and the latest state."""
    scores = validate(state)
    step, value = int(state.step), scores["value"]
    log.write(step, "validation", {**scores, "epoch": progress.epoch + 1})
    progress.epoch += 1
    if math.isnan(value) or progress.best_value is None or value > progress.best_value:
        progress.best_value = None if math.isnan(value) else value
        progress.best_step = step
        progress.stale = 0
        checkpoints.save_best(state.variables, step, progress)
    else:
        progress.stale += 1
    stopped = options.patience > 0 and progress.stale >= options.patience
    progress.finished = stopped or progress.epoch >= options.epochs
    checkpoints.save_latest(state, progress)


def _check_finite(first: int, metrics: StepMetrics, per_epoch: int) -> None:
    bad = ~np.isfinite(metrics.loss)
    if not bad.any() or metrics.skipped[-1] > 0:  # skipped steps are left out and counted
        return
    index = int(bad.argmax())
    step = first + index
    ray = ", ".join(f"{weight:.4f}" for weight in metrics.rays[index][0])
    raise TrainingError(
        f"the loss is {metrics.loss[index]} at step {step} (batch {step % per_epoch} of epoch "
        f"{step // per_epoch + 1}, preference {ray}); the last checkpoint is kept; try a lower "
        "--config.optimizer.learning_rate, or --config.train.skip_nonfinite=True"
    )


class _StopSignals:
    """Whether SIGTERM or Ctrl-C came; all processes agree on the call after which they stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._asked = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.signal = number

    def requested(self) -> bool:
        if jax.process_count() > 1:
            # The coordination service took SIGTERM, and names to all the next of these numbers.
            self._asked += 1
            return bool(multihost_utils.reached_preemption_sync_point(self._asked))
        return self.signal is not None

    def exception(self, step: int) -> BaseException:
        message = f"stopped at step {step}, the state is saved; run the same command to go on"
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt(message)
        return Preempted(message)


@contextlib.contextmanager
def _stop_signals() -> Iterator[_StopSignals]:
    """Catches SIGTERM and SIGINT while the loop runs."""
    handler = _StopSignals()
    numbers: tuple[Any, ...] = (signal.SIGTERM, signal.SIGINT)
    if jax.process_count() > 1:
        numbers = ()
    try:
        before = [(number, signal.signal(number, handler)) for number in numbers]
    except ValueError:  # not the main thread (a notebook's worker): signals are not ours
        before = []
    try:
        yield handler
    finally:
        for number, former in before:
            signal.signal(number, former)
