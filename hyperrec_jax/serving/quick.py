"""Encodes a few rows by plain look-ups; `Preprocessor` has the exact rules.

Arrow's kernels cost some 40 microseconds a column before they read a value: for a request of a few
rows, ten times what the model costs. Values of the plain kinds, which are nearly all, are looked up
in a dictionary here, and the numbers of all columns are transformed in one array. Whatever is not
plain is left to the exact rules, a column alone where that is enough, so that results are the same
bit for bit, and messages too.
"""

import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.hashing import bucket_of
from hyperrec_jax.data.schema import Schema, Table
from hyperrec_jax.data.text import fits, to_text

LARGEST_TABLE = 1 << 18
"""Fields with more values than this have no table, which would hold 100 bytes for each of them."""
_EXACT = 2.0**53
"""Numbers up to this are the same as integers and as floats."""
_UNCHANGED = re.compile(r"(?!(?:NaN|True|TRUE|False|FALSE)$)(?:-?[0-9]+|[A-Za-z](?:[ -~]*[!-~])?)")
"""Some of the texts that stay as they are; see `data.text`."""
_NONE = type(None)

ExactIds = Callable[[int, list[Any]], np.ndarray | None]
"""The ids of values of the field of an index, by the exact rules; None where all columns must be
asked of them."""


class _Table(NamedTuple):
    """The ids of a field's values, by the values, and by None for a missing one.

    Attributes:
      ids: Those of the values of the vocabulary.
      of_text: Whether the values are texts, and not integers.
      buckets: Number of hash buckets that the ids of all other values come from; 0 for none.
    """

    ids: Mapping[Any, int]
    of_text: bool
    buckets: int = 0


def _table(table: Table, values: pa.Array) -> _Table | None:
    if table.hashed:
        buckets = table.size - 1
        return _Table({None: bucket_of("", buckets)}, True, buckets)
    of_text = pa.types.is_string(values.type)
    if len(values) > LARGEST_TABLE:
        return None
    ids = {value: number for number, value in enumerate(values.to_pylist(), 1)}
    # A missing id is the empty text, or the integer -1.
    missing = ids.get("" if of_text else -1, 0)
    if of_text:
        kept = pc.equal(to_text(values), values).to_pylist()
        ids = {
            value: number for (value, number), same in zip(ids.items(), kept, strict=True) if same
        }
    return _Table({**ids, None: missing}, of_text)


def _getter(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Reads some values of a row, in order; raises a KeyError where one is missing."""
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda row: tuple(row[name] for name in names)


class QuickEncoder:
    """Encodes rows whose values are of plain kinds, and says so where they are not.

    Every method returns the ids, int32 `[row, field]`, and the transformed numbers, float32
    `[row, number]`, or None where the exact rules must be asked.
    """

    def __init__(self, schema: Schema, vocabulary: Sequence[pa.Array]) -> None:
        """Builds the tables.

        Args:
          schema: Fields and the transforms of numbers; none of several values, and no vectors.
          vocabulary: For each table of the schema the values that have the ids 1, 2, ...
        """
        tables = list(map(_table, schema.tables, vocabulary))
        self._tables = [tables[schema.table_of(field)] for field in schema.categorical]
        self._fields = [field.name for field in schema.categorical]
        self._numbers = [field.name for field in schema.numerical]
        self._get_ids, self._get_numbers = _getter(self._fields), _getter(self._numbers)
        numbers = schema.numerical
        self._missing = np.array([np.nan if n.missing is None else n.missing for n in numbers])
        self._log1p = np.flatnonzero([number.log1p for number in numbers])
        self._mean = np.array([number.mean for number in numbers], np.float64)
        self._std = np.array([number.std for number in numbers], np.float64)

    def rows(
        self, rows: Sequence[dict[str, Any]], exact_ids: ExactIds
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Encodes dictionaries, one for each row, one row at least."""
        try:
            fields = list(zip(*map(self._get_ids, rows), strict=True))
            numbers = _float64(list(map(self._get_numbers, rows)))
        except KeyError:
            return None
        return None if numbers is None else self._encoded(fields, numbers, exact_ids)

    def columns(
        self, columns: Mapping[str, Sequence[Any]], exact_ids: ExactIds
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Encodes columns of equal length, one row at least."""
        try:
            fields = [columns[name] for name in self._fields]
            values = [columns[name] for name in self._numbers]
        except KeyError:
            return None
        lengths = set(map(len, fields)) | set(map(len, values))
        if len(lengths) != 1 or 0 in lengths:
            return None
        numbers = _float64(values) if values else np.empty((0, *lengths))
        return None if numbers is None else self._encoded(fields, numbers.T.copy(), exact_ids)

    def _encoded(
        self, fields: Sequence[Sequence[Any]], numbers: np.ndarray, exact_ids: ExactIds
    ) -> tuple[np.ndarray, np.ndarray] | None:
        numerical = self._transformed(numbers)
        if numerical is None:
            return None
        categorical = np.empty((len(numbers), len(self._tables)), np.int32)
        for index, (values, table) in enumerate(zip(fields, self._tables, strict=True)):
            ids = None if table is None else _ids(values, table)
            found = exact_ids(index, list(values)) if ids is None else ids
            if found is None:
                return None
            categorical[:, index] = found
        return categorical, numerical

    def _transformed(self, values: np.ndarray) -> np.ndarray | None:
        """Transformed numbers, from float64 `[row, number]` with NaN for a missing one."""
        missing = np.isnan(values)
        if missing.any():
            values = np.where(missing, self._missing, values)
        if not (np.abs(values) <= _EXACT).all():  # also those that are still missing
            return None
        if len(self._log1p):
            chosen = values[:, self._log1p]
            if not (chosen > -1).all():
                return None
            values[:, self._log1p] = np.log1p(chosen)
        values = (values - self._mean) / self._std
        return values.astype(np.float32) if fits(values).all() else None


def _float64(cells: Sequence[Sequence[Any]]) -> np.ndarray | None:
    """Numbers as an array, NaN in the place of None; None where there is anything else."""
    if not set(map(type, itertools.chain.from_iterable(cells))) <= {int, float, _NONE}:
        return None
    try:
        return np.array(cells, np.float64)
    except OverflowError:
        return None


def _ids(values: Sequence[Any], table: _Table) -> Sequence[int] | None:
    """The ids of one column; None where the exact rules must be asked."""
    kinds = set(map(type, values))
    if int in kinds:
        if not kinds <= {int, _NONE}:
            return None
        if table.of_text:
            if not all(value is None or _stays(value) for value in values):
                return None
            values = [None if value is None else str(value) for value in values]
    elif not kinds <= {str, _NONE} or (str in kinds and not table.of_text):
        return None
    ids = list(map(table.ids.get, values))
    if None not in ids:
        return ids  # type: ignore[return-value]
    for row, value in enumerate(values):
        if ids[row] is None:
            if not _stays(value):
                return None
            ids[row] = bucket_of(str(value), table.buckets) if table.buckets else 0
    return ids  # type: ignore[return-value]


def _stays(value: int | str) -> bool:
    """Whether a value that no row of training had is sure to stay as it is."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return _UNCHANGED.fullmatch(value) is not None
