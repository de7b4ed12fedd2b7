"""One text for a value: the table of the docs, and that all libraries agree on it."""

import datetime as dt
import io
import json
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.text import UnreadableValue, fits, to_numbers, to_text

UTC, EAST = dt.UTC, dt.timezone(dt.timedelta(hours=2))


def _texts(values):
    return to_text(values if isinstance(values, pa.Array) else pa.array(values)).to_pylist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2**60 + 1, None, -5], ["1", "1152921504606846977", "", "-5"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        ([7.0, None, 1e14, -0.0], ["7", "", "100000000000000", "0"]),
        ([1e19, 3.58, 1e-5, math.nan], ["10000000000000000000", "3.58", "0.00001", ""]),
        ([math.inf, -math.inf, 0.1 + 0.2], ["inf", "-inf", "0.30000000000000004"]),
        (pa.array([3.58, 7.0, 2.0**24], pa.float32()), ["3.58", "7", "16777216"]),
        (pa.array(np.array([3.58, 7], np.float16)), ["3.58", "7"]),
        ([True, False, None], ["true", "false", ""]),
        (["7", "7.0", "7.000", "007", "7.5", "7.50"], ["7", "7", "7", "007", "7.5", "7.50"]),
        (["1e3", "12e45", "0x1", "1_000", "+7"], ["1e3", "12e45", "0x1", "1_000", "+7"]),
        (["1e+16", "1.5e18", "1E-05", "-0.0"], ["1" + "0" * 16, "15" + "0" * 17, "0.00001", "0"]),
        (["1.50e+18", "1.5e400", "1e-400"], ["15" + "0" * 17, "1.5e400", "1e-400"]),
        (["True", "TRUE", "true", "FALSE", "t"], ["true", "true", "true", "false", "t"]),
        (["NaN", "nan", "NA", "null", " a\t"], ["", "nan", "NA", "null", "a"]),
        ([dt.date(2026, 1, 31)], ["2026-01-31"]),
        (pa.array([86_400_000], pa.date64()), ["1970-01-02"]),
        ([dt.datetime(2026, 1, 31), dt.datetime(2026, 1, 31, 12, 30)],
         ["2026-01-31", "2026-01-31T12:30:00"]),
        ([dt.datetime(2026, 1, 31, tzinfo=UTC)], ["2026-01-31T00:00:00Z"]),
        ([dt.datetime(2026, 1, 31, 1, tzinfo=EAST)], ["2026-01-30T23:00:00Z"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
        (["2026-01-31 00:00:00", "2026-01-31T12:30"], ["2026-01-31", "2026-01-31T12:30:00"]),
        (["2026-01-31 12:30:00.500000+02:00"], ["2026-01-31T10:30:00.5Z"]),
        (["2026-01-31T00:00:00+0000", "2026-01-31T00:00:00Z"], ["2026-01-31T00:00:00Z"] * 2),
        (["2026-02-31 10:00:00", "2026-1-1 10:00"], ["2026-02-31 10:00:00", "2026-1-1 10:00"]),
        (["0001-01-01 00:00:00+23:00"], ["0001-01-01 00:00:00+23:00"]),
        ([dt.time(12, 30), dt.time(1, 2, 3, 400_000)], ["12:30:00", "01:02:03.4"]),
        (["12:30:00.000", "01:02:03.400", "12:30"], ["12:30:00", "01:02:03.4", "12:30"]),
        ([Decimal("7.00"), Decimal("3.50"), None], ["7", "3.5", ""]),
        ([b" abc", None], ["abc", ""]),
        (pa.array([-719_162, 2_932_896], pa.date32()), ["0001-01-01", "9999-12-31"]),
        (pa.array([None, None]), ["", ""]),
        (pa.array([], pa.float64()), []),
        (pa.array(["b", "a", None, "b"]).dictionary_encode(), ["b", "a", "", "b"]),
        (pa.array([1.0, None]).dictionary_encode(), ["1", ""]),
    ],
)  # fmt: skip
def test_the_text_of_a_value(values, expected):
    assert _texts(values) == expected


@pytest.mark.parametrize(
    ("values", "row", "why"),
    [
        ([[1], [2]], 0, "is of type list<"),
        ([{"a": 1}], 0, "is of type struct<"),
        ([dt.timedelta(1)], 0, "is of type duration"),
        (pa.array([b"ab"], pa.binary(2)), 0, "is of type fixed_size_binary"),
        (pa.array([None, 2**30], pa.date32()), 1, "is not a time of the years 1 to 9999"),
        (pa.array([0, 2_932_897], pa.date32()), 1, "is not a time of the years 1 to 9999"),
        (pa.array([0, 2**55], pa.timestamp("s")), 1, "is not a time of the years 1 to 9999"),
        (pa.array([-(2**62)], pa.timestamp("ms")), 0, "is not a time of the years 1 to 9999"),
        ([b"a", b"\xff"], 1, "is not UTF-8 text"),
        (pa.array([b"a", b"b", b"\xff"]).dictionary_encode(), 2, "is not UTF-8 text"),
        (
            pa.StringArray.from_buffers(
                2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")
            ),
            1,
            "is not UTF-8 text",
        ),
    ],
)
def test_what_has_no_text(values, row, why):
    with pytest.raises(UnreadableValue) as caught:
        _texts(values)
    assert caught.value.row == row
    assert caught.value.why.startswith(why)


def test_an_unreadable_category_that_no_row_has_is_no_matter():
    values = pa.DictionaryArray.from_arrays(pa.array([1, 1, None]), pa.array([b"\xff", b"a"]))
    assert _texts(values) == ["a", "a", ""]


@given(st.lists(st.text(alphabet=" 0123456789.eE+-TrueFalsN:Z", max_size=12), max_size=20))
def test_a_text_is_its_own_text(values):
    once = to_text(pa.array(values, pa.string()))
    assert to_text(once).equals(once)


_TYPED = {
    "integers": st.integers(-(2**63), 2**63 - 1),
    "floats": st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70).map(float),
    "booleans": st.booleans(),
    "dates": st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1)),
    "time stamps": st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
    | st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1)).map(
        lambda day: dt.datetime(day.year, day.month, day.day)
    ),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8),
}


