"""Columns of every odd type: read as they are meant, or refused in one line; nothing is written."""

import datetime
import decimal
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hyperrec_jax.commands.prepare import main
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError

ROWS = 60
NOON = datetime.datetime(2026, 1, 31, 12)
DAY, HOUR = datetime.timedelta(days=1), datetime.timedelta(hours=1)


def _column(values, kind=None):
    return pa.array([values[row % len(values)] for row in range(ROWS)], kind)


COLUMNS = {
    "struct": _column([{"a": 1}, {"a": 2}]),
    "map": _column([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "nested": _column([[[1], [2]], [[3]]]),
    "structs": _column([[{"a": 1}]]),
    "pairs": _column([[1.5, 2.0], [3.0, 4.0]]),
    "fixed": _column([[1.5, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "nan": _column([[1.0, 2.0], [3.0, float("nan")]]),
    "infinite": _column([[1.0, 2.0], [3.0, float("-inf")]]),
    "gap": _column([[1.0, 2.0], [3.0, None]]),
    "large": _column([[1.0, 2.0], [1e300, 2.0]]),
    "ragged": _column([[1.0, 2.0], [3.0]]),
    "no list": _column([[1.0, 2.0], None]),
    "words": _column([["a", None], ["c"], None]),
    "bytes": _column([[b"a", b"\xff"]]),
    "durations": _column([[DAY, HOUR]]),
    "binary": _column([b"a", b"b"]),
    "no text": _column([b"a", b"\xff\xfe"]),
    "decimal": _column([decimal.Decimal("1.50"), decimal.Decimal("2.00")]),
    "duration": _column([DAY, HOUR]),
    "zoned": _column([NOON, NOON + HOUR], pa.timestamp("ms", "Europe/Madrid")),
    "category": _column([3, 5]).dictionary_encode(),
    "category gap": _column([3, None]).dictionary_encode(),
    "clock": _column([datetime.time(1, 2), datetime.time(3)]),
    "nothing": pa.nulls(ROWS),
}


def _use(kind, name):
    entry = {"name": name, "size": 2} if kind == "vectors" else name
    return {"files": {"train": "log.parquet"}, "labels": ["click"], kind: [entry]}


READ = [
    ("pairs", "sets", ["1.5", "2", "3", "4"]),
    ("words", "sets", ["a", "c"]),
    ("nan", "sets", ["1", "2", "3"]),
    ("gap", "sequences", ["1", "2", "3"]),
    ("no list", "sets", ["1", "2"]),
    ("nothing", "sets", []),
    ("binary", "categorical", ["a", "b"]),
    ("decimal", "categorical", ["1.5", "2"]),
    ("zoned", "categorical", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"]),
    ("category", "categorical", ["3", "5"]),
    ("category gap", "categorical", ["", "3"]),
    ("clock", "categorical", ["01:02:00", "03:00:00"]),
    ("nothing", "categorical", [""]),
]


@pytest.fixture
def prepared(tmp_path):
    def prepared(name, kind):
        table = pa.table({name: COLUMNS[name], "click": [row % 2 for row in range(ROWS)]})
        pq.write_table(table, tmp_path / "log.parquet")
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(_use(kind, name)))
        assert main(["csv", f"--input={path}", f"--output={tmp_path / 'out'}"]) == 0
        return Store.open(tmp_path / "out")

    return prepared


@pytest.mark.parametrize(("name", "kind", "values"), READ)
def test_values_are_the_texts_of_what_is_there(prepared, name, kind, values):
    assert prepared(name, kind).vocabulary(name).to_pylist() == values


@pytest.mark.parametrize("name", ["pairs", "fixed"])
def test_vectors_are_standardised(prepared, name):
    store = prepared(name, "vectors")
    train = store.split("train")
    values = train.slice(0, len(train))["vectors"]
    np.testing.assert_allclose(values.mean(0), [0, 0], atol=1e-5)
    np.testing.assert_allclose(values.std(0), [1, 1], atol=1e-5)


PARTS, LISTS = ", a column for each part", "or name the column of lists under sets"
REFUSED = [
    ("struct", "categorical", f"row 1, column 'struct': {{'a': 1}} is of type struct.*{PARTS}"),
    ("struct", "numerical", f"give numbers{PARTS}"),
    ("struct", "sets", f"give lists of values, or text with a separator{PARTS}"),
    ("struct", "vectors", f"give lists of values, or text with a separator{PARTS}"),
    ("struct", "time", f"times are ISO text, numbers or time stamps{PARTS}"),
    ("map", "categorical", f"is of type map.*{PARTS}"),
    ("map", "sequences", f"is of type map.*{PARTS}"),
    ("nested", "categorical", LISTS),
    ("nested", "sets", "can't be nested, give a column for each part"),
    ("nested", "vectors", "can't be nested, give a column for each part"),
    ("structs", "sequences", "can't be nested, give a column for each part"),
    ("pairs", "categorical", LISTS),
    ("pairs", "numerical", f"give numbers, {LISTS}"),
    ("nan", "vectors", r"row 2, column 'nan': \[3.0, nan\] has an element that is missing"),
    ("infinite", "vectors", r"row 2, .* \[3.0, -inf\] .* not a finite number \(-inf\)"),
    ("gap", "vectors", r"row 2, column 'gap': \[3.0, None\] has an element that is missing"),
    ("large", "vectors", "row 2, .* has an element that is too large"),
    ("ragged", "vectors", r"row 2, column 'ragged': \[3.0\] has 1 numbers instead of 2"),
    ("no list", "vectors", "row 2, column 'no list': an empty cell is missing; each row needs 2"),
    ("nothing", "vectors", "row 1, column 'nothing': an empty cell is missing"),
    ("words", "vectors", "row 3, column 'words': an empty cell is missing"),
    ("bytes", "sets", "has an element that is not UTF-8 text"),
    ("durations", "sets", "has an element that is of type duration.*the number of seconds"),
    ("no text", "categorical", r"row 2, column 'no text': b'\\xff\\xfe' is not UTF-8 text"),
    ("duration", "categorical", "is of type duration.*, such as the number of seconds"),
    ("duration", "numerical", "give numbers, such as the number of seconds"),
    ("zoned", "numerical", "give numbers, or name the column of times under time"),
    ("category gap", "numerical", "row 2, .* an empty cell is missing or not a number"),
    ("nothing", "numerical", "row 1, .* an empty cell is missing or not a number"),
    ("nothing", "time", "row 1, .* an empty cell is no time; every row needs one"),
]


@pytest.mark.parametrize(("name", "kind", "message"), REFUSED)
def test_the_rest_is_refused_in_one_line(prepared, tmp_path, name, kind, message):
    with pytest.raises(UserError, match=message) as refused:
        prepared(name, kind)
    assert "\n" not in str(refused.value)
    assert re.search(f"log.parquet: row [123], column {name!r}: ", str(refused.value))
    assert "correct it" in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "own.yaml"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 nan", r"row 7, column 'v': '1 nan' has an element that is missing or not a finite"),
        ("1", "row 7, column 'v': '1' has 1 numbers instead of 2"),
        ("1 x", "row 7, column 'v': '1 x' has an element that is not a number"),
        ("", "row 7, column 'v': an empty cell has 0 numbers instead of 2"),
        ("[1, 2]", r"row 7, column 'v': '\[1, 2\]' has an element that is not a number"),
    ],
)
def test_cells_of_text(tmp_path, cell, message):
    lines = [f"{'1 2' if row != 6 else cell!r},{row % 2}".replace("'", '"') for row in range(20)]
    lines = [line if '"' in line else f'"1 2",{row % 2}' for row, line in enumerate(lines)]
    (tmp_path / "log.csv").write_text("\n".join(["v,click", *lines]) + "\n")
    path = tmp_path / "own.yaml"
    path.write_text(
        'files: {train: log.csv}\nlabels: [click]\nvectors: [{name: v, size: 2, separator: " "}]\n'
    )
    with pytest.raises(UserError, match=message):
        main(["csv", f"--input={path}", f"--output={tmp_path / 'out'}"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "own.yaml"]
