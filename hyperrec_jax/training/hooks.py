"""What happens beside the steps: the log, the progress bar, validation, checkpoints.

The loop calls its hooks in their order; `training.train` lists them.
"""

import math
import sys
from collections.abc import Callable

from tqdm import tqdm

from hyperrec_jax.config.run import Run
from hyperrec_jax.parallel import processes
from hyperrec_jax.training.averaging import served
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.log import MetricsLog
from hyperrec_jax.training.state import TrainState
from hyperrec_jax.training.step import StepMetrics

_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""Without tqdm's own rate, which is that of steps."""

Validate = Callable[[TrainState], dict[str, float]]
"""Scores a state; its `value` (higher is better) selects the best state. A value of NaN means that
the validation split can't tell: the newest state is then the best."""


class Hook:
    """What the loop calls; a hook overrides what it needs."""

    def begin(self, progress: Progress, first: int, total: int) -> None:
        """Before the first step `first` of a run of `total` steps."""

    def trained(self, done: int, metrics: StepMetrics, rows_per_second: float) -> None:
        """After a call of several steps, once its metrics are known.

        Args:
          done: Steps trained so far.
          metrics: Metrics of the steps of the call, NumPy arrays with a leading axis of steps.
          rows_per_second: Rows per second over the call.
        """

    def due(self, before: int, done: int) -> bool:
        """Whether `save` shall follow the call of the steps `[before, done)`."""
        return False

    def save(self, state: TrainState, progress: Progress) -> None:
        """Within an epoch, when a hook is due or the run is told to stop."""

    def epoch_ended(self, state: TrainState, progress: Progress) -> None:
        """After the last step of an epoch; may update the progress in place."""

    def close(self) -> None:
        """At the end, also after an error."""


class Logging(Hook):
    """Writes a record for each call into the log of the run."""

    def __init__(self, log: MetricsLog, goals: tuple[str, ...]) -> None:
        self._log, self._goals = log, goals

    def trained(self, done: int, metrics: StepMetrics, rows_per_second: float) -> None:
        means = metrics.goal_losses.mean(axis=0)
        losses = {
            f"loss/{goal}": float(mean) for goal, mean in zip(self._goals, means, strict=True)
        }
        self._log.write(
            done,
            "train",
            {
                "loss": float(metrics.loss.mean()),
                **losses,
                "rows_per_second": rows_per_second,
                "skipped": float(metrics.skipped[-1]),
            },
        )

    def close(self) -> None:
        self._log.close()


class ProgressBar(Hook):
    """Shows steps, losses and rows per second; only process 0 does.

    Where there is no terminal, as in the log of a scheduler, it is a line for each epoch.
    """

    def __init__(self, goals: tuple[str, ...], run: Run) -> None:
        self._goals, self._epochs = goals, run.config["train"]["epochs"]
        self._first_epoch = run.first_epoch
        self._unit = "epoch of lists" if run.first_step else "epoch"
        self._bar = tqdm(disable=True)
        self._compiled = False
        self._terminal = sys.stderr.isatty()
        self._told = ""

    def begin(self, progress: Progress, first: int, total: int) -> None:
        self._done, self._progress = first, progress
        self._bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            disable=not (processes.is_first() and self._terminal),
            desc=self._epoch() + (": compiling" if first < total else ""),
            bar_format=_BAR,
            mininterval=1.0,
            dynamic_ncols=True,
        )

    def trained(self, done: int, metrics: StepMetrics, rows_per_second: float) -> None:
        means = metrics.goal_losses.mean(axis=0)
        losses = (f"{goal} {mean:.4f}" for goal, mean in zip(self._goals, means, strict=True))
        self._told = " ".join(losses)
        if not self._compiled:
            # Most of the first call's time went into the compiler: it counts for no rate.
            self._compiled = True
            self._bar.initial = self._bar.n = done
            self._bar.unpause()
        else:
            self._bar.update(done - self._done)
            self._told += f", {rows_per_second:,.0f} rows/s"
        self._done = done
        self._bar.set_description(self._epoch(), refresh=False)
        self._bar.set_postfix_str(self._told)

    def epoch_ended(self, state: TrainState, progress: Progress) -> None:
        if processes.is_first() and not self._terminal:
            print(f"{self._epoch()}: {self._told}", file=sys.stderr, flush=True)
        self._bar.set_description(f"{self._epoch()}: validating")

    def close(self) -> None:
        self._bar.close()

    def _epoch(self) -> str:
        epoch = min(self._progress.epoch - self._first_epoch + 1, self._epochs)
        return f"{self._unit} {epoch}/{self._epochs}"


class Validation(Hook):
    """Scores each epoch, keeps the best state, stops a run that no longer gets better."""

    def __init__(
        self, validate: Validate, checkpoints: Checkpoints, log: MetricsLog, run: Run
    ) -> None:
        self._validate, self._checkpoints, self._log = validate, checkpoints, log
        self._run = run
        self._last_epoch = run.first_epoch + run.config["train"]["epochs"]
        self._patience = run.config["train"]["patience"]

    def epoch_ended(self, state: TrainState, progress: Progress) -> None:
        state = served(self._run, state)
        scores = self._validate(state)
        step, value = int(state.step), scores["value"]
        self._log.write(step, "validation", {**scores, "epoch": progress.epoch + 1})
        progress.epoch += 1
        if math.isnan(value) or progress.best_value is None or value > progress.best_value:
            progress.best_value = None if math.isnan(value) else value
            progress.best_step = step
            progress.stale = 0
            self._checkpoints.save_best(state.variables, step, progress)
        else:
            progress.stale += 1
        stopped = self._patience > 0 and progress.stale >= self._patience
        progress.finished = stopped or progress.epoch >= self._last_epoch


class Checkpointing(Hook):
    """Saves the whole state every so many steps, and at the end of an epoch."""

    def __init__(self, checkpoints: Checkpoints, every: int) -> None:
        self._checkpoints, self._every = checkpoints, every

    def due(self, before: int, done: int) -> bool:
        return done // self._every > before // self._every

    def save(self, state: TrainState, progress: Progress) -> None:
        self._checkpoints.save_latest(state, progress)

    def epoch_ended(self, state: TrainState, progress: Progress) -> None:
        self._checkpoints.save_latest(state, progress)

    def close(self) -> None:
        self._checkpoints.close()
