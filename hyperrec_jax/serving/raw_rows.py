"""Rows in whatever table they come, as columns of Arrow."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from hyperrec_jax.data.chunk import shortened
from hyperrec_jax.errors import UserError


class ArrowStream(Protocol):
    """A frame that speaks the Arrow PyCapsule protocol: pandas, Polars, DuckDB, Arrow itself."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


RawRows = ArrowStream | Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]
"""A frame, an Arrow table, one dictionary per row, or a dictionary of columns."""

_MOST_BITS = 4096
"""Bits of the largest integer that is written: Python writes none of arbitrary length."""


def to_table(rows: RawRows, where: str = "rows") -> pa.Table:
    """Rows as an Arrow table.

    Args:
      rows: A frame, an Arrow table, one dictionary per row, or a dictionary of columns.
      where: What the rows are, for messages.

    Raises:
      UserError: they are none of these, or a column is of several types.
    """
    try:
        if hasattr(rows, "__arrow_c_stream__") or isinstance(rows, pa.RecordBatch):
            return pa.table(rows)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise UserError(f"{where}: no table ({' '.join(str(error).split())})") from error
    if isinstance(rows, Mapping):
        _require_equal_lengths(rows, where)
        columns = {n: column_of(list(values), n, where, 0) for n, values in rows.items()}
    else:
        rows = _require_dictionaries(rows, where)
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {n: column_of([row.get(n) for row in rows], n, where, 0) for n in names}
    try:
        return pa.table(columns)
    except (ValueError, TypeError) as error:  # a name that is no text
        raise UserError(f"{where}: no table ({' '.join(ascii(error).split())})") from error


def _require_dictionaries(rows: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(
            f"{where}: give a pandas or Polars frame, an Arrow table, or a list with a dictionary "
            f"a row, not {type(rows).__name__}"
        )
    return list(rows)


def _require_equal_lengths(columns: Mapping[str, Any], where: str) -> None:
    lengths: dict[str, int] = {}
    for name, values in columns.items():
        if not isinstance(values, Sequence) or isinstance(values, str | bytes):
            raise UserError(
                f"{where}: column {name!r}: give a list of values, not {type(values).__name__}"
            )
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        one, other = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise UserError(
            f"{where}: column {one!r} has {lengths[one]} values, and column {other!r} has "
            f"{lengths[other]}; give one for each row"
        )


def wanted_columns(
    rows: RawRows, wanted: Mapping[str, pa.DataType], where: str, first: int
) -> dict[str, pa.Array]:
    """The wanted columns, whole, in whatever type they come."""
    if isinstance(rows, Mapping):
        missing = [name for name in wanted if name not in rows]
        if missing:
            raise UserError(
                f"{where}: lack column {missing[0]!r}; they have {', '.join(map(str, rows))}"
            )
        chosen = {name: rows[name] for name in wanted}
        _require_equal_lengths(chosen, where)
        return {n: column_of(list(values), n, where, first) for n, values in chosen.items()}
    if not isinstance(rows, Sequence):
        table = to_table(rows, where)
        missing = [name for name in wanted if name not in table.column_names]
        if missing:
            raise UserError(
                f"{where}: lack column {missing[0]!r}; they have {', '.join(table.column_names)}"
            )
        repeated = [name for name in wanted if table.column_names.count(name) > 1]
        if repeated:
            raise UserError(f"{where}: have column {repeated[0]!r} twice; rename one of them")
        return {name: table[name].combine_chunks() for name in wanted}
    _require_dictionaries(rows, where)
    for number, row in enumerate(rows, first + 1):
        missing = [name for name in wanted if name not in row]
        if missing:
            raise UserError(f"{where}: row {number} lacks column {missing[0]!r}")
    return {name: column_of([row[name] for row in rows], name, where, first) for name in wanted}


def column_of(values: list[Any], name: str, where: str, first: int) -> pa.Array:
    """Values as one column, of whatever type they have in common.

    Raises:
      UserError: they have none.
    """
    try:
        array = _plain_array(values)
        if pa.types.is_timestamp(array.type) and any(getattr(v, "nanosecond", 0) for v in values):
            # Arrow cuts the nanoseconds of pandas' time stamps off; their text has them.
            valid = array.is_valid().to_pylist()
            texts = [v.isoformat() if ok else None for v, ok in zip(values, valid, strict=True)]
            return pa.array(texts, pa.string())
        return array
    except UnicodeEncodeError:
        odd = next(row for row, value in enumerate(values) if not _agree([value]))
        raise UserError(
            f"{where}: row {first + odd + 1}, column {name!r}: {shortened(values[odd])} is not "
            "valid text: a half of a surrogate pair stands alone"
        ) from None
    except _NOT_OF_ONE_TYPE:
        if all(map(_is_number, values)):
            # Together too large for any one type of Arrow: their exact digits.
            gaps = [value is None or value != value for value in values]
            texts = [None if gap else repr(value) for gap, value in zip(gaps, values, strict=True)]
            return pa.array(texts, pa.string())
        odd = bisect.bisect_left(
            range(len(values)), True, key=lambda row: not _agree(values[: row + 1])
        )
        kind = type(next(value for value in values if value is not None)).__name__
        told = shortened(values[odd])
        raise UserError(
            f"{where}: row {first + odd + 1}, column {name!r}: {told} is not of the type of the "
            f"rows before it ({kind}), or no value that a table can hold"
        ) from None


_NOT_OF_ONE_TYPE = (ValueError, TypeError, OverflowError, pa.ArrowException)


def _plain_array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except _NOT_OF_ONE_TYPE:
        return pa.array(values, from_pandas=True)  # its signs for what is missing are nulls


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return value.bit_length() <= _MOST_BITS
    return value is None or type(value) is float


def _agree(values: list[Any]) -> bool:
    try:
        _plain_array(values)
    except _NOT_OF_ONE_TYPE:
        return False
    return True
