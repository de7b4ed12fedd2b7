"""Encode: values to ids and standardised numbers, written as a store."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from hyperrec_jax.data.hashing import BucketEncoder
from hyperrec_jax.data.multivalued import cut_to_length, padded
from hyperrec_jax.data.schema import MultivaluedField, Schema, VectorField
from hyperrec_jax.data.source import Rows
from hyperrec_jax.data.staging import Part, progress_bar
from hyperrec_jax.data.store_writer import StoreWriter
from hyperrec_jax.data.survey import apply_log1p
from hyperrec_jax.data.text import fits
from hyperrec_jax.data.time_fields import with_ages
from hyperrec_jax.errors import UserError


class ValueEncoder:
    """Values of one field -> ids.

    Args:
      vocabulary: The values with the ids 1, 2, ..., sorted.
    """

    def __init__(self, vocabulary: pa.Array):
        self._known = pl.Series(vocabulary)

    def __call__(self, values: pa.Array) -> np.ndarray:
        """Ids of the values: int64 [value], 0 for those out of the vocabulary.

        Binary search over the distinct values only: no hash table of a large vocabulary is built.
        """
        encoded = values.dictionary_encode()
        distinct = pl.Series(encoded.dictionary)
        if not len(self._known) or not len(distinct):
            return np.zeros(len(values), np.int64)
        position = self._known.search_sorted(distinct)
        found = self._known.gather(position.clip(0, len(self._known) - 1)) == distinct
        ids = np.where(found.to_numpy(), position.to_numpy().astype(np.int64) + 1, 0)
        return ids[encoded.indices.to_numpy()]


def table_encoders(
    schema: Schema, vocabulary: Sequence[pa.Array]
) -> list[ValueEncoder | BucketEncoder]:
    """What makes values into ids, for each table of a schema.

    Args:
      schema: The tables.
      vocabulary: The sorted values of each; of hashed ones none.
    """
    return [
        BucketEncoder(table.size - 1) if table.hashed else ValueEncoder(values)
        for table, values in zip(schema.tables, vocabulary, strict=True)
    ]


def encode_parts(
    parts: Sequence[Part], schema: Schema, vocabulary: Sequence[pa.Array], writer: StoreWriter
) -> None:
    """Writes all rows of some parts of a source.

    Args:
      parts: The staged rows.
      schema: Fields and their scale.
      vocabulary: The sorted values of each table of the schema.
      writer: Where to.

    Raises:
      UserError: A number is too large once it is scaled.
    """
    tables = table_encoders(schema, vocabulary)
    encoders = [tables[schema.table_of(field)] for field in schema.categorical]
    of_lists = [tables[schema.table_of(field)] for field in schema.multivalued]
    log1p = np.array([field.log1p for field in schema.numerical], bool)
    mean = np.array([field.mean for field in schema.numerical])
    std = np.array([field.std for field in schema.numerical])
    newest = [field.newest for field in schema.times]
    with progress_bar("encoding", sum(len(part) for part in parts)) as progress:
        for part in parts:
            start = 0
            for rows, splits in part.chunks():
                numerical = raw = with_ages(rows.numerical, newest)
                if log1p.any() or mean.any() or np.any(std != 1):
                    numerical = (apply_log1p(numerical, log1p) - mean) / std
                    _require_float32(numerical, raw, schema, f"{part.name} rows", start)
                columns = {
                    "categorical": _stack(
                        [encode(v) for encode, v in zip(encoders, rows.categorical, strict=True)],
                        len(rows.labels),
                    ),
                    "numerical": numerical,
                    "labels": rows.labels,
                }
                if rows.groups is not None:
                    columns["group"] = rows.groups
                if rows.true_probability is not None:
                    columns["true_probability"] = rows.true_probability
                if rows.weights is not None:
                    columns["weight"] = rows.weights
                if rows.times is not None:
                    columns["time"] = rows.times
                if schema.multivalued:
                    columns |= _multivalued(rows, schema.multivalued, of_lists)
                if rows.vectors is not None:
                    columns["vectors"] = scaled = scale_vectors(rows.vectors, schema.vectors)
                    _require_vectors(scaled, schema.vectors, f"{part.name} rows", start)
                start += len(rows.labels)
                for split, chosen in splits.items():
                    if chosen.all():
                        writer.append(split, columns)
                    elif chosen.any():
                        writer.append(split, {k: v[chosen] for k, v in columns.items()})
                progress.update(len(rows.labels))


def _multivalued(
    rows: Rows, fields: Sequence[MultivaluedField], encoders: Sequence[ValueEncoder | BucketEncoder]
) -> dict[str, np.ndarray]:
    """The matrix of ids, and which rows had more values than are kept, bool `[row, field]`."""
    matrices, cut = [], []
    for lists, field, encode in zip(rows.multivalued, fields, encoders, strict=True):
        values, lengths, long = cut_to_length(lists, field)
        matrices.append(padded(encode(values), lengths, field.length))
        cut.append(long)
    return {"multivalued": np.concatenate(matrices, axis=1), "cut": np.stack(cut, axis=1)}


def scale_vectors(vectors: np.ndarray, fields: Sequence[VectorField]) -> np.ndarray:
    """Standardises the vectors of all fields side by side, `[row, sum of widths]`."""
    mean, std = (np.concatenate(each) for each in zip(*map(vector_scale, fields), strict=True))
    return (vectors - mean) / std


def vector_scale(field: VectorField) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation at each position of a vector, each `[width]`."""
    zeros, ones = np.zeros(field.width), np.ones(field.width)
    return np.array(field.mean or zeros), np.array(field.std or ones)


def _require_vectors(
    scaled: np.ndarray, fields: Sequence[VectorField], where: str, start: int
) -> None:
    """Raises a UserError about a vector that scaling makes too large for float32."""
    if not (fine := fits(scaled)).all():
        row, place = np.argwhere(~fine)[0]
        ends = np.cumsum([field.width for field in fields])
        field = fields[int(np.searchsorted(ends, place, side="right"))]
        raise UserError(
            f"{where}: row {start + row + 1}, column {field.name!r}: a number of it is too large "
            "beside the training rows; correct it"
        )


def _require_float32(
    scaled: np.ndarray, raw: np.ndarray, schema: Schema, where: str, start: int
) -> None:
    """Raises a UserError about a number that scaling makes too large for float32."""
    if not (fine := fits(scaled)).all():
        row, column = np.argwhere(~fine)[0]
        field = schema.numerical[column]
        raise UserError(
            f"{where}: row {start + row + 1}, column {field.name!r}: {raw[row, column]} is too "
            f"large beside the training rows (mean {field.mean:.4g}, standard deviation "
            f"{field.std:.4g}); correct it"
        )


def _stack(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0), np.int64)