def _frames(values, library):
    """The same column in every form that `library` has for it."""
    if library == "arrow":
        plain = pa.array(values)
        yield plain
        yield plain.dictionary_encode()
        if pa.types.is_timestamp(plain.type):
            yield plain.cast(pa.timestamp("ns"))
    elif library == "polars":
        series = pl.Series("x", values, strict=True)
        yield pa.table(series.to_frame())["x"].combine_chunks()
        if series.dtype == pl.String:
            for kind in (pl.Categorical, pl.Enum(series.drop_nulls().unique())):
                yield pa.table(series.cast(kind).to_frame())["x"].combine_chunks()
        if series.dtype.is_integer() and not series.null_count():
            yield pa.table(series.cast(pl.String).to_frame())["x"].combine_chunks()
        if isinstance(series.dtype, pl.Datetime):
            yield pa.table(series.cast(pl.Datetime("ns")).to_frame())["x"].combine_chunks()
    else:
        series = pd.Series(values, dtype=object if None in values else None, name="x")
        yield pa.table(series.to_frame())["x"].combine_chunks()
        if len(series.dropna()):
            yield pa.table(series.astype("category").to_frame())["x"].combine_chunks()


@pytest.mark.parametrize("library", ["arrow", "polars", "pandas"])
@pytest.mark.parametrize("kind", _TYPED)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_all_libraries_agree(kind, library, data):
    values = data.draw(st.lists(_TYPED[kind] | st.none(), min_size=1, max_size=12))
    if all(value is None for value in values):
        values = [*values, data.draw(_TYPED[kind])]
    expected = _texts(values)
    for column in _frames(values, library):
        assert _texts(column) == expected, column.type


