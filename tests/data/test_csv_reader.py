import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data import csv_reader
from hyperrec_jax.data.csv_reader import TextFile, read_csv
from hyperrec_jax.errors import UserError

TYPES = {"id": pa.int64(), "x": pa.float64(), "name": pa.string()}


def _text(content):
    content = content.encode() if isinstance(content, str) else content
    return TextFile("data.csv", len(content), lambda: io.BytesIO(content))


def _read(content, header=False, exact=True):
    chunks = list(read_csv(_text(content), TYPES, header, exact))
    return pa.Table.from_batches([chunk.batch for chunk in chunks])


@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(exclude_categories=["C", "Z"], codec="utf-8"), min_size=1),
        ),
        min_size=1,
    )
)
@settings(deadline=None)
def test_reads_what_the_csv_module_writes(rows):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    table = _read(text.getvalue())
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


def test_header_in_any_order():
    assert _read("name,x,id\na,1.5,3\n", header=True).to_pylist() == [
        {"id": 3, "x": 1.5, "name": "a"}
    ]


def test_extra_columns_where_they_are_allowed():
    assert _read("name,x,y,id\na,1,,3\n", header=True, exact=False).num_rows == 1


@pytest.mark.parametrize(
    ("content", "header", "message"),
    [
        ("", False, "is empty"),
        ("", True, "is empty"),
        ("id,x,name\n", True, "has no rows"),
        ("id,x\n1,2\n", True, "header lacks column 'name'; it has"),
        ("id,x,name,id\n1,2,a,4\n", True, "names column 'id' twice"),
        ("id,x,name,y\n1,2,a,4\n", True, "unexpected column 'y'"),
        ("1,2,a\n1,2\n", False, "row 2 has 2 columns instead of 3"),
        ("1,2,a\n1,2,a,b\n", False, "row 2 has 4 columns instead of 3"),
        ("1,2,a\n1,two,a\n", False, "row 2, column 'x': 'two' is not a number"),
        ("1,2,a\none,2,a\n", False, "row 2, column 'id': 'one' is not an integer"),
        ("1,2,a\n,2,a\n", False, "row 2, column 'id': an empty cell is missing"),
        ("1,2,a\n1,NaN,a\n", False, "row 2, column 'x': an empty cell is missing"),
        (b"1,2,a\n1,2,\xff\n", False, "row 2, column 'name': .* is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(content, header, message):
    with pytest.raises(UserError, match=f"^data.csv: .*{message}"):
        _read(content, header)


def test_rows_are_counted_over_blocks(monkeypatch):
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 1000)
    lines = ["1,2.5,abc"] * 5000
    lines[4321] = "1,bad,abc"
    with pytest.raises(UserError, match="row 4322, column 'x': 'bad'"):
        _read("\n".join(lines))
    lines[4321] = "1,,abc"
    with pytest.raises(UserError, match="row 4322, column 'x'"):
        _read("\n".join(lines))


def test_messages_are_one_short_line():
    with pytest.raises(UserError) as caught:
        _read('1,"a\nb' + "z" * 1000 + '",c\n')
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_carriage_return_within_the_header_is_told():
    with pytest.raises(UserError, match="lacks column 'name'; it has \\['id', 'x'\\]"):
        _read(b"id,x\rname\n1,2.5,abc\n", header=True)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_mutation_ends_well(data):
    content = bytearray(b'id,x,name\n1,2.5,abc\n2,-3e4,"d,e"\n3,0,f\n' * 1)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3)
        )
    try:
        table = _read(bytes(content), header=True)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert table.num_rows > 0
        assert not np.isnan(table["x"].to_numpy()).any()
    assert "\n" not in message
