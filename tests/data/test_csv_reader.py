import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data import csv_reader
from hyperrec_jax.data.csv_reader import Dialect, TextFile, read_csv
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


@settings(deadline=None, max_examples=60)
@given(
    cells=st.lists(st.text(alphabet='ab,"\n', max_size=12), min_size=20, max_size=60),
    block=st.integers(150, 400),
)
def test_quoted_line_breaks_wherever_a_block_ends(cells, block):
    text = io.StringIO()
    rows = [(number, number / 2, cell) for number, cell in enumerate(cells)]
    csv.writer(text, lineterminator="\n").writerows([("id", "x", "name"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_BLOCK_BYTES", block)
        table = _read(text.getvalue(), header=True)
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


def test_quoted_line_breaks_in_a_file_of_several_blocks():
    cell = '"' + "line\n" * 40 + '"'
    rows = 60_000
    lines = [f"{number},0.5,{cell}" for number in range(rows)]
    content = "\n".join(["id,x,name", *lines])
    assert len(content) > csv_reader._BLOCK_BYTES
    table = _read(content, header=True)
    assert table["id"].to_pylist() == list(range(rows))
    assert set(table["name"].to_pylist()) == {"line\n" * 40}


def test_a_quote_that_is_never_closed_is_told(monkeypatch):
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 1 << 20)
    rows = "".join(f"{number},0.5,abc\n" for number in range(400_000))
    with pytest.raises(UserError, match=r"row after row 0 .*a quote that is never closed"):
        _read('id,x,name\n1,2,"open\n' + rows, header=True)


@pytest.mark.parametrize("blank", ["\n", "\n\n", "\r\n"])
def test_blank_first_lines(blank):
    assert _read(f"{blank}id,x,name\n7,1,a\n", header=True).to_pylist() == [
        {"id": 7, "x": 1.0, "name": "a"}
    ]


def test_a_bad_number_in_the_first_column_behind_a_byte_order_mark():
    with pytest.raises(UserError, match="row 2, column 'id': 'two' is not an integer"):
        _read("\ufeffid,x,name\n1,2,a\ntwo,2,a\n", header=True)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_separators_and_encodings(separator, encoding):
    rows = [(1, 0.5, "é,\n"), (2, 1.5, "Straße")]
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([("id", "x", "name"), *rows])
    file = _text(text.getvalue().encode(encoding))
    chunks = list(read_csv(file, TYPES, header=True, dialect=Dialect(separator, encoding)))
    table = pa.Table.from_batches([chunk.batch for chunk in chunks])
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    bad = text.getvalue().replace("1.5", "bad").encode(encoding)
    with pytest.raises(UserError, match="row 2, column 'x': 'bad' is not a number"):
        list(read_csv(_text(bad), TYPES, header=True, dialect=Dialect(separator, encoding)))


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("id;x;name\n1;2;a\n", 'separated by ";"; add `separator: ";"` to the description'),
        ("id\tx\tname\n1\t2\ta\n", r'separated by "\\t"; add `separator: "\\t"` to the desc'),
        ('"id"|"x"|"name"\n1|2|a\n', r'separated by "\|"'),
        ("id,x,name\n1,2,a\n".encode("utf-16"), "is UTF-16 text; add `encoding: utf-16`"),
        (
            "id,x,namé\n1,2,a\n".encode("latin-1"),
            "is not utf-8 text; name the enc.* add `encoding",
        ),
        ("id,x,name\n1,2,é\n".encode("latin-1"), "row 1, column 'name': .* is not UTF-8 text"),
    ],
)
def test_another_separator_or_encoding_is_told(content, hint):
    with pytest.raises(UserError, match=hint) as caught:
        _read(content, header=True)
    assert "\n" not in str(caught.value)


def test_a_wrong_encoding_is_told():
    with pytest.raises(UserError, match="is not utf-16 text; name the encoding"):
        list(
            read_csv(
                _text("id,x,name\n1,2,a\n" * 9), TYPES, header=True, dialect=Dialect(",", "utf-16")
            )
        )
    late = ("id,x,name\n" + "1,2,a\n" * 5).encode() + b"1,2,\xff\n"
    with pytest.raises(UserError, match="is not ascii text"):
        list(read_csv(_text(late), TYPES, header=True, dialect=Dialect(",", "ascii")))


@pytest.mark.parametrize(
    ("value", "why"),
    [("1e40", "is too large; numbers are kept as float32"), ("inf", "is not a finite number")],
)
def test_numbers_beyond_float32_are_named(value, why):
    (chunk,) = read_csv(_text(f"1,2,a\n1,{value},a\n"), TYPES, header=False)
    with pytest.raises(UserError, match=f"^data.csv: row 2, column 'x': .* {why}"):
        chunk.numbers(["x"], np.float64)
