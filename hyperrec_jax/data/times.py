"""When a row happened: the values of a column of times as microseconds since 1970.

  text        ISO 8601, such as `2026-01-31`, `2026-01-31 12:30:00` or `2026-01-31T12:30:00+02:00`;
              numbers may be text, too
  numbers     seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their
              size, all of one column in the same unit; or numbers in a unit that is named, from
              any beginning
  dates and time stamps of any unit

A time without a zone is taken as UTC.
"""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.text import UnreadableValue, advice_on

SECOND = 1_000_000
"""Microseconds in a second."""

UNITS = {
    "ns": 1e-3,
    "us": 1.0,
    "ms": 1e3,
    "s": SECOND,
    "min": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86_400 * SECOND,
    "w": 7 * 86_400 * SECOND,
}
"""Microseconds in a unit, by its name."""

_YEAR_1990 = 631_152_000
_YEAR_2200 = 7_258_118_400
_MOST = 2.0**62
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WITHOUT_UNIT = (
    "is no time: a number counts seconds, milliseconds, microseconds or nanoseconds since 1970, "
    "from 1990 to 2200, unless a split by time names its unit; write dates as 2026-01-31"
)
_MISSING = "is no time; every row needs one"
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def to_times(values: pa.Array, unit: str | None = None) -> np.ndarray:
    """Microseconds since 1970 (since whatever the numbers count from, if a unit is named).

    Args:
      values: Text, numbers, dates or time stamps, `[row]`.
      unit: Unit of numbers, of `UNITS`; None tells it from their size.

    Returns:
      int64 `[row]`.

    Raises:
      UnreadableValue: A value is missing, or no time, or a number of another unit than the first.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if values.null_count:
        raise UnreadableValue(int(np.argmin(values.is_valid().to_numpy(False))), _MISSING)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _of_stamps(values)
    if pa.types.is_integer(kind):
        return _of_numbers(values.cast(pa.int64(), safe=False).to_numpy(False), unit)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _of_numbers(values.cast(pa.float64(), safe=False).to_numpy(False), unit)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _of_text(values.cast(pa.string()), unit)
    what = "times are ISO text, numbers or time stamps"
    raise UnreadableValue(0, f"is of type {kind}; {what}{advice_on(kind)}")


def iso_time(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 date or time; UTC where it names no zone.

    Raises:
      ValueError: It is none.
    """
    stamp = datetime.fromisoformat(text)
    stamp = stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp
    return (stamp - _EPOCH) // _MICROSECOND


def moment(time: int) -> str:
    """A time in microseconds as ISO text in UTC, to the second: `2026-01-31 12:30:00`."""
    seconds = np.datetime64(int(time) // SECOND, "s")
    return str(seconds).replace("T", " ")


def _of_stamps(values: pa.Array) -> np.ndarray:
    if pa.types.is_date(values.type):
        days = values.cast(pa.date32(), safe=False).cast(pa.int32()).to_numpy(False)
        return days.astype(np.int64) * int(UNITS["d"])
    ticks = values.cast(pa.int64()).to_numpy(False)
    scale = UNITS[values.type.unit]
    if scale < 1:
        return ticks // round(1 / scale)
    fine = np.abs(ticks) < _MOST / scale
    _require(fine, "is no time of the years 1 to 9999")
    return ticks * int(scale)


def _of_numbers(numbers: np.ndarray, unit: str | None) -> np.ndarray:
    if unit is not None:
        scale = UNITS[unit]
        fine = np.abs(numbers.astype(np.float64)) < _MOST / scale
        _require(fine, "is no time: it is no finite number, or too large")
        return _scaled(numbers, scale)
    if not len(numbers):
        return np.zeros(0, np.int64)
    units = np.full(len(numbers), "", "U2")
    for name in _UNIT_NAMES:
        first, last = (year * SECOND / UNITS[name] for year in (_YEAR_1990, _YEAR_2200))
        units[(numbers >= first) & (numbers < last)] = name
    _require(units != "", _WITHOUT_UNIT)
    if (others := units != units[0]).any():
        row = int(np.argmax(others))
        told, before = _UNIT_NAMES[str(units[row])], _UNIT_NAMES[str(units[0])]
        why = f"counts {told} since 1970, the rows before it {before}; write all in one unit"
        raise UnreadableValue(row, why)
    return _scaled(numbers, UNITS[str(units[0])])


def _scaled(numbers: np.ndarray, scale: float) -> np.ndarray:
    """Numbers of a unit as microseconds, int64; those of integers are exact."""
    if numbers.dtype == np.int64:
        return numbers * int(scale) if scale >= 1 else numbers // round(1 / scale)
    return np.round(numbers * scale).astype(np.int64)


def _of_text(values: pa.Array, unit: str | None) -> np.ndarray:
    texts = pc.utf8_trim_whitespace(values)
    try:  # one library call for what most logs have
        return _of_stamps(texts.cast(pa.timestamp("us")))
    except pa.ArrowInvalid:
        pass
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    try:
        times = _converted(distinct, unit)
    except UnreadableValue as error:
        rows = np.flatnonzero(encoded.indices.to_numpy() == error.row)
        raise UnreadableValue(int(rows[0]), error.why) from error
    return times[encoded.indices.to_numpy()]


def _converted(texts: list[str], unit: str | None) -> np.ndarray:
    if "" in texts:
        raise UnreadableValue(texts.index(""), _MISSING)
    numbers = [_NUMBER.fullmatch(text) is not None for text in texts]
    if all(numbers):
        whole = all(text.lstrip("+-").isdecimal() and len(text) < 19 for text in texts)
        return _of_numbers(np.array(texts, np.int64 if whole else np.float64), unit)
    times = np.empty(len(texts), np.int64)
    for row, text in enumerate(texts):
        try:
            times[row] = iso_time(text)
        except ValueError:
            why = "is no time; write it as 2026-01-31 or 2026-01-31T12:30:00"
            if numbers[row]:
                row, why = numbers.index(False), "is no number, as the times of other rows are"
            raise UnreadableValue(row, why) from None
    return times


def _require(fine: np.ndarray, why: str) -> None:
    if not fine.all():
        raise UnreadableValue(int(np.argmin(fine)), why)
