"""Trains a config in a workdir, or goes on where a former call was stopped."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.config.run import Config, Run
from hyperrec_jax.data.files import explain_write_errors
from hyperrec_jax.data.readers.resident import ResidentReader, is_resident
from hyperrec_jax.data.readers.rows import Reader, TrainingReader
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.front import Front, evaluate_front
from hyperrec_jax.evaluation.grid import grid_for
from hyperrec_jax.evaluation.outputs import ScoreFn, example_call, make_score_fn, score_split
from hyperrec_jax.parallel import processes
from hyperrec_jax.parallel.mesh import batch_part
from hyperrec_jax.training import list_stage
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.ahead import CompileAhead, CompiledAhead
from hyperrec_jax.training.checkpoint import Checkpoints, Progress, saved_steps
from hyperrec_jax.training.fit_on_validation import keep_fitted
from hyperrec_jax.training.hooks import (
    Checkpointing,
    Hook,
    Logging,
    ProgressBar,
    Validate,
    Validation,
)
from hyperrec_jax.training.list_loss import list_loss
from hyperrec_jax.training.log import MetricsLog
from hyperrec_jax.training.loop import run_loop
from hyperrec_jax.training.pretrained import Tables, begin_with, pretrained_tables
from hyperrec_jax.training.state import TrainState, first_state, state_template
from hyperrec_jax.training.trackers.base import open_trackers, require_trackers
from hyperrec_jax.training.warm_start import WarmStart, begin_at, warm_start

logger = logging.getLogger(__name__)


def train(config: Config, workdir: Path, store: Store | None = None) -> Progress:
    """Trains a config in a workdir, or goes on where a former call was stopped.

    Data with lists may have a second stage, on whole lists; see `training.list_stage`.

    Args:
      config: A nested dictionary with the sections of `config/defaults.py`.
      workdir: The run's folder.
      store: An open store, in place of the one that `data.store` names.

    Raises:
      UserError: an option is bad, or the workdir holds another run; nothing was written then.
      TrainingError: a loss is not finite.
      Preempted: SIGTERM came; the state is saved.
    """
    store = store or Store.open(Path(config["data"]["store"]))
    _require_rows(store)
    run = resolve(config, store.schema, store.split("train"))
    require_trackers(run.config["train"]["trackers"])
    reader = open_reader(run, store.split("train"))
    processes.check_same({"config": repr(run.config), "store": store.fingerprint})
    origin, begun = run.config["train"]["init_from"], saved_steps(workdir)
    if run.config["train"]["init_optimizer"] and not origin:
        raise UserError(
            "train.init_optimizer: there is no other run to take the optimizer's state from; name "
            "its folder by --init-from, or leave it out"
        )
    tables = {} if begun else pretrained_tables(run, store)
    warm = warm_start(run, store, Path(origin), tables) if origin and not begun else None
    with (
        workdirs.open_workdir(workdir, run.config, store, state_template(run)),
        explain_write_errors(workdir, "the last checkpoint is kept"),
    ):
        score = CompiledAhead(make_score_fn(run.model))  # one program for all validations
        progress = _train_rows(run, reader, workdir, store, score, warm, tables)
        if run.lists is not None and run.lists.epochs:
            progress = _train_lists(run, workdir, store, score)
        calibrate = run.config["train"]["calibrate"]
        keep_fitted(workdir, store, progress.best_step, calibrate, score)
        return progress


def _train_rows(
    run: Run,
    reader: Reader,
    workdir: Path,
    store: Store,
    score: CompiledAhead,
    warm: WarmStart | None,
    tables: Tables,
) -> Progress:
    """The first stage, or what is left of it."""
    checkpoints = Checkpoints(workdir)
    state, progress = _resumed(run, checkpoints, store, warm, tables)
    if progress.finished or progress.list_step is not None:
        checkpoints.close()
        return progress
    hooks = _hooks(run, workdir, store, score, checkpoints, int(state.step))
    return run_loop(run, reader, state, progress, hooks)


def _train_lists(run: Run, workdir: Path, store: Store, score: CompiledAhead) -> Progress:
    """The second stage, or what is left of it."""
    assert run.lists is not None
    checkpoints = Checkpoints(workdir)
    state, progress = _resumed(run, checkpoints, store)
    if progress.list_step is None:
        state = list_stage.begin(run, state, progress, checkpoints)
    stage = list_stage.stage_run(run, progress)
    progress.finished = progress.epoch >= progress.list_epoch + run.lists.epochs
    if progress.finished:
        checkpoints.close()
        return progress
    hooks = _hooks(stage, workdir, store, score, checkpoints, int(state.step))
    return run_loop(stage, run.lists.reader, state, progress, hooks, list_loss)


def _hooks(
    run: Run,
    workdir: Path,
    store: Store,
    score: CompiledAhead,
    checkpoints: Checkpoints,
    step: int,
) -> list[Hook]:
    """What happens beside the steps of a stage that goes on from a step."""
    shown = run.config["train"]["trackers"] if processes.is_first() else ()
    log = MetricsLog(workdir, step, open_trackers(shown, workdir, run.config, step))
    rows = store.split("validation")

    def arguments() -> tuple[Any, ...]:
        batch, preferences = example_call(
            rows, _validation_grid(run), run.mesh, run.config["train"]["batch_size"]
        )
        return state_template(run).variables, batch, preferences

    return [
        CompileAhead(score, arguments),
        Logging(log, store.schema.tasks),
        ProgressBar(store.schema.tasks, run),
        Validation(make_validate(run, rows, score), checkpoints, log, run),
        Checkpointing(checkpoints, run.config["train"]["checkpoint_every"]),
    ]


def open_reader(run: Run, split: Split) -> Reader:
    """Batches by step of the training rows, from the store or from the devices' memory.

    Raises:
      UserError: the split has less than one batch.
    """
    seed = run.config["seed"]
    numerical_dtype = "bfloat16" if run.model.compute_dtype == "bfloat16" else "float32"
    if is_resident(run.config["data"]["resident"], split, numerical_dtype):
        return ResidentReader(split, run.batch_size, seed, run.mesh, numerical_dtype)
    return TrainingReader(split, run.batch_size, seed, *batch_part(run.mesh, run.batch_size))


def _require_rows(store: Store) -> None:
    """Refuses a store without rows to train on, or to select the model by."""
    for name in ("train", "validation"):
        if not len(store.split(name)):
            raise UserError(
                f"store {store.path}: its {name} split has no rows; prepare the data with some, "
                "for validation by --validation-fraction 0.1"
            )


def _resumed(
    run: Run,
    checkpoints: Checkpoints,
    store: Store,
    warm: WarmStart | None = None,
    tables: Tables | None = None,
) -> tuple[TrainState, Progress]:
    """The latest state of a workdir and its progress, or the first of both."""
    restored = checkpoints.restore_latest(state_template(run))
    if restored is None:
        state = first_state(run)
        state = begin_with(run, state, tables or {}) if warm is None else begin_at(state, warm)
        return state, Progress(data_fingerprint=store.fingerprint)
    state, progress = restored
    logger.info("going on from step %d", int(state.step))
    patience = run.config["train"]["patience"]
    if progress.list_step is not None:
        return state, progress
    if progress.stale < patience or patience == 0:
        progress.finished = progress.epoch >= run.config["train"]["epochs"]
    return state, progress


def _validation_grid(run: Run) -> np.ndarray:
    """Preferences `[preference, goal]`."""
    return grid_for(run.model.conditioned, len(run.schema.tasks), run.config["train"]["grid"])


def make_validate(run: Run, rows: Split, score: ScoreFn) -> Validate:
    """What scores a state on the validation rows, over the validation grid of preferences.

    Args:
      run: The run.
      rows: The validation rows.
      score: From `make_score_fn`.
    """
    settings, tasks = run.config["train"], run.schema.tasks
    preferences = _validation_grid(run)

    def validate(state: TrainState) -> dict[str, float]:
        scores = score_split(
            score,
            state.variables,
            rows,
            preferences,
            run.mesh,
            batch_size=settings["batch_size"],
        )
        front = evaluate_front(scores, "validation", tasks, preferences, goals=run.goals)
        record = _record(front)
        if run.list_scales is not None:
            record |= list_stage.list_record(run, scores, rows)
        return {"value": run.selection.of(record), **record}

    return validate


def _record(front: Front) -> dict[str, float]:
    """The front as scalars."""
    if front.undefined_tasks:
        logger.warning(
            "the validation split holds no label of %s, or one value only: their main metric is "
            "undefined and stays out of the hypervolume",
            ", ".join(front.undefined_tasks),
        )
    record = {"hypervolume": front.hypervolume, "loss_hypervolume": front.loss_hypervolume}
    record |= front.best()
    return record | {"non_dominated_fraction": float(front.non_dominated.mean())}
