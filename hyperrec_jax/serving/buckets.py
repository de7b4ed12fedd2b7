"""Sizes of the calls of a compiled model: rows are padded to a few of them, so that few programs
are ever compiled."""

import functools

import numpy as np

from hyperrec_jax.serving.encoded import Encoded

ROW_BUCKETS = (8, 32, 128, 512, 2048)
"""Rows a call of the compiled model: a chunk is padded to one of these, so that no more than so
many shapes are ever compiled."""
CALL_ROWS = 32
"""What a call costs beside its rows, in rows, when rows are divided into calls."""
PREFERENCE_BUCKETS = (1, 8)
"""The same for preferences."""


def chunks(total: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `total`."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


@functools.cache
def _calls(rows: int) -> tuple[int, ...]:
    """Rows of each call, of which only the last is padded, so that little time is lost: 600 rows
    go as 512 and 88, in buckets of 512 and 128, where one call would have 2,048."""

    def cost(calls: tuple[int, ...]) -> int:
        return sum(CALL_ROWS + _bucket(call) for call in calls)

    larger = [(rows,)] if rows <= ROW_BUCKETS[-1] else []
    smaller = [bucket for bucket in ROW_BUCKETS if bucket < rows][-1:]
    divided = [(bucket, *_calls(rows - bucket)) for bucket in smaller]
    return min(larger + divided, key=cost)


def _bucket(rows: int) -> int:
    return next(bucket for bucket in ROW_BUCKETS if bucket >= rows)


def row_chunks(total: int) -> list[slice]:
    """The rows of each call of the model; one call at least."""
    largest = ROW_BUCKETS[-1]
    full = max(0, (total - 1) // largest) * largest
    stops = [*range(largest, full + 1, largest)]
    for rows in _calls(total - full):
        stops.append((stops[-1] if stops else 0) + rows)
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def padded(values: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
    """Repeats the first row until the length is that of a bucket."""
    size = next(bucket for bucket in buckets if bucket >= len(values))
    if size == len(values):
        return values
    return np.concatenate([values, np.repeat(values[:1], size - len(values), axis=0)])


def padded_rows(batch: Encoded, rows: slice) -> list[np.ndarray]:
    """The arrays of some rows, padded to a bucket."""
    return [padded(array[rows], ROW_BUCKETS) for array in batch.arrays]
