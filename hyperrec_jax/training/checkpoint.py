"""Checkpoints by Orbax: the latest ones to go on from, the best one to use.

A checkpoint is saved beside its own checksum, computed on the devices that hold the state. One
that can't be read, or reads as something else, is passed over for the one before it.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

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
      data_fingerprint: Of the store that the run reads.
    """

    epoch: int = 0
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    data_fingerprint: str = ""


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
    values = dict(restored["progress"])
    checksum = values.pop("checksum")
    return restored["state"], Progress(**values), checksum


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
                max_to_keep=keep, enable_async_checkpointing=background, read_only=read_only
            )
            return ocp.CheckpointManager((workdir / name).resolve(), options=options)

        with _only_errors():
            self._latest = manager("checkpoints", 2, True)
            self._best = manager("best", 1, False)

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
          UserError: there are checkpoints, and none can be read.
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
                progress=ocp.args.JsonSave(dataclasses.asdict(progress) | {"checksum": checksum}),
            ),
        )

    def _restore(
        self, manager: ocp.CheckpointManager, template: Any
    ) -> tuple[Any, Progress] | None:
        manager.wait_until_finished()
        steps = sorted(manager.all_steps(), reverse=True)
        for step in steps:
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
                    return state, progress
                reason = "the checksum differs"
            logger.warning(
                "checkpoint %s/%d is damaged (%s); trying the one before it",
                manager.directory,
                step,
                reason,
            )
            if not self._read_only:
                self._set_aside(manager, step)
        if steps:
            raise UserError(
                f"{manager.directory}: none of the checkpoints {steps} can be read; "
                "take another workdir to start anew"
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
