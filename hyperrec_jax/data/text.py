"""One text for a value, whatever library or file it comes from.

The ids of a field are the texts of its values, so that a vocabulary made from one kind of file
serves rows of every other kind. `to_text` is the only place where a value becomes text; `prepare`
and serving both call it, and text from a CSV file goes through it as typed columns do:

  missing     null, None, NaN, NaT and the text `NaN` are the empty text, a value like any other
  text        without surrounding white space; apart from the cases below it stays as it is, so that
              `7`, `007`, `7.5`, `7.50` and `1e3` are five different ids
  numbers     decimal digits without an exponent. Whole numbers have no point: the float 7.0, the
              text `7.0` and the integer 7 are all `7`. Other floats have the fewest digits that
              tell them from their neighbours (3.58). A text with an exponent is read as a number
              only where it is just what a program writes for a float (`1.5e+18`, `1e-05`)
  booleans    `true` and `false`, also for the texts `True`, `TRUE`, `False`, `FALSE`
  dates       `2026-01-31`, also for a time stamp at midnight without a time zone
  time stamps `2026-01-31T12:30:00`, with a fraction where it is not zero; those with a time zone
              in UTC with a `Z` at the end, midnight or not
  times       `12:30:00`, with a fraction where it is not zero
  bytes       their UTF-8 text (of a fixed size: none, they may be anything)
  categories  the text of what they stand for
"""

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_EXPONENT = re.compile(r"-?[0-9]\.[0-9]+[eE][+-]?[0-9]+|-?[0-9][eE][+-][0-9]+")
_TIME_STAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.([0-9]{1,9}))?"
    r"(?:(Z)|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_TIME = re.compile(r"([0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]+)")
_TICKS = {"s": 86_400.0, "ms": 86_400e3, "us": 86_400e6, "ns": 86_400e9}
_FIRST_DAY, _LAST_DAY = ((day - date(1970, 1, 1)).days for day in (date.min, date.max))
_SPELLINGS = {"NaN": "", **{t: t.lower() for t in ("True", "TRUE", "False", "FALSE")}}
_MAY_CHANGE = (
    r"^(NaN|True|TRUE|False|FALSE|-?[0-9]+\.0+|-?[0-9](\.[0-9]+)?[eE][+-]?[0-9]+"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:.*|[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+)$"
)
"""The texts that `_normal` may change, and some others, for Arrow."""


class UnreadableValue(ValueError):  # noqa: N818 - what it is about, as UserError says it
    """A value that is no text or no number.

    Attributes:
      row: Its position in the array.
      why: A phrase that goes on after the value, such as "is not a number".
    """

    def __init__(self, row: int, why: str):
        super().__init__(row, why)
        self.row, self.why = row, why


def to_text(values: pa.Array) -> pa.Array:
    """The texts of values, as the module describes: string [row], no nulls.

    Args:
      values: An array of any type but nested ones and durations.

    Raises:
      UnreadableValue: A value has no text, such as a list, or bytes that are not UTF-8.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        return pc.fill_null(_from_distinct(values, to_text), "")
    text = _of_type(values)
    if text is None:
        what = "ids are text, numbers, booleans or dates"
        raise UnreadableValue(0, f"is of type {kind}; {what}{advice_on(kind)}")
    return pc.fill_null(text, "")


def _of_type(values: pa.Array) -> pa.Array | None:
    kind, types = values.type, pa.types
    if types.is_null(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return values.cast(pa.string())
    if types.is_floating(kind):
        return _of_floats(values)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _of_text(values.cast(pa.string()))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return _of_bytes(values.cast(pa.binary()))
    if types.is_date(kind):
        days = values.cast(pa.date32(), safe=False)
        _require_year_of_four_digits(days.cast(pa.int32()), 1.0)
        return days.cast(pa.string())
    if types.is_timestamp(kind):
        return _from_distinct(values.dictionary_encode(), _of_time_stamps)
    if types.is_time(kind):
        return _without_zeros(values.cast(pa.string()), kind)
    if types.is_decimal(kind):
        return _from_distinct(
            values.dictionary_encode(),
            lambda distinct: pa.array(map(_digits, distinct.to_pylist()), pa.string()),
        )
    return None


def _from_distinct(encoded: pa.DictionaryArray, convert: Callable[[pa.Array], pa.Array]) -> Any:
    """Converts the distinct values of an array once."""
    try:
        return convert(encoded.dictionary).take(encoded.indices)
    except UnreadableValue as error:
        rows = np.flatnonzero(
            encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False) == error.row
        )
        if not len(rows):  # a category that no row has
            fine = encoded.dictionary.take(encoded.indices)
            return convert(fine)
        raise UnreadableValue(int(rows[0]), error.why) from error


def _of_floats(values: pa.Array) -> pa.Array:
    numbers = values.to_numpy(zero_copy_only=False)  # NaN in the place of nulls
    missing = np.isnan(numbers)
    wide = np.where(missing, 0, numbers).astype(np.float64)
    if np.all((np.trunc(wide) == wide) & (np.abs(wide) < 2.0**63)):
        return pa.array(wide.astype(np.int64), mask=missing).cast(pa.string())
    distinct, rows = np.unique(numbers, return_inverse=True)
    texts = pa.array([_of_float(number) for number in distinct], pa.string())
    return texts.take(pa.array(rows))


def _of_float(number: np.floating) -> str | None:
    if np.isnan(number):
        return None
    if np.isinf(number):
        return "inf" if number > 0 else "-inf"
    if np.trunc(number) == number:
        return str(int(number))
    return np.format_float_positional(number, unique=True, trim="-")


def _digits(number: Decimal) -> str:
    """A decimal in the form of `_of_float`; Arrow's are finite."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _of_bytes(values: pa.Array) -> pa.Array:
    try:
        return _of_text(values.cast(pa.string()))
    except pa.ArrowInvalid:
        raise _not_utf8(values) from None


