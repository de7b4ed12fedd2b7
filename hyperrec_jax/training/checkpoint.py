"""Checkpoints by Orbax: the latest ones to go on from, the best one to use.

A checkpoint is saved beside its own checksum, computed on the devices that hold the state. One
whose bits are damaged is passed over for the one before it, and set aside once that is read. One of
another model is refused, and nothing is moved.
"""

import contextlib
import dataclasses
import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.options import MultiprocessingOptions

from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import processes
from hyperrec_jax.training.state import TrainState

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """What the loop knows beside the state; saved with it.

    Attributes:
      epoch: Whole epochs trained and evaluated.
      best_value: Best validation value so far (higher is better), None before the first.
      best_step: Its step.
      stale: Evaluations since then.
      finished: Whether the run has ended, by its length or by early stopping.
      data_fingerprint: Fingerprint of the store that the run reads.
      list_step: Step at which the second stage began, on whole lists; None before it.
      list_epoch: Epochs before that step.
    """

    epoch: int = 0
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    data_fingerprint: str = ""
    list_step: int | None = None
    list_epoch: int = 0


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Orbax warns of each option that reading alone implies; in a notebook all of it shows."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.setLevel(level)


@jax.jit
def _checksum(tree: Any) -> jax.Array:
    """A sum modulo 2**32 over all bits: a flipped bit changes it, the sharding does not."""
    total = jnp.zeros((), jnp.uint32)
    for index, leaf in enumerate(jax.tree.leaves(tree)):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            leaf = leaf.astype(jnp.float32)  # exact for the narrower types
            bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        else:
            bits = leaf.astype(jnp.uint32)
        # Odd factors, so that no bit is lost and swapped leaves do not cancel out.
        total += jnp.sum(bits, dtype=jnp.uint32) * jnp.uint32(2 * index + 1)
    return total


def _read(manager: ocp.CheckpointManager, step: int, template: Any) -> tuple[Any, Progress, int]:
    """The state of a checkpoint, its progress and its checksum, as they are in the files."""
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(template), progress=ocp.args.JsonRestore()
        ),
    )
    return restored["state"], *_parse_progress(restored["progress"])


def _progress_record(progress: Progress, checksum: int) -> dict[str, Any]:
    """What is saved beside a state: the progress, the state's checksum, and one over both."""
    values = dataclasses.asdict(progress) | {"checksum": checksum}
    return values | {"progress_checksum": _json_checksum(values)}


def _parse_progress(record: Any) -> tuple[Progress, int]:
    """The inverse of `_progress_record`; raises `ValueError` or `TypeError` where it is damaged."""
    values = dict(record)
    own = values.pop("progress_checksum", None)  # a run of release 0.1 has none
    if own is not None and own != _json_checksum(values):
        raise ValueError("the checksum of its progress differs")
    checksum = values.pop("checksum")
    return Progress(**values), checksum


