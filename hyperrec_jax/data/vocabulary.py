"""Vocabularies of the training rows: the distinct values of a stream, all of them or the frequent.

The values are merged when they may have doubled, so that a stream costs linear time.
"""

from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.source import IdRule

_LEAST = 1 << 16


class Collector(Protocol):
    """Takes the values of the training rows of one table, chunk by chunk."""

    def add(self, values: pa.Array) -> None:
        """Takes some values."""

    def found(self) -> tuple[pa.Array, int]:
        """The sorted values that get an id, and the number of distinct ones that get none."""


def collector_of(rule: IdRule) -> Collector:
    """What collects the values of a field by its rule."""
    if rule.hash_buckets is not None:
        return _Nothing()
    return _Frequent(rule.min_count) if rule.min_count > 1 else _Distinct()


class _Nothing:
    """Collects nothing: the values of the field are hashed."""

    def add(self, values: pa.Array) -> None:
        """Nothing needs to be known of them."""

    def found(self) -> tuple[pa.Array, int]:
        return pa.array([], pa.string()), 0


class _Distinct:
    """All distinct values."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._pending = 0
        self._merged = 0

    def add(self, values: pa.Array) -> None:
        self._chunks.append(pc.unique(values))
        self._pending += len(self._chunks[-1])
        if self._pending > max(_LEAST, self._merged):
            self._merge()

    def found(self) -> tuple[pa.Array, int]:
        self._merge()
        return self._chunks[0].sort(), 0

    def _merge(self) -> None:
        merged = pc.unique(pa.chunked_array(self._chunks))
        self._chunks, self._merged, self._pending = [merged], len(merged), 0


class _Frequent:
    """The values that come so many times, in all rows together."""

    def __init__(self, min_count: int) -> None:
        self._min_count = min_count
        self._chunks: list[pa.Table] = []
        self._pending = 0
        self._merged = 0

    def add(self, values: pa.Array) -> None:
        counted = pc.value_counts(values)
        self._chunks.append(pa.table({"value": counted.field(0), "count": counted.field(1)}))
        self._pending += len(counted)
        if self._pending > max(_LEAST, self._merged):
            self._merge()

    def found(self) -> tuple[pa.Array, int]:
        self._merge()
        values, counts = (self._chunks[0][name].combine_chunks() for name in ("value", "count"))
        kept = values.filter(pc.greater_equal(counts, self._min_count))
        return kept.sort(), len(values) - len(kept)

    def _merge(self) -> None:
        of_all = pa.concat_tables(self._chunks).group_by("value").aggregate([("count", "sum")])
        merged = of_all.rename_columns({"value": "value", "count_sum": "count"})
        self._chunks, self._merged, self._pending = [merged], len(merged), 0
