"""Writes a store: rows cut into record batches, published under its name once complete."""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.columns import (
    ROWS_PER_RECORD_BATCH,
    SPLITS,
    Column,
    arrow_schema,
    checksum_of,
    columns_of,
    fingerprint_of,
    version_of,
)
from hyperrec_jax.data.files import (
    explain_write_errors,
    file_checksum,
    replace_folder,
    written_whole,
)
from hyperrec_jax.data.labels import LabelStatistics, fitted
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.vocabulary_file import write_vocabulary
from hyperrec_jax.errors import UserError


class _SplitWriter:
    """Cuts appended rows into record batches of one size."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column], schema: Schema):
        self._columns = [column for column in columns if column.width]
        self._buffers = {c.name: c.empty(ROWS_PER_RECORD_BATCH) for c in self._columns}
        self._filled = 0
        self._arrow_schema = arrow_schema(columns)
        self._writer = pa.ipc.new_file(file, self._arrow_schema)
        self.rows = 0
        self.labels = LabelStatistics(self._buffers["labels"].shape[1])
        self.unseen = np.zeros(len(schema.id_fields), np.int64)
        self.cut = np.zeros(len(schema.multivalued), np.int64)
        # Where the values of each multi-valued field begin in their matrix.
        self._starts = np.cumsum([0, *(field.length for field in schema.multivalued[:-1])])
        self.checksums: list[int] = []
        self.times: tuple[int, int] | None = None

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        rows = len(columns["labels"])
        if "time" in columns:
            first, last = int(columns["time"].min()), int(columns["time"].max())
            before = self.times or (first, last)
            self.times = min(first, before[0]), max(last, before[1])
        if "cut" in columns:
            self.cut += columns["cut"].sum(0)
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
        self.checksums.append(checksum_of(arrays))
        weight = self._buffers.get("weight")
        self.labels.add(
            self._buffers["labels"][: self._filled],
            None if weight is None else weight[: self._filled, 0],
        )
        unseen = [np.zeros(0, np.int64)]
        if "categorical" in self._buffers:
            unseen.append((self._buffers["categorical"][: self._filled] == 0).sum(0))
        if "multivalued" in self._buffers:
            unknown = self._buffers["multivalued"][: self._filled] == 0
            unseen.append(np.logical_or.reduceat(unknown, self._starts, axis=1).sum(0))
        self.unseen += np.concatenate(unseen)
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
      vocabulary: Per table of the schema the values with the ids 1, 2, ...
      provenance: What the store was made from, kept beside the contents (not in the fingerprint).
      fit_goals: Whether goals take the options that come from labels from these training labels;
        otherwise they stay as the schema has them.

    Raises:
      UserError: `path` holds something else than a store, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        vocabulary: Sequence[pa.Array],
        provenance: str = "",
        *,
        fit_goals: bool = True,
    ):
        refuse_foreign_folder(path)
        self._path = path
        self._schema = schema
        self._provenance = provenance
        self._fit_goals = fit_goals
        self._temporary = path.with_name(path.name + ".writing")
        with explain_write_errors(path):
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True)
            write_vocabulary(self._temporary / "vocabulary.arrow", schema, vocabulary)
            columns = columns_of(schema)
            self._files = contextlib.ExitStack()
            self._splits = {}
            for split in SPLITS:
                file = open(self._temporary / f"{split}.arrow", "wb")  # noqa: SIM115
                self._splits[split] = _SplitWriter(self._files.enter_context(file), columns, schema)

    def append(self, split: str, columns: Mapping[str, np.ndarray]) -> None:
        """Adds rows to a split.

        Args:
          split: Name of the split.
          columns: The arrays of a `Batch`, and where there are such columns `group` int64 [rows];
            `true_probability` f32 [rows, goal]; `time` int64 [rows], microseconds since 1970, of
            which the range alone is kept; `cut` bool [rows, field], which multi-valued fields had
            more values than are kept, of which the counts alone are.
        """
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
        schema = self._schema
        if self._fit_goals:
            schema = fitted(schema, self._splits["train"].labels.of_goals())
        contents: dict[str, Any] = {
            "version": version_of(schema),
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
                    **({"times": writer.times} if writer.times else {}),
                    **({"cut": writer.cut.tolist()} if schema.multivalued else {}),
                }
                for split, writer in self._splits.items()
            },
        }
        contents["fingerprint"] = fingerprint_of(contents)
        with written_whole(self._temporary / "schema.json") as file:
            file.write(json.dumps(contents, indent=1).encode())
        replace_folder(self._temporary, self._path)


def refuse_foreign_folder(path: Path) -> None:
    """Raises UserError where writing a store to `path` would remove something else."""
    run = (path / "config.json").exists()  # the folder of a run has a schema.json, too
    if path.is_dir() and (path / "schema.json").exists() and not run:
        return
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(
            f"{path}: exists and is not a prepared data set; choose another output folder"
        )
