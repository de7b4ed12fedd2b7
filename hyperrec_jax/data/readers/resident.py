"""Training rows that live in the accelerator's memory, ids and labels as the store has them.

Only row numbers travel to the device at each step; the batches are gathered there, in the order of
`pipeline.TrainingReader`, so that a run does not depend on where its rows lie.
"""

import logging
import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hyperrec_jax.data.readers.rows import TrainingReader
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError

logger = logging.getLogger(__name__)

Resident = Literal["auto", "always", "never"]

MEMORY_SHARE = 0.4
"""Part of a device's memory that the rows may take; the rest is for the model."""

_CHUNK_ROWS = 1 << 18


class ResidentReader:
    """`TrainingReader`'s batches, gathered from a copy of the split on every device.

    Args:
      split: The training rows.
      batch_size: Rows of a global batch.
      seed: Seed of the order.
      mesh: Devices, from `training.sharding.make_mesh`; a batch is split over its `data` axis.
      numerical_dtype: In which the numericals are kept; with `bfloat16` in place of `float32`
        AliExpress takes half the memory, and a model that computes in it sees no difference.

    Attributes:
      batch_size: Rows of a global batch.
      steps_per_epoch: Whole global batches an epoch.

    Raises:
      UserError: the split has less than one batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        mesh: Mesh,
        numerical_dtype: str = "float32",
    ):
        self._order = TrainingReader(split, batch_size, seed)
        self.batch_size = batch_size
        self.steps_per_epoch = self._order.steps_per_epoch
        self._columns = _upload(split, NamedSharding(mesh, PartitionSpec()), numerical_dtype)

        def gather(columns: dict[str, jax.Array], rows: jax.Array) -> dict[str, jax.Array]:
            return {
                name: column.at[rows].get(mode="promise_in_bounds")
                for name, column in columns.items()
            }

        self._gather = jax.jit(
            gather, out_shardings=NamedSharding(mesh, PartitionSpec(None, "data"))
        )

    def read(self, step: int, count: int) -> dict[str, jax.Array]:
        """`count` batches from `step` on, `[count, batch, ...]`, placed on the devices.

        A pure function of the constructor's arguments and `step`.
        """
        rows = self._order.rows(step, count).astype(np.int32)
        return self._gather(self._columns, rows)


def is_resident(resident: Resident, split: Split, numerical_dtype: str) -> bool:
    """Whether the training rows go to the device.

    Args:
      resident: Whether the training rows live in the device's memory, where the same batches are
        gathered: `auto`, on an accelerator where they take at most 40% of it and there is one
        process, never on a CPU, whose memory holds the mapped store anyway; `always`; `never`.
      split: The training rows.
      numerical_dtype: In which the numericals would be kept.

    Raises:
      UserError: `resident` is none of the three, or `always` is not possible.
    """
    if resident not in ("auto", "always", "never"):
        raise UserError(f"data.resident={resident!r}: take 'auto', 'always' or 'never'")
    device = jax.local_devices()[0]
    if resident == "never" or (resident == "auto" and device.platform == "cpu"):
        return False
    needed = resident_bytes(split, numerical_dtype)
    room = MEMORY_SHARE * (device.memory_stats() or {}).get("bytes_limit", math.inf)
    if jax.process_count() > 1:
        obstacle = "several processes share each batch"
    elif needed > room:
        obstacle = (
            f"they take {needed / 2**30:,.1f} GiB, and of the memory of {device.device_kind} "
            f"{room / 2**30:,.1f} GiB are for them"
        )
    else:
        return True
    if resident == "always":
        raise UserError(f"data.resident='always': the training rows can't be there: {obstacle}")
    logger.info("the training rows stay in the store: %s", obstacle)
    return False


def resident_bytes(split: Split, numerical_dtype: str) -> int:
    """Device memory that the rows take."""
    columns = _converted(split.slice(0, 0), numerical_dtype)
    return len(split) * sum(c.shape[1] * c.dtype.itemsize for c in columns.values())


def _converted(columns: Mapping[str, np.ndarray], numerical_dtype: str) -> dict[str, np.ndarray]:
    dtype = jnp.dtype(numerical_dtype)
    return {**columns, "numerical": columns["numerical"].astype(dtype, copy=False)}


def _upload(split: Split, sharding: NamedSharding, numerical_dtype: str) -> dict[str, jax.Array]:
    """The columns of a split as arrays; in chunks, so that the host never holds them all."""
    columns = {
        name: jnp.zeros((len(split), column.shape[1]), column.dtype, device=sharding)
        for name, column in _converted(split.slice(0, 0), numerical_dtype).items()
    }

    def write(
        columns: dict[str, jax.Array], chunk: dict[str, jax.Array], start: jax.Array
    ) -> dict[str, jax.Array]:
        return {
            name: jax.lax.dynamic_update_slice(column, chunk[name], (start, jnp.zeros_like(start)))
            for name, column in columns.items()
        }

    write = jax.jit(write, donate_argnums=0)
    for start in range(0, len(split), _CHUNK_ROWS):
        chunk = _converted(
            split.slice(start, min(start + _CHUNK_ROWS, len(split))), numerical_dtype
        )
        placed = {
            name: jax.make_array_from_process_local_data(sharding, values)
            for name, values in chunk.items()
        }
        columns = write(columns, placed, np.int32(start))
    return columns