@pytest.mark.parametrize("writer", ["pandas", "polars", "arrow"])
@pytest.mark.parametrize("kind", ["integers", "whole floats", "booleans", "dates", "time stamps"])
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_csv_file_says_the_same(kind, writer, data):
    """What is read back as text, as CSV files are, has the text of the value that was written."""
    whole = st.integers(-(2**53), 2**53).map(float)
    values = data.draw(st.lists(_TYPED.get(kind, whole), min_size=1, max_size=8))
    file = io.BytesIO()
    if writer == "pandas":
        pd.DataFrame({"x": values}).to_csv(file, index=False)
    elif writer == "polars":
        pl.DataFrame({"x": values}).write_csv(file)
    else:
        pa_csv.write_csv(pa.table({"x": values}), file)
    lines = [line.strip('"') for line in file.getvalue().decode().splitlines()[1:]]
    if writer == "polars" and kind == "whole floats":
        # Polars writes 1e16 and more as a text that may be an id of its own.
        pairs = [
            (line, value) for line, value in zip(lines, values, strict=True) if abs(value) < 1e15
        ]
        lines, values = [line for line, _ in pairs], [value for _, value in pairs]
    assert _texts(pa.array(lines, pa.string())) == _texts(pa.array(values))


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=12))
@settings(deadline=None)
def test_floats_of_pandas_and_json_files_keep_their_text(values):
    file = io.StringIO()
    pd.DataFrame({"x": values}).to_csv(file, index=False)
    written = file.getvalue().splitlines()[1:]
    from_json = json.loads(json.dumps([value for value in values if math.isfinite(value)]))
    assert _texts(pa.array(written, pa.string())) == _texts(values)
    assert _texts(from_json) == _texts([value for value in values if math.isfinite(value)])
    for text, value in zip(_texts(values), values, strict=True):
        assert float(text) == value


@given(st.lists(st.integers(-(2**53), 2**53) | st.none(), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_gap_changes_no_integer(values):
    """pandas makes floats of a column of integers with gaps."""
    frame = pd.DataFrame({"x": pd.Series(values, dtype=float)})
    expected = ["" if value is None else str(value) for value in values]
    file = io.BytesIO()
    frame.to_parquet(file)
    for column in (pa.table(frame)["x"], pq.read_table(file)["x"]):
        assert _texts(column.combine_chunks()) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2**60 + 1], [1, None, float(2**60)]),
        ([True, False], [1, 0]),
        ([" 3.5", "1e3"], [3.5, 1000]),
        ([Decimal("1.25")], [1.25]),
        (pa.array([2.5, None]).dictionary_encode(), [2.5, None]),
        (pa.array(["2", None]).dictionary_encode(), [2, None]),
        (pa.array([None]), [None]),
    ],
)
def test_numbers(values, expected):
    array = values if isinstance(values, pa.Array) else pa.array(values)
    assert to_numbers(array).to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "row", "why"),
    [
        (["1", "two"], 1, "is not a number"),
        (["1", ""], 1, "is not a number"),
        ([[1.0]], 0, "is of type list<"),
        ([dt.date(2026, 1, 1)], 0, "is of type date32"),
        (pa.array(["1", "x", "1"]).dictionary_encode(), 1, "is not a number"),
    ],
)
def test_what_is_no_number(values, row, why):
    array = values if isinstance(values, pa.Array) else pa.array(values)
    with pytest.raises(UnreadableValue) as caught:
        to_numbers(array)
    assert caught.value.row == row
    assert caught.value.why.startswith(why)


def test_what_float32_can_hold():
    numbers = np.array([0, 3.4e38, -3.4e38, 3.5e38, 1e40, np.inf, -np.inf, np.nan])
    assert fits(numbers).tolist() == [True] * 3 + [False] * 5
    with np.errstate(over="ignore"):
        assert np.isfinite(numbers.astype(np.float32)).tolist() == fits(numbers).tolist()
