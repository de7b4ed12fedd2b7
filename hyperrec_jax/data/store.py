"""The columnar store: one Arrow IPC file a split, memory-mapped and read without decoding.

A store is a folder:

    schema.json        version, schema; per split rows, statistics of the labels, the number of ids
                       that training never saw, a checksum per record batch
    vocabulary.arrow   per categorical field the values that have the ids 1, 2, ...
    train.arrow        record batches of 16,384 rows; columns are fixed-size lists
    validation.arrow
    test.arrow

Record batches of one size lie at one distance from each other in the file, so that a whole column
is a strided NumPy view `[record batch, row, width]` of the mapped file: a batch is a slice of it
(no copy) or one gather. Each record batch is checked against its checksum when it is first read.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.files import (
    explain_write_errors,
    file_checksum,
    replace_folder,
    written_whole,
)
from hyperrec_jax.data.labels import LabelStatistics, fitted
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Statistics

VERSION = 3
SPLITS = ("train", "validation", "test")
ROWS_PER_RECORD_BATCH = 16_384

Batch = dict[str, np.ndarray]
"""`categorical` int [batch, field], `numerical` f32 [batch, number], `labels` [batch, goal], u8 or,
with NaN for a missing one, f32; `weight` f32 [batch, 1] where rows have weights."""

_BATCH_COLUMNS = ("categorical", "numerical", "labels", "weight")
_PREPARE_AGAIN = "prepare the data again with `hyperrec prepare`"


@dataclasses.dataclass(frozen=True)
class _Column:
    name: str
    dtype: np.dtype
    width: int

    def empty(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.width), self.dtype)


def _id_dtype(sizes: Sequence[int]) -> np.dtype:
    largest = max(sizes, default=1) - 1
    return np.dtype(next(t for t in (np.uint8, np.uint16, np.int32) if largest <= np.iinfo(t).max))


def _columns(schema: Schema) -> tuple[_Column, ...]:
    columns = [
        _Column("categorical", _id_dtype(schema.field_sizes), len(schema.categorical)),
        _Column("numerical", np.dtype(np.float32), schema.num_numerical),
        _Column("labels", np.dtype(schema.label_dtype), schema.num_tasks),
    ]
    if schema.weight is not None:
        columns.append(_Column("weight", np.dtype(np.float32), 1))
    if schema.group is not None:
        columns.append(_Column("group", np.dtype(np.int64), 1))
    if schema.best_auc:
        columns.append(_Column("true_probability", np.dtype(np.float32), schema.num_tasks))
    return tuple(columns)


def _arrow_schema(columns: Sequence[_Column]) -> pa.Schema:
    # Arrow knows no lists of width 0: such a column is left out and read back as empty.
    return pa.schema(
        [
            pa.field(c.name, pa.list_(pa.from_numpy_dtype(c.dtype), c.width), nullable=False)
            for c in columns
            if c.width
        ]
    )


def _checksum(arrays: Sequence[np.ndarray]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return checksum


def _fingerprint(contents: Mapping[str, Any]) -> str:
    """SHA-256 of all that defines the contents: schema, vocabulary, rows and checksums."""
    text = json.dumps(
        {key: contents[key] for key in ("version", "schema", "vocabulary", "splits")},
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


class _SplitWriter:
    """Cuts appended rows into record batches of one size."""

    def __init__(self, file: BinaryIO, columns: Sequence[_Column]):
        self._columns = [column for column in columns if column.width]
        self._buffers = {c.name: c.empty(ROWS_PER_RECORD_BATCH) for c in self._columns}
        self._filled = 0
        self._arrow_schema = _arrow_schema(columns)
        self._writer = pa.ipc.new_file(file, self._arrow_schema)
        self.rows = 0
        self.labels = LabelStatistics(self._buffers["labels"].shape[1])
        self.unseen = np.zeros(next(c.width for c in columns if c.name == "categorical"), np.int64)
        self.checksums: list[int] = []

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        rows = len(columns["labels"])
        start = 0
        while start < rows:
            taken = min(ROWS_PER_RECORD_BATCH - self._filled, rows - start)
            target = slice(self._filled, self._filled + taken)
            for name, buffer in self._buffers.items():
                values = columns[name][start : start + taken]
                buffer[target] = values.reshape(taken, buffer.shape[1])
            self._filled += taken
            start += taken
            if self._filled == ROWS_PER_RECORD_BATCH:
                self._flush()

    def _flush(self) -> None:
        arrays = [self._buffers[c.name][: self._filled] for c in self._columns]
        lists = [
            pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), type=field.type)
            for array, field in zip(arrays, self._arrow_schema, strict=True)
        ]
        self._writer.write_batch(pa.record_batch(lists, schema=self._arrow_schema))
        self.checksums.append(_checksum(arrays))
        weight = self._buffers.get("weight")
        self.labels.add(
            self._buffers["labels"][: self._filled],
            None if weight is None else weight[: self._filled, 0],
        )
        if "categorical" in self._buffers:
            self.unseen += (self._buffers["categorical"][: self._filled] == 0).sum(0)
        self.rows += self._filled
        self._filled = 0

    def close(self) -> None:
        if self._filled:
            self._flush()
        self._writer.close()


class StoreWriter:
    """Writes a store under a temporary name and renames it once complete.

    Used as a context manager: leaving it normally publishes the store in the place of what was
    there, leaving it by an exception removes all that was written.

    Args:
      path: Folder of the finished store.
      schema: The columns; `true_probability` is written where `schema.best_auc` is not empty.
      vocabulary: Per categorical field the values with the ids 1, 2, ...
      provenance: What the store was made from, kept beside the contents (not in the fingerprint).

    Raises:
      UserError: `path` holds something else than a store, or cannot be written.
    """

    def __init__(
        self, path: Path, schema: Schema, vocabulary: Sequence[pa.Array], provenance: str = ""
    ):
        refuse_foreign_folder(path)
        self._path = path
        self._schema = schema
        self._provenance = provenance
        self._temporary = path.with_name(path.name + ".writing")
        with explain_write_errors(path):
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True)
            write_vocabulary(self._temporary / "vocabulary.arrow", schema, vocabulary)
            columns = _columns(schema)
            self._files = contextlib.ExitStack()
            self._splits = {}
            for split in SPLITS:
                file = open(self._temporary / f"{split}.arrow", "wb")  # noqa: SIM115
                self._splits[split] = _SplitWriter(self._files.enter_context(file), columns)

    def append(self, split: str, columns: Mapping[str, np.ndarray]) -> None:
        """Adds rows to a split; `columns` are the arrays of a `Batch`, `group` int64 [rows] and
        `true_probability` f32 [rows, goal] where the schema has them."""
        with explain_write_errors(self._path):
            self._splits[split].append(columns)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exception is None:
                with explain_write_errors(self._path):
                    self._publish()
        finally:
            # A full disk may refuse even what closing the files still had to write.
            with contextlib.suppress(OSError):
                self._files.close()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _publish(self) -> None:
        for writer in self._splits.values():
            writer.close()
        self._files.close()
        schema = fitted(self._schema, self._splits["train"].labels.of_goals())
        contents: dict[str, Any] = {
            "version": VERSION,
            "provenance": self._provenance,
            "schema": schema.to_dict(),
            "vocabulary": file_checksum(self._temporary / "vocabulary.arrow"),
            "splits": {
                split: {
                    "rows": writer.rows,
                    "positives": writer.labels.positives.tolist(),
                    "both_positive": writer.labels.both_positive.tolist(),
                    "statistics": [s.to_json() for s in writer.labels.of_goals()],
                    "unseen": writer.unseen.tolist(),
                    "checksums": writer.checksums,
                }
                for split, writer in self._splits.items()
            },
        }
        contents["fingerprint"] = _fingerprint(contents)
        with written_whole(self._temporary / "schema.json") as file:
            file.write(json.dumps(contents, indent=1).encode())
        replace_folder(self._temporary, self._path)


class Split:
    """The rows of one split, mapped into memory.

    Attributes:
      path: The Arrow IPC file.
      positives: Number of positive labels of each goal.
      both_positive: Number of rows in which two labels are positive, `[goal][goal]`, symmetric.
      statistics: Statistics of the labels of each goal.
      unseen: Number of rows of each categorical field whose value no training row has (id 0).
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[_Column],
        rows: int,
        positives: Sequence[int],
        both_positive: Sequence[Sequence[int]],
        statistics: Sequence[Mapping[str, Any]],
        unseen: Sequence[int],
        checksums: Sequence[int],
    ):
        self.path = path
        self.positives = tuple(positives)
        self.both_positive = tuple(map(tuple, both_positive))
        self.statistics = tuple(map(Statistics.from_json, statistics))
        self.unseen = tuple(unseen)
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
            reader.schema != _arrow_schema(stored)
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
            if _checksum(arrays) != self._checksums[k]:
                start = int(k) * ROWS_PER_RECORD_BATCH
                offset = arrays[0].__array_interface__["data"][0] - self._address
                raise self._damaged(
                    f"record batch {k} (rows {start} to {start + len(arrays[0]) - 1}, at byte "
                    f"{offset}) fails its checksum"
                )
            self._verified[k] = True

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: damaged, {what}; {_PREPARE_AGAIN}")