def _not_utf8(values: pa.Array) -> UnreadableValue:
    for row, value in enumerate(values.cast(pa.binary())):
        try:
            (value.as_py() or b"").decode()
        except UnicodeDecodeError:
            return UnreadableValue(row, "is not UTF-8 text")
    return UnreadableValue(0, "or a value after it is not UTF-8 text")


def _of_text(values: pa.Array) -> pa.Array:
    try:
        trimmed = pc.utf8_trim_whitespace(values)
    except pa.ArrowInvalid:
        raise _not_utf8(values) from None
    if not pc.any(pc.match_substring_regex(trimmed, _MAY_CHANGE)).as_py():
        return trimmed
    return _from_distinct(
        trimmed.dictionary_encode(),
        lambda distinct: pa.array(map(_normal, distinct.to_pylist()), pa.string()),
    )


def _normal(text: str) -> str:
    """The one spelling of a number, a truth value or a time that a program wrote."""
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    if whole := _WHOLE.fullmatch(text):
        return "0" if whole[1] == "-0" else whole[1]
    if _EXPONENT.fullmatch(text):
        number = float(text)
        if np.isfinite(number) and Decimal(repr(number)) == Decimal(text):
            return _of_float(np.float64(number)) or ""
    if stamp := _TIME_STAMP.fullmatch(text):
        return _normal_time_stamp(stamp) or text
    if time := _TIME.fullmatch(text):
        return _with_fraction(*time.groups())
    return text


def _normal_time_stamp(stamp: re.Match[str]) -> str | None:
    """None where there is no such day or time."""
    day, minute, second, fraction, utc, sign, hours, minutes = stamp.groups()
    if fraction and not second:
        return None
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}{second or ':00'}")
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):
        return None
    text = _with_fraction(moment.isoformat(), fraction or "")
    return text + "Z" if utc or sign else text.removesuffix("T00:00:00")


def _with_fraction(text: str, fraction: str) -> str:
    fraction = fraction.rstrip("0")
    return f"{text}.{fraction}" if fraction else text


def _of_time_stamps(values: pa.Array) -> pa.Array:
    kind = values.type
    # What is stored are the ticks in UTC, or those of the clock where there is no zone.
    _require_year_of_four_digits(values.cast(pa.int64()), _TICKS[kind.unit])
    ticks = values.view(pa.timestamp(kind.unit))
    text = _without_zeros(pc.strftime(ticks, "%Y-%m-%dT%H:%M:%S"), kind)
    if kind.tz is not None:
        return pc.binary_join_element_wise(text, "Z", "")
    return pc.replace_substring_regex(text, "T00:00:00$", "")


def _require_year_of_four_digits(values: pa.Array, ticks: float) -> None:
    """Refuses a time that no calendar here has, given in ticks since 1970, so many each day."""
    days = values.fill_null(0).to_numpy(zero_copy_only=False) / ticks
    fine = (days >= _FIRST_DAY) & (days < _LAST_DAY + 1)
    if not fine.all():
        raise UnreadableValue(int(np.argmin(fine)), "is not a time of the years 1 to 9999")


def _without_zeros(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Times without the zeros at the end of the fraction that their unit has."""
    return text if kind.unit == "s" else pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def to_numbers(values: pa.Array) -> pa.Array:
    """The numbers that values are: float64 [row], null or NaN where they are missing.

    Args:
      values: Numbers, booleans, texts of numbers, or categories of these.

    Raises:
      UnreadableValue: A value is no number.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _from_distinct(values, to_numbers)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False)  # beyond 2^53 the nearest one
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.float64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _parsed(values.cast(pa.string()))
    raise UnreadableValue(0, f"is of type {kind}; give numbers{advice_on(kind)}")


def advice_on(kind: pa.DataType) -> str:
    """What can be done about a column of a type that is no single value; empty if it is one."""
    types = pa.types
    if types.is_struct(kind) or types.is_map(kind) or types.is_union(kind):
        return ", a column for each part"
    if types.is_nested(kind):
        return ", or name the column of lists under sets, sequences or vectors"
    if types.is_duration(kind) or types.is_interval(kind):
        return ", such as the number of seconds"
    if types.is_temporal(kind):
        return ", or name the column of times under time"
    return ""


def _parsed(texts: pa.Array) -> pa.Array:
    texts = pc.utf8_trim_whitespace(texts)
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        for row, text in enumerate(texts):
            try:
                text.cast(pa.float64())
            except pa.ArrowInvalid:
                raise UnreadableValue(row, "is not a number") from None
        raise


def fill_missing(values: pa.Array, value: float) -> pa.Array:
    """Floats with a number in the place of what is missing: null and NaN."""
    return pc.fill_null(pc.if_else(pc.is_nan(values), None, values), value)


def all_fit(numbers: np.ndarray) -> bool:
    """Whether `fits` holds for all numbers; makes no array."""
    most = np.finfo(np.float32).max
    return not numbers.size or bool(numbers.min() >= -most and numbers.max() <= most)


def fits(numbers: np.ndarray) -> np.ndarray:
    """Whether numbers are finite, also as the float32 that a model reads: bool, their shape."""
    return np.abs(numbers) <= np.finfo(np.float32).max