def _json_checksum(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _barrier() -> Callable[..., None]:
    """Orbax's barrier of all processes, with a name of its own each time.

    Orbax gives the barrier that ends a save the same name at the next one. On a busy machine the
    client of a process may not have put the former one away by then, and refuses the second.
    """
    wait, counts = ocp.multihost.get_barrier_sync_fn(), Counter[str]()

    def barrier(*, key: str, timeout_ms: int) -> None:
        counts[key] += 1  # in the same order in all processes: one thread at a time saves here
        wait(key=f"{key}.{counts[key]}", timeout_ms=timeout_ms)

    return barrier


LATEST, BEST = "checkpoints", "best"
"""The folders of a workdir."""


def saved_steps(workdir: Path, name: str = LATEST) -> list[int]:
    """Steps of the checkpoints in a folder of a workdir, the newest first."""
    try:
        found = [path.name for path in (workdir / name).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((int(step) for step in found if step.isdigit()), reverse=True)


def check_checkpoints(workdir: Path, template: TrainState) -> Progress:
    """Checks that a run can go on from the checkpoints of its folder; reads no arrays.

    Needs no other process, and writes nothing.

    Args:
      workdir: The run's folder.
      template: Shapes of the training state.

    Returns:
      The progress at the newest checkpoint that tells it; a new one where there is none.

    Raises:
      UserError: a checkpoint is of another model; only a selected model is there, which a run
        from the start would replace; or the selected model is gone.
    """
    wanted = {LATEST: template, BEST: template.variables}
    steps = {name: saved_steps(workdir, name) for name in wanted}
    for name, expected in wanted.items():
        for step in steps[name]:
            _refuse_another_model(workdir / name / str(step), expected)
    if steps[BEST] and not steps[LATEST]:
        raise UserError(
            f"--workdir {workdir}: holds a selected model and no checkpoint to go on from; take "
            "another folder, so that the model is kept"
        )
    for step in steps[LATEST]:
        folder = workdir / LATEST / str(step) / "progress"
        with contextlib.suppress(Exception):  # damaged: found out when the checkpoint is read
            record = ocp.JsonCheckpointHandler().restore(epath.Path(folder))
            progress = _parse_progress(record)[0]
            break
    else:
        return Progress()
    if progress.best_step and not steps[BEST]:
        raise UserError(
            f"--workdir {workdir}: holds no selected model, though step {progress.best_step} was "
            f"selected; put its folder `{BEST}` back, or train in another folder"
        )
    return progress


def _refuse_another_model(folder: Path, template: Any) -> None:
    """Compares names, shapes and types of the arrays in a checkpoint with the model's."""
    try:
        metadata = ocp.StandardCheckpointHandler().metadata(epath.Path(folder.resolve() / "state"))
        found = _shapes(metadata.tree)
    except Exception:  # whatever damaged metadata makes the readers raise
        return
    expected = _shapes(template)
    keys = sorted(found.keys() | expected.keys())
    unlike = [key for key in keys if found.get(key) != expected.get(key)]
    if unlike:
        here, there = (shapes.get(unlike[0], "missing") for shapes in (expected, found))
        raise UserError(
            f"{folder}: a checkpoint of another model: {unlike[0]} is {there} in it and {here} in "
            f"the model ({len(unlike)} arrays differ); nothing was changed; take the folder that "
            "belongs to this model"
        )


def _shapes(tree: Any) -> dict[str, tuple[Any, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class Checkpoints:
    """The checkpoints of a workdir: `checkpoints/` (the latest two) and `best/` (one)."""

    def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
        """Opens or creates the folders.

        Args:
          workdir: The run's folder.
          read_only: Never write, not even to set a damaged checkpoint aside.
        """
        self._read_only = read_only

        def manager(name: str, keep: int, background: bool) -> ocp.CheckpointManager:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=background,
                read_only=read_only,
                # Both folders have barriers of their own: one may still save in the background.
                multiprocessing_options=MultiprocessingOptions(barrier_sync_key_prefix=name),
                async_options=ocp.AsyncOptions(barrier_sync_fn=_barrier()),
            )
            return ocp.CheckpointManager((workdir / name).resolve(), options=options)

        with _only_errors():
            self._latest = manager(LATEST, 2, True)
            self._best = manager(BEST, 1, False)

    def save_latest(self, state: TrainState, progress: Progress) -> None:
        """Saves the whole state; returns before the files are complete."""
        self._save(self._latest, state, int(state.step), progress)

    def save_best(self, variables: Any, step: int, progress: Progress) -> None:
        """Saves the selected parameters; the former ones are deleted once these are complete."""
        self._save(self._best, variables, step, progress)

    def restore_latest(self, template: TrainState) -> tuple[TrainState, Progress] | None:
        """The newest state that is whole, or None where there is none at all.

        Args:
          template: A state of `jax.ShapeDtypeStruct` with shardings; they may differ from those
            of the run that saved.

        Raises:
          UserError: there are checkpoints, and none can be read, or one is of another model;
            nothing is moved then.
        """
        return self._restore(self._latest, template)

    def restore_best(self, template: Any) -> tuple[Any, Progress] | None:
        """As `restore_latest`, for the selected `{"params": ..., "batch_stats": ...}`."""
        return self._restore(self._best, template)

    def close(self) -> None:
        """Waits for saves under way."""
        self._latest.close()
        self._best.close()

    @staticmethod
    def _save(manager: ocp.CheckpointManager, state: Any, step: int, progress: Progress) -> None:
        if step in manager.all_steps():
            return  # saved before a kill; a step is a function of its number, so it is the same
        checksum = int(_checksum(state))
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(_progress_record(progress, checksum)),
            ),
        )

    def _restore(
        self, manager: ocp.CheckpointManager, template: Any
    ) -> tuple[Any, Progress] | None:
        manager.wait_until_finished()
        steps = sorted(manager.all_steps(), reverse=True)
        damaged: list[int] = []
        for step in steps:
            _refuse_another_model(Path(manager.directory) / str(step), template)
            found, reason = None, "another process could not read its part"
            try:
                found = _read(manager, step, template)
            except Exception as error:  # whatever a damaged file makes the readers raise
                line = (str(error).strip().splitlines() or [""])[0][:200]
                reason = f"{type(error).__name__}: {line}"
            # Each process reads its part of the arrays; one that fails decides for all.
            if processes.all_agree(found is not None):
                assert found is not None
                state, progress, checksum = found
                if int(_checksum(state)) == checksum:
                    if not self._read_only:
                        for other in damaged:
                            self._set_aside(manager, other)
                    return state, progress
                reason = "the checksum differs"
            damaged.append(step)
            logger.warning(
                "checkpoint %s/%d is damaged (%s); trying the one before it",
                manager.directory,
                step,
                reason,
            )
        if steps:
            raise UserError(
                f"{manager.directory}: none of the checkpoints {steps} can be read; nothing was "
                "changed; take another workdir to start anew"
            )
        return None

    @staticmethod
    def _set_aside(manager: ocp.CheckpointManager, step: int) -> None:
        """Renames a damaged checkpoint, so that its step can be saved again; deletes nothing."""
        if processes.is_first():
            source = Path(manager.directory) / str(step)
            target = Path(manager.directory).parent / "damaged" / f"{source.parent.name}_{step}"
            target.parent.mkdir(exist_ok=True)
            number = 0
            while (numbered := target.with_name(f"{target.name}_{number}")).exists():
                number += 1
            source.rename(numbered)
        multihost_utils.sync_global_devices("damaged checkpoint set aside")
        manager.reload()
