"""Encode: values to ids and standardised numbers, written as a store."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from hyperrec_jax.data.staging import Part, progress_bar
from hyperrec_jax.data.store_writer import StoreWriter
from hyperrec_jax.data.survey import Survey, apply_log1p
from hyperrec_jax.data.text import fits
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


def encode_parts(parts: Sequence[Part], survey: Survey, writer: StoreWriter) -> None:
    encoders = [ValueEncoder(values) for values in survey.vocabulary]
    log1p = np.array([field.log1p for field in survey.numerical], bool)
    mean = np.array([field.mean for field in survey.numerical])
    std = np.array([field.std for field in survey.numerical])
    with progress_bar("encoding", sum(len(part) for part in parts)) as progress:
        for part in parts:
            start = 0
            for rows, splits in part.chunks():
                numerical = rows.numerical
                if log1p.any() or mean.any() or np.any(std != 1):
                    numerical = (apply_log1p(numerical, log1p) - mean) / std
                    _require_float32(numerical, rows.numerical, survey, f"{part.name} rows", start)
                start += len(rows.labels)
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
                for split, chosen in splits.items():
                    if chosen.all():
                        writer.append(split, columns)
                    elif chosen.any():
                        writer.append(split, {k: v[chosen] for k, v in columns.items()})
                progress.update(len(rows.labels))


def _require_float32(
    scaled: np.ndarray, raw: np.ndarray, survey: Survey, where: str, start: int
) -> None:
    """Raises a UserError about a number that scaling makes too large for float32."""
    if not (fine := fits(scaled)).all():
        row, column = np.argwhere(~fine)[0]
        field = survey.numerical[column]
        raise UserError(
            f"{where}: row {start + row + 1}, column {field.name!r}: {raw[row, column]} is too "
            f"large beside the training rows (mean {field.mean:.4g}, standard deviation "
            f"{field.std:.4g}); correct it"
        )


def _stack(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0), np.int64)
