"""Cells of several values: lists and text become the same lists, and these one matrix."""

import dataclasses
import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.multivalued import cut_to_length, padded, to_lists, to_vectors
from hyperrec_jax.data.text import UnreadableValue, to_text


@dataclasses.dataclass
class Field:
    kind: str
    length: int


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="|\0"), max_size=4)
ROWS = st.lists(st.lists(WORDS | st.none(), max_size=6) | st.none(), min_size=1, max_size=6)


def plainly(rows):
    """The texts of each row by a loop, without what is missing."""
    texts = [[to_text(pa.array([v], pa.string()))[0].as_py() for v in row or ()] for row in rows]
    return [[text for text in row if text] for row in texts]


@settings(deadline=None, max_examples=60)
@given(rows=ROWS)
def test_lists_of_any_library_and_text_are_the_same(rows):
    expected = plainly(rows)
    kind = pa.list_(pa.string())
    columns = [
        pa.array(rows, kind),
        pa.array([["x"], *rows], kind).slice(1),
        pa.array(rows, pa.list_view(pa.string())),
        pl.Series(rows, dtype=pl.List(pl.String)).to_arrow(),
        pl.Series(rows, dtype=pl.List(pl.Categorical)).to_arrow(),
        pa.array([None if row is None else "|".join(v or "" for v in row) for row in rows]),
    ]
    if any(rows):
        columns.append(pa.table(pd.DataFrame({"a": rows}))["a"].combine_chunks())
    for column in columns:
        assert to_lists(column, "|").to_pylist() == expected


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 99), max_size=7), min_size=1, max_size=5),
    kind=st.sampled_from(["set", "sequence"]),
    length=st.integers(1, 5),
    first=st.integers(0, 4),
)
def test_a_set_keeps_its_first_values_and_a_sequence_its_last(rows, kind, length, first):
    lists = to_lists(pa.array([[str(v) for v in row] for row in rows], pa.list_(pa.string())), None)
    first = min(first, len(rows) - 1)
    rows = rows[first:]
    values, lengths, cut = cut_to_length(lists.slice(first), Field(kind, length))
    kept = [row[:length] if kind == "set" else row[-length:] for row in rows]
    assert values.to_pylist() == [str(v) for row in kept for v in row]
    assert cut.tolist() == [len(row) > length for row in rows]
    matrix = padded(values.cast(pa.int64()).to_numpy(), lengths, length)
    assert matrix.tolist() == [row + [-1] * (length - len(row)) for row in kept]


def test_elements_have_the_one_text_of_a_value():
    assert to_lists(pa.array([[7.0, 3.58], [None]]), None).to_pylist() == [["7", "3.58"], []]
    assert to_lists(pa.array([" 7.0 | True|| x"]), "|").to_pylist() == [["7", "true", "x"]]
    assert to_lists(pa.array(["a b  c"]), " ").to_pylist() == [["a", "b", "c"]]
    assert to_lists(pa.array([None, None]), None).to_pylist() == [[], []]


@pytest.mark.parametrize(
    ("values", "row", "why"),
    [
        (pa.array(["", "a|b"]), 1, "it is not known what separates its values"),
        (pa.array([{"a": 1}]), 0, "is of type struct<a: int64>; give lists"),
        (pa.array([[["a"]]]), 0, "can't be nested"),
        (pa.array([[{"a": 1}]]), 0, "can't be nested"),
        (pa.array([5]), 0, "is of type int64; give lists"),
        (pa.array([[b"a"], [], [b"b", b"\xff"]]), 2, "has an element that is not UTF-8 text"),
    ],
)
def test_what_is_no_list_is_told_with_its_row(values, row, why):
    with pytest.raises(UnreadableValue) as told:
        to_lists(values, None)
    assert told.value.row == row
    assert why in told.value.why


def test_vectors_of_any_form():
    expected = [[1, 2.5], [-3, 0]]
    columns = [
        pa.array(expected, pa.list_(pa.float32())),
        pa.array([[9, 9], *expected], pa.list_(pa.float64(), 2)).slice(1),
        pl.Series(expected, dtype=pl.Array(pl.Float32, 2)).to_arrow(),
        pa.array(["1 2.5", "-3  0.0"]),
    ]
    for column in columns:
        assert to_vectors(column, 2, " ").tolist() == expected


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([[1.0, 2], [1.0]], "has 1 numbers instead of 2"),
        ([[1.0, 2], None], "is missing; each row needs 2 numbers"),
        ([[1.0, 2], [1.0, None]], "has an element that is missing or not a finite number"),
        ([[1.0, 2], [np.inf, 2]], "has an element that is missing or not a finite number"),
        ([[1.0, 2], [2.0, 1e39]], r"has an element that is too large; .* \(1e\+39\)"),
        (["1 2", "1 x"], "has an element that is not a number"),
    ],
)
def test_what_is_no_vector_is_told_with_its_row(values, why):
    with pytest.raises(UnreadableValue) as told:
        to_vectors(pa.array(values), 2, " ")
    assert told.value.row == 1
    assert re.search(why, told.value.why)
