"""A frame in memory: kept as Parquet, then read like any file."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyperrec_jax.data.chunk import Chunk
from hyperrec_jax.data.source import Rows, Source, VectorColumn
from hyperrec_jax.data.sources.csv_files import (
    described,
    read_parquet,
    require_columns,
    to_rows,
)
from hyperrec_jax.data.sources.description import Description
from hyperrec_jax.data.sources.field_columns import read_lists, read_vector_columns
from hyperrec_jax.data.text import to_numbers
from hyperrec_jax.errors import UserError

_NAME = "the frame"
_ROWS = 1 << 16


def write_frame(table: pa.Table, description: Description, file: BinaryIO) -> str:
    """Writes the columns that are used as Parquet: ids, labels and lists of ids as text, numbers as
    float64.

    Args:
      table: The frame.
      description: Names the columns.
      file: Where to.

    Returns:
      A hash of what was written.

    Raises:
      UserError: A column is missing or there twice, there are no rows, or a value has no text.
    """
    columns = description.types() | description.lists()
    require_columns(list(columns), table.column_names, _NAME)
    if not len(table):
        raise UserError(f"{_NAME}: has no rows")
    identity, lists = hashlib.sha256(), description.lists()
    with pq.ParquetWriter(file, pa.schema(list(columns.items()))) as writer:
        start = 0
        for batch in table.select(list(columns)).to_batches(max_chunksize=_ROWS):
            chunk = Chunk(_NAME, start, batch, "correct or convert it")
            arrays = {name: _plain(chunk, name, columns) for name in columns if name not in lists}
            arrays |= {c.name: read_lists(chunk, c) for c in description.multivalued}
            arrays |= {c.name: _vectors(chunk, c) for c in description.vectors}
            written = pa.record_batch({name: arrays[name] for name in columns})
            writer.write_batch(written)
            identity.update(written.serialize())
            start += len(batch)
    file.flush()
    return identity.hexdigest()


def _plain(chunk: Chunk, name: str, columns: dict[str, pa.DataType]) -> pa.Array:
    if pa.types.is_string(columns[name]):
        return chunk.strings(name)
    with chunk.explained(name):
        return to_numbers(chunk.batch[name])


def _vectors(chunk: Chunk, column: VectorColumn) -> pa.Array:
    matrix = read_vector_columns(chunk, (column,))
    assert matrix is not None
    starts = pa.array(np.arange(len(matrix) + 1) * column.width)
    return pa.LargeListArray.from_arrays(starts, pa.array(matrix.reshape(-1)))


def frame_source(description: Description, path: Path, identity: str) -> Source:
    """What `write_frame` wrote as a source.

    Args:
      description: Names the columns.
      path: The Parquet file.
      identity: The hash of what is in it.
    """

    def read(staging: Path) -> Iterator[Rows]:
        for chunk in read_parquet(path, list(description.types()), _NAME):
            yield to_rows(chunk, description)

    return described(description, {"train": read}, identity)
