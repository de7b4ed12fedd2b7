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
"""Version of a store that has no other fields than categorical and numerical ones."""

VERSION_OF_MANY = 4
"""Version of a store with multi-valued fields, vectors, times, shared vocabularies, or ids by a
rule (hashes, or values that come often enough)."""

SPLITS = ("train", "validation", "test")

ROWS_PER_RECORD_BATCH = 16_384

Batch = dict[str, np.ndarray]
"""`categorical` int [batch, field], `numerical` f32 [batch, number], `labels` [batch, goal], u8 or,
with NaN for a missing one, f32; `weight` f32 [batch, 1] where rows have weights; `multivalued` int
[batch, sum of lengths], padded with -1, and `vectors` f32 [batch, sum of widths] where there are
such fields."""

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


def signed_dtype(sizes: Sequence[int]) -> np.dtype:
    """The smallest type of ids that has room for the padding, too."""
    largest = max(sizes, default=1) - 1
    return np.dtype(next(t for t in (np.int8, np.int16, np.int32) if largest <= np.iinfo(t).max))


def version_of(schema: Schema) -> int:
    """The version of a store: the first program that can read it."""
    shared = any(field.shares for field in schema.categorical)
    by_rule = any(field.hashed or field.min_count > 1 for field in schema.categorical)
    more = schema.multivalued or schema.vectors or schema.times or shared or by_rule
    return VERSION_OF_MANY if more else VERSION


def input_columns(schema: Schema) -> tuple[Column, ...]:
    """What a model reads of a row, in the order of the arguments of an exported program."""
    columns = [
        Column("categorical", np.dtype(np.int32), len(schema.categorical)),
        Column("numerical", np.dtype(np.float32), schema.num_numerical),
    ]
    if schema.multivalued:
        width = sum(field.length for field in schema.multivalued)
        columns.append(Column("multivalued", np.dtype(np.int32), width))
    if schema.vectors:
        width = sum(field.width for field in schema.vectors)
        columns.append(Column("vectors", np.dtype(np.float32), width))
    return tuple(columns)


def columns_of(schema: Schema) -> tuple[Column, ...]:
    """The columns of a store's files."""
    types = {
        "categorical": id_dtype(schema.field_sizes),
        "multivalued": signed_dtype([field.size for field in schema.multivalued]),
    }
    inputs = [
        dataclasses.replace(column, dtype=types.get(column.name, column.dtype))
        for column in input_columns(schema)
    ]
    labels = Column("labels", np.dtype(schema.label_dtype), schema.num_tasks)
    columns = [*inputs[:2], labels, *inputs[2:]]
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
