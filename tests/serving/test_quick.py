"""Encoding by look-ups: equal to the exact rules bit for bit, in results and in messages."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.hashing import bucket_of
from hyperrec_jax.data.schema import (
    CategoricalField,
    MultivaluedField,
    NumericalField,
    Schema,
    VectorField,
)
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import Preprocessor, quick
from hyperrec_jax.serving.decoding import decode_quickly, decode_request
from hyperrec_jax.serving.refusal import Refused

TEXTS = sorted(["", "7", "at", "de ", "true", "x y", "\u00e9", "3.58", "2026-01-31", "1e3"])
SCHEMA = Schema(
    source="test",
    categorical=(
        CategoricalField("country", len(TEXTS) + 1),
        CategoricalField("item", 6),
        CategoricalField("last", 6, shares="item"),
        CategoricalField("shop", 4),
        CategoricalField("user", 65, hashed=True),
    ),
    numerical=(
        NumericalField("price", True, 0.5, 2.0),
        NumericalField("age", mean=40.1, std=3.7, missing=38.5),
        NumericalField("stock", True, 1.3, 0.7, missing=0.0),
    ),
    tasks=("click", "buy"),
)
VOCABULARY = (
    pa.array(TEXTS),
    pa.array([-1, 0, 1, 7, 12]),
    pa.array(["a", "b", "c"]),
    pa.array([], "string"),
)
PREPROCESS = Preprocessor(SCHEMA, VOCABULARY)
ROW = {"country": "at", "item": 7, "last": 12, "shop": "c", "user": "5"}
ROW |= {"price": 2.5, "age": 1, "stock": 3}

PLAIN = {
    "country": st.sampled_from(TEXTS) | st.none() | st.text("ab1.e- TrueNN", max_size=5),
    "item": st.integers(-2, 13) | st.none(),
    "last": st.integers(-2, 13) | st.none(),
    "shop": st.sampled_from("abcd"),
    "user": st.sampled_from(TEXTS) | st.none() | st.text("ab1.e- TrueNN", max_size=5),
    "price": st.floats(0, 1e6) | st.integers(0, 1000),
    "age": st.floats(-50, 100) | st.none() | st.just(float("nan")),
    "stock": st.integers(0, 9) | st.none() | st.floats(-0.9, 3),
}
ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=4), st.integers(), st.floats(),
    st.sampled_from([
        2**53 + 1, 2**63, -(2**63), 2**64, 1 << 70_000, 1e39, -1.0, -1, "7", " at", "7.0", "True",
        "\ud800", b"at", [1], {"a": 1}, "NaN", "2026-01-31 00:00:00", "1e5", 7.0, "1\u00a0", "a\n",
        np.float64(1.5), np.int64(7), "", 1e300,
    ]),
)  # fmt: skip


@st.composite
def some_rows(draw):
    rows = draw(st.lists(st.fixed_dictionaries(PLAIN), min_size=1, max_size=4))
    for _ in range(draw(st.integers(0, 2))):
        row, column = draw(st.sampled_from(rows)), draw(st.sampled_from(list(PLAIN)))
        row[column] = draw(ODD)
    if draw(st.integers(0, 9)) == 0:
        rows[-1].pop(draw(st.sampled_from(list(PLAIN))))
    return rows


def outcome(encode, rows):
    try:
        encoded = encode(rows)
    except UserError as error:
        return str(error)
    assert encoded.categorical.dtype == np.int32
    assert encoded.numerical.dtype == np.float32
    return encoded.categorical.tolist(), encoded.numerical.view(np.int32).tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(some_rows(), st.booleans())
def test_look_ups_are_the_exact_rules(rows, as_columns):
    if as_columns:
        rows = {name: [row[name] for row in rows if name in row] for name in PLAIN}
        rows = {name: values for name, values in rows.items() if values}
    assert outcome(PREPROCESS, rows) == outcome(PREPROCESS.exact, rows)


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries(PLAIN), min_size=1, max_size=4))
def test_rows_and_columns_are_the_same(rows):
    columns = {name: [row[name] for row in rows] for name in PLAIN}
    assert outcome(PREPROCESS, rows) == outcome(PREPROCESS, columns)


def test_plain_rows_need_no_exact_rules(monkeypatch):
    monkeypatch.setattr(Preprocessor, "exact", lambda *_: pytest.fail("asked"))
    rows = [
        ROW | {"age": None},
        {"country": "unseen", "item": 99, "last": 0, "shop": "d", "user": "no one yet"}
        | {"price": 1, "age": 30, "stock": 0},
    ]
    encoded = PREPROCESS([row | {"more": [1]} for row in rows])
    at = TEXTS.index("at") + 1
    assert encoded.categorical.tolist() == [
        [at, 4, 5, 3, bucket_of("5", 64)],
        [0, 0, 2, 0, bucket_of("no one yet", 64)],
    ]
    np.testing.assert_allclose(encoded.numerical[:, 1], [(38.5 - 40.1) / 3.7, (30 - 40.1) / 3.7])


def test_a_field_of_many_values_has_no_table(monkeypatch):
    monkeypatch.setattr(quick, "LARGEST_TABLE", 4)
    small = Preprocessor(SCHEMA, VOCABULARY)
    assert small.quick._tables[:3] == [None, None, None]
    assert outcome(small.look_up, [ROW]) == outcome(PREPROCESS.exact, [ROW])


TAGS = MultivaluedField("tags", "set", 3, "mean", shares="shop", size=4)


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"multivalued": (TAGS,)}, {"tags": ["a", "d"]}),
        ({"vectors": (VectorField("picture", 2),)}, {"picture": [0.5, 1.0]}),
    ],
)
def test_lists_of_values_are_left_to_the_exact_rules(fields, given):
    preprocess = Preprocessor(dataclasses.replace(SCHEMA, **fields), VOCABULARY)
    row = ROW | given
    assert not preprocess.has_quick
    assert preprocess.look_up([row]) is None
    columns, lists = list(preprocess.column_types()), preprocess.several()
    several = {name: [value, value] for name, value in row.items()}
    for body in ({"rows": [row, row]}, {"columns": several}):
        rows, _ = decode_request(json.dumps(body).encode(), columns, 2, lists)
        encoded = preprocess(rows)
        assert encoded.categorical.tolist() == 2 * PREPROCESS([ROW]).categorical.tolist()
        for array in encoded.multivalued:
            assert array.tolist() == 2 * [[1, 0, -1]]
        for array in encoded.vectors:
            assert array.tolist() == 2 * [[0.5, 1.0]]
    odd = json.dumps({"columns": several | {lists[0]: [[1], [[2]]]}}).encode()
    with pytest.raises(Refused, match=r"row 2, column .* has an element that is neither"):
        decode_request(odd, columns, 2, lists)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.text(max_size=3),
    st.floats(allow_nan=False, allow_infinity=False), st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.dictionaries(st.sampled_from("abrows"), VALUES, max_size=3), max_size=3),
    VALUES,
    st.booleans(),
    st.booleans(),
)
def test_what_is_decoded_quickly_is_what_the_exact_decoder_says(rows, preference, ascii_only, cols):
    if cols:
        values = {"columns": {name: [row.get(name) for row in rows] for name in "ab"}}
    else:
        values = {"rows": rows}
    body = json.dumps(values | {"preference": preference}, ensure_ascii=ascii_only).encode()
    found = decode_quickly(body, 2)
    try:
        expected = decode_request(body, list("abrows"), 2)
    except Refused:
        return  # a value that is checked later, by Preprocessor.look_up
    if found is not None:
        assert json.loads(json.dumps(found), parse_int=float) == json.loads(
            json.dumps(expected), parse_int=float
        )


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [{"a": 1}], "rows": [{"a": 2}]}',
        b'{"rows": [{"a": 1}], "\\u0072ows": [{"a": 2}]}',
        b'{"rows": [{"a": 1}], "columns": {"a": [1]}}',
        b'{"rows": [{"a": NaN}]}',
        b'{"rows": []}',
        b'{"rows": [{"a": 1}, {"a": 1}, {"a": 1}]}',
        b'{"columns": {"a": 1}}',
        b'{"columns": {"a": [1, 2, 3]}}',
        b'{"rows": [{"a": 1}], "other": 1}',
        b'{"rows": [{"a": "\\ud800"}]}',
        b"[1]",
        b'{"rows": [{"a": ' + b" " * (1 << 20) + b"1}]}",
    ],
)
def test_what_is_odd_is_left_to_the_exact_decoder(body):
    assert decode_quickly(body, 2) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"columns": {"a": 1}}', "columns: a: 1 is not a list of values"),
        (b'{"columns": {"a": []}}', "columns: a: empty; give at least one row"),
        (b'{"columns": {"a": [1, 2, 3]}}', "columns: more than the 2 rows that a request may have"),
        (b'{"columns": {"a": [1, [2]]}}', r"row 2, column 'a': \[2\] is neither text nor a number"),
        (b'{"columns": [1]}', "the body must be"),
        (b'{"columns": {"a": [1]}, "rows": [{"a": 1}]}', "the body must be"),
    ],
)
def test_what_is_wrong_with_columns_is_told(body, message):
    with pytest.raises(Refused, match=message):
        decode_request(body, ["a"], 2)


def test_columns_are_refused_by_name():
    columns = {name: [value] * 2 for name, value in ROW.items()}
    with pytest.raises(UserError, match="lack column 'item'; they have country, last, shop"):
        PREPROCESS({name: values for name, values in columns.items() if name != "item"})
    with pytest.raises(UserError, match="column 'age' has 1 values, and column 'country' has 2"):
        PREPROCESS(columns | {"age": [1]})
    with pytest.raises(UserError, match="column 'age': give a list of values, not int"):
        PREPROCESS(columns | {"age": 1})
    with pytest.raises(UserError, match=r"row 2, column 'item': 1\.5 is not an integer"):
        PREPROCESS(columns | {"item": [7, 1.5]})
