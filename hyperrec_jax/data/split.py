"""The rows of one split of a store, mapped into memory: slices and gathers without decoding."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.columns import (
    PREPARE_AGAIN,
    ROWS_PER_RECORD_BATCH,
    Batch,
    Column,
    arrow_schema,
    checksum_of,
)
from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Statistics

_BATCH_COLUMNS = ("categorical", "numerical", "labels", "weight", "multivalued", "vectors")


class Split:
    """The rows of one split, mapped into memory.

    Attributes:
      path: The Arrow IPC file.
      positives: Number of positive labels of each goal.
      both_positive: Number of rows in which two labels are positive, `[goal][goal]`, symmetric.
      statistics: Statistics of the labels of each goal.
      unseen: Number of rows of each field of ids that have a value that no training row has (id 0).
      times: Times of the oldest and the newest row, in microseconds since 1970; None where the data
        was not split by time.
      cut: Number of rows of each multi-valued field that had more values than are kept.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[Column],
        rows: int,
        positives: Sequence[int],
        both_positive: Sequence[Sequence[int]],
        statistics: Sequence[Mapping[str, Any]],
        unseen: Sequence[int],
        checksums: Sequence[int],
        times: tuple[int, int] | None = None,
        cut: Sequence[int] = (),
    ):
        self.path = path
        self.positives = tuple(positives)
        self.both_positive = tuple(map(tuple, both_positive))
        self.statistics = tuple(map(Statistics.from_json, statistics))
        self.unseen = tuple(unseen)
        self.times = None if times is None else (int(times[0]), int(times[1]))
        self.cut = tuple(cut)
        self._rows = rows
        self._columns = {column.name: column for column in columns}
        self._checksums = np.asarray(checksums, np.uint32)
        self._verified = np.zeros(len(checksums), bool)
        self._full, self._tail_rows = divmod(rows, ROWS_PER_RECORD_BATCH)
        if len(checksums) != math.ceil(rows / ROWS_PER_RECORD_BATCH):
            raise self._damaged("the record batches do not add up to the rows")
        try:
            self._map()
        except FileNotFoundError as error:
            raise self._damaged("the file is missing") from error
        except (pa.ArrowException, ValueError, TypeError, OSError) as error:
            raise self._damaged("it is not the Arrow file that was written") from error

    def _map(self) -> None:
        """Makes the strided views; `np.ndarray` refuses those that leave the file."""
        mapped = pa.memory_map(str(self.path)).read_buffer()
        self._address = mapped.address
        reader = pa.ipc.open_file(pa.BufferReader(mapped))
        stored = [column for column in self._columns.values() if column.width]
        if reader.num_record_batches != len(self._checksums) or (
            reader.schema != arrow_schema(stored)
        ):
            raise ValueError("other columns or record batches than the schema says")

        def offsets(record_batch: int) -> np.ndarray:
            """Byte offset in the file of each column of a record batch."""
            columns = reader.get_batch(record_batch).columns
            return np.array([c.values.buffers()[1].address - mapped.address for c in columns])

        self._body: dict[str, np.ndarray] = {}
        self._tail: dict[str, np.ndarray] = {}
        first = offsets(0) if self._full else None
        stride = offsets(1) - first if self._full > 1 else np.zeros(len(stored), int)
        if self._full > 1 and np.any(offsets(self._full - 1) != first + stride * (self._full - 1)):
            raise ValueError("record batches at uneven distances")
        tail = offsets(self._full) if self._tail_rows else None
        for i, column in enumerate(stored):
            item, row = column.dtype.itemsize, column.dtype.itemsize * column.width
            if first is not None:
                self._body[column.name] = np.ndarray(
                    (self._full, ROWS_PER_RECORD_BATCH, column.width),
                    column.dtype,
                    buffer=mapped,
                    offset=int(first[i]),
                    strides=(int(stride[i]), row, item),
                )
            if tail is not None:
                self._tail[column.name] = np.ndarray(
                    (self._tail_rows, column.width), column.dtype, mapped, int(tail[i])
                )

    def __len__(self) -> int:
        return self._rows

    def slice(self, start: int, stop: int) -> Batch:
        """Rows `[start, stop)` in order: views of the mapped file where they lie in one record
        batch, as aligned batches of a power of two do, else a copy."""
        return {name: self._slice(name, start, stop) for name in self._batch_columns()}

    def gather(self, rows: np.ndarray) -> Batch:
        """The given rows (int [batch], each in `[0, len)`), in the given order."""
        rows = np.asarray(rows)
        return {name: self._gather(name, rows) for name in self._batch_columns()}

    def groups(self, start: int, stop: int) -> np.ndarray:
        """Group of the rows `[start, stop)`: int64 [rows].

        Raises:
          UserError: The data has no group column.
        """
        self._require("group", "group column (such as a search id)")
        return self._slice("group", start, stop)[:, 0]

    def true_probabilities(self, start: int, stop: int) -> np.ndarray:
        """True probability of each label of the rows `[start, stop)`: f32 [rows, task].

        Raises:
          UserError: The truth is known of synthetic data only.
        """
        self._require("true_probability", "true probabilities (only synthetic data has)")
        return self._slice("true_probability", start, stop)

    def verify(self) -> None:
        """Reads the whole file against its checksums; each record batch is checked when first read
        anyway.

        Raises:
          UserError: A record batch is damaged.
        """
        self._verify(np.arange(len(self._checksums)))

    def _batch_columns(self) -> list[str]:
        return [name for name in _BATCH_COLUMNS if name in self._columns]

    def _require(self, column: str, what: str) -> None:
        if column not in self._columns:
            raise UserError(f"{self.path}: this data set has no {what}")

    def _slice(self, name: str, start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= self._rows:
            raise IndexError(f"rows [{start}, {stop}) of a split of {self._rows}")
        record_batch, offset = divmod(start, ROWS_PER_RECORD_BATCH)
        rows = stop - start
        if rows == 0 or self._columns[name].width == 0 or offset + rows > ROWS_PER_RECORD_BATCH:
            return self._gather(name, np.arange(start, stop))
        self._verify(np.array([record_batch]))
        return self._record_batch(name, record_batch)[offset : offset + rows]

    def _gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        column = self._columns[name]
        if rows.size == 0 or column.width == 0:
            return column.empty(rows.size)
        if rows.min() < 0 or rows.max() >= self._rows:
            raise IndexError(f"a row outside a split of {self._rows}")
        record_batch, offset = np.divmod(rows, ROWS_PER_RECORD_BATCH)
        self._verify(record_batch)
        in_tail = record_batch == self._full
        if not in_tail.any():
            return self._body[name][record_batch, offset]
        result = column.empty(rows.size)
        result[in_tail] = self._tail[name][offset[in_tail]]
        if not in_tail.all():
            result[~in_tail] = self._body[name][record_batch[~in_tail], offset[~in_tail]]
        return result

    def _record_batch(self, name: str, record_batch: int) -> np.ndarray:
        if record_batch == self._full:
            return self._tail[name]
        return self._body[name][record_batch]

    def _verify(self, record_batches: np.ndarray) -> None:
        pending = ~self._verified[record_batches]
        if not pending.any():
            return
        stored = [name for name, column in self._columns.items() if column.width]
        for k in np.unique(record_batches[pending]):
            arrays = [self._record_batch(name, int(k)) for name in stored]
            if checksum_of(arrays) != self._checksums[k]:
                start = int(k) * ROWS_PER_RECORD_BATCH
                offset = arrays[0].__array_interface__["data"][0] - self._address
                raise self._damaged(
                    f"record batch {k} (rows {start} to {start + len(arrays[0]) - 1}, at byte "
                    f"{offset}) fails its checksum"
                )
            self._verified[k] = True

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: damaged, {what}; {PREPARE_AGAIN}")
