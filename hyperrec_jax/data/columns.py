"""The columns of a store's files: their names, types and widths, and their checksums."""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.schema import Schema

VERSION = 3

SPLITS = ("train", "validation", "test")

ROWS_PER_RECORD_BATCH = 16_384

Batch = dict[str, np.ndarray]
"""`categorical` int [batch, field], `numerical` f32 [batch, number], `labels` [batch, goal], u8 or,
with NaN for a missing one, f32; `weight` f32 [batch, 1] where rows have weights."""

PREPARE_AGAIN = "prepare the data again with `hyperrec prepare`"


@dataclasses.dataclass(frozen=True)
class Column:
    name: str
    dtype: np.dtype
    width: int

    def empty(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.width), self.dtype)


def id_dtype(sizes: Sequence[int]) -> np.dtype:
    largest = max(sizes, default=1) - 1
    return np.dtype(next(t for t in (np.uint8, np.uint16, np.int32) if largest <= np.iinfo(t).max))


def columns_of(schema: Schema) -> tuple[Column, ...]:
    columns = [
        Column("categorical", id_dtype(schema.field_sizes), len(schema.categorical)),
        Column("numerical", np.dtype(np.float32), schema.num_numerical),
        Column("labels", np.dtype(schema.label_dtype), schema.num_tasks),
    ]
    if schema.weight is not None:
        columns.append(Column("weight", np.dtype(np.float32), 1))
    if schema.group is not None:
        columns.append(Column("group", np.dtype(np.int64), 1))
    if schema.best_auc:
        columns.append(Column("true_probability", np.dtype(np.float32), schema.num_tasks))
    return tuple(columns)


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    # Arrow knows no lists of width 0: such a column is left out and read back as empty.
    return pa.schema(
        [
            pa.field(c.name, pa.list_(pa.from_numpy_dtype(c.dtype), c.width), nullable=False)
            for c in columns
            if c.width
        ]
    )


def checksum_of(arrays: Sequence[np.ndarray]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return checksum


def fingerprint_of(contents: Mapping[str, Any]) -> str:
    """SHA-256 of all that defines the contents: schema, vocabulary, rows and checksums."""
    text = json.dumps(
        {key: contents[key] for key in ("version", "schema", "vocabulary", "splits")},
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()