class Store:
    """A prepared data set, opened by `Store.open`.

    Attributes:
      path: The folder.
      schema: Fields, tasks, group.
      fingerprint: Changes with any change of the contents, and only then.
      provenance: What the store was made from.
    """

    def __init__(self, path: Path, contents: Mapping[str, Any]):
        self.path = path
        self.schema = Schema.from_dict(contents["schema"])
        self.fingerprint: str = contents["fingerprint"]
        self.provenance: str = contents["provenance"]
        self._vocabulary_checksum: int = contents["vocabulary"]
        self._vocabulary: pa.RecordBatch | None = None
        columns = _columns(self.schema)
        self._splits = {
            name: Split(path / f"{name}.arrow", columns, **entry)
            for name, entry in contents["splits"].items()
        }

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        """Opens a store without reading its rows.

        Raises:
          UserError: There is no store, it is of another version, or it is damaged.
        """
        path = Path(path)
        schema_path = path / "schema.json"
        try:
            contents = json.loads(schema_path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{path}: no prepared data here; {_PREPARE_AGAIN}") from error
        except (ValueError, OSError, RecursionError) as error:
            raise UserError(f"{schema_path}: damaged, unreadable; {_PREPARE_AGAIN}") from error
        version = contents.get("version") if isinstance(contents, dict) else None
        if version != VERSION:
            raise UserError(
                f"{schema_path}: a store of version {version!r}, and this program reads version "
                f"{VERSION}; {_PREPARE_AGAIN}"
            )
        try:
            if contents["fingerprint"] != _fingerprint(contents):
                raise ValueError("fingerprint")
            return cls(path, contents)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{schema_path}: damaged, it was changed after it was written; {_PREPARE_AGAIN}"
            ) from error

    def split(self, name: str) -> Split:
        """The split `train`, `validation` or `test`.

        Raises:
          UserError: There is no such split.
        """
        if name not in self._splits:
            raise UserError(f"no split {name!r} in {self.path}; there are {', '.join(SPLITS)}")
        return self._splits[name]

    def vocabulary(self, field: str) -> pa.Array:
        """The values of a categorical field that have the ids 1, 2, ... (id 0: all others).

        Raises:
          UserError: There is no such field, or the file is damaged.
        """
        names = [categorical.name for categorical in self.schema.categorical]
        if field not in names:
            raise UserError(
                f"no categorical field {field!r} in {self.path}; there are {', '.join(names)}"
            )
        if self._vocabulary is None:
            path = self.path / "vocabulary.arrow"
            if not path.exists() or file_checksum(path) != self._vocabulary_checksum:
                raise UserError(f"{path}: damaged or missing; {_PREPARE_AGAIN}")
            self._vocabulary = read_vocabulary(path)
        return self._vocabulary[names.index(field)].values


def refuse_foreign_folder(path: Path) -> None:
    """Raises UserError where writing a store to `path` would remove something else."""
    run = (path / "config.json").exists()  # the folder of a run has a schema.json, too
    if path.is_dir() and (path / "schema.json").exists() and not run:
        return
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(
            f"{path}: exists and is not a prepared data set; choose another output folder"
        )


def write_vocabulary(path: Path, schema: Schema, vocabulary: Sequence[pa.Array]) -> None:
    """One row, one list for each field: millions of values are mapped, never parsed."""
    names = [field.name for field in schema.categorical]
    lists = [
        pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
        for values in vocabulary
    ]
    batch = pa.record_batch(lists, names=names)
    with written_whole(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
        if names:
            writer.write_batch(batch)


def read_vocabulary(path: Path) -> pa.RecordBatch:
    """The one record batch of a vocabulary file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
