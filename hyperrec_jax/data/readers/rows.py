"""Batches for training and evaluation, as pure functions of a step.

The order of the training rows is computed, not stored: a batch depends on (split, batch size, seed,
step) alone. A run that is resumed, or that runs on another number of processes, sees the same
global batches, and its position in the data is its step.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from hyperrec_jax.data.columns import Batch
from hyperrec_jax.data.mixing import mix64, permute
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError

BLOCK_ROWS = 64
WINDOW_ROWS = 131_072


class Reader(Protocol):
    """Training batches by step, whether they come from the store or from a device's memory.

    Attributes:
      batch_size: Rows of a global batch.
      steps_per_epoch: Whole global batches an epoch.
    """

    batch_size: int
    steps_per_epoch: int

    def read(self, step: int, count: int) -> dict[str, Any]:
        """`count` batches from `step` on, `[count, batch, ...]`; a pure function of `step`."""


class TrainingReader:
    """Shuffled training batches: each row at most once per epoch, in another order every epoch.

    Block shuffle: an epoch visits blocks of 64 neighbouring rows in a random order, and the rows of
    every window of about 131,072 visited rows (some 2,048 blocks from all over the split) in a
    random order. Reads stay near each other on disk, and memory does not grow with the rows. Where
    the blocks begin moves from epoch to epoch.

    Args:
      split: The training rows.
      batch_size: Rows of a global batch.
      seed: Seed of the order.
      process_index: Which part of each global batch to read.
      process_count: Number of processes that share a global batch.

    Attributes:
      batch_size: Rows of a global batch.
      steps_per_epoch: Whole global batches an epoch; the rest of the rows is left out, other ones
        every epoch.

    Raises:
      UserError: The split has less than one batch, or the batch does not divide by the processes.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self._split = split
        self.batch_size = batch_size
        self._local = _local_slice(batch_size, process_index, process_count)
        self._seed_key = mix64(seed)
        self.steps_per_epoch = len(split) // batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{split.path}: {len(split)} rows are less than one batch of {batch_size}; "
                "use a smaller batch size"
            )

    def rows(self, step: int, count: int) -> np.ndarray:
        """Row numbers in the split of `count` batches from `step` on: int64 [count, local batch].

        A pure function of the constructor's arguments and `step`.
        """
        steps = np.arange(step, step + count)[:, None]
        epoch = steps // self.steps_per_epoch
        position = steps % self.steps_per_epoch * self.batch_size + self._local
        epoch = np.broadcast_to(epoch, position.shape)
        return self._shuffled(position, mix64(self._seed_key + epoch.astype(np.uint64)))

    def read(self, step: int, count: int) -> Batch:
        """`count` batches from `step` on, with the leading axes [count, local batch].

        A pure function of the constructor's arguments and `step`.
        """
        rows = self.rows(step, count)
        batch = self._split.gather(rows.reshape(-1))
        return {name: column.reshape(*rows.shape, -1) for name, column in batch.items()}

    def _shuffled(self, position: np.ndarray, epoch_key: np.ndarray) -> np.ndarray:
        """Row at each position of an epoch; a bijection of `range(len(split))`."""
        num_rows = len(self._split)
        # Windows of (nearly) equal size: a short last one would hardly be shuffled.
        num_windows = math.ceil(num_rows / WINDOW_ROWS)
        window = ((position + 1) * num_windows - 1) // num_rows
        start = window * num_rows // num_windows
        size = (window + 1) * num_rows // num_windows - start
        visited = start + permute(
            position - start, size, mix64(epoch_key + window.astype(np.uint64))
        )
        # Visited rows -> rows of the split: whole blocks are permuted, the few rows that do not
        # fill a block stay last, and all is rotated by another amount every epoch.
        num_blocks = num_rows // BLOCK_ROWS
        block, offset = np.divmod(visited, BLOCK_ROWS)
        whole = block < num_blocks
        if num_blocks:
            block = np.where(
                whole,
                permute(np.minimum(block, num_blocks - 1), num_blocks, mix64(~epoch_key)),
                block,
            )
        rotation = (epoch_key % np.uint64(num_rows)).astype(np.int64)
        return (block * BLOCK_ROWS + offset + rotation) % num_rows


class _Reads:
    """A schedule of reads as a random-access source for Grain."""

    def __init__(self, reader: Reader, schedule: Sequence[tuple[int, int]]):
        self._reader = reader
        self._schedule = schedule

    def __len__(self) -> int:
        return len(self._schedule)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._reader.read(*self._schedule[index])


def prefetch(
    reader: Reader, schedule: Sequence[tuple[int, int]], depth: int = 2
) -> Iterator[dict[str, Any]]:
    """Reads a schedule ahead of its use, in Grain's prefetch threads.

    Args:
      reader: Where the batches come from.
      schedule: The `(step, count)` of each read.
      depth: Reads held ready at most.

    Yields:
      `reader.read(step, count)` for each entry of the schedule, in order.
    """
    dataset = grain.MapDataset.source(_Reads(reader, schedule))
    yield from dataset.to_iter_dataset(grain.ReadOptions(depth, depth))


def evaluation_batches(
    split: Split, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """The rows of a split in order, each once, the last batch padded with zeros.

    Every process gets its own part of each global batch and the same number of batches.

    Args:
      split: The rows.
      batch_size: Rows of a global batch.
      process_index: Which part of each global batch to read.
      process_count: Number of processes that share a global batch.

    Yields:
      Batches of `batch_size / process_count` rows with `mask` f32 [batch]: 1 for rows of the
      split, 0 for padding.

    Raises:
      UserError: The batch does not divide by the processes.
    """
    local = _local_slice(batch_size, process_index, process_count)
    for start in range(0, len(split), batch_size):
        first = min(start + int(local[0]), len(split))
        rows = min(len(local), len(split) - first)
        batch = split.slice(first, first + rows)
        mask = np.zeros(len(local), np.float32)
        mask[:rows] = 1
        padding = ((0, len(local) - rows), (0, 0))
        if rows < len(local):
            batch = {name: np.pad(column, padding) for name, column in batch.items()}
        yield batch | {"mask": mask}


def _local_slice(batch_size: int, process_index: int, process_count: int) -> np.ndarray:
    """Positions in a global batch that belong to one process."""
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"a batch of {batch_size} rows does not divide evenly among {process_count} processes; "
            "choose a multiple"
        )
    size = batch_size // process_count
    return np.arange(process_index * size, (process_index + 1) * size)
