"""Raw rows to arrays: as the store's own encoding, and what it says of rows that do not fit."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hyperrec_jax.data.schema import CategoricalField, NumericalField, Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import Preprocessor

SCHEMA = Schema(
    source="test",
    categorical=(CategoricalField("country", 3), CategoricalField("item", 4)),
    numerical=(NumericalField("price", True, 0.5, 2.0), NumericalField("age", mean=40.0)),
    tasks=("click", "buy"),
)
VOCABULARY = (pa.array(["at", "de"]), pa.array([7, 10, 12]))
ROWS = [
    {"country": "de", "item": 7, "price": 0.0, "age": 41, "other": None},
    {"country": " at", "item": 12, "price": 3.5, "age": 40.5, "other": "x"},
    {"country": "fr", "item": 8, "price": 1, "age": 0, "other": "x"},
    {"country": None, "item": None, "price": 1.0, "age": 1, "other": "x"},
]


@pytest.fixture(scope="module")
def preprocess():
    return Preprocessor(SCHEMA, VOCABULARY)


def test_ids_and_numbers(preprocess):
    encoded = preprocess(ROWS)
    np.testing.assert_array_equal(encoded.categorical, [[2, 1], [1, 3], [0, 0], [0, 0]])
    expected = [[(np.log1p(row["price"]) - 0.5) / 2, row["age"] - 40] for row in ROWS]
    np.testing.assert_allclose(encoded.numerical, expected, rtol=1e-6)
    assert encoded.numerical.dtype == np.float32


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame(ROWS, strict=False),
        pl.DataFrame(ROWS, strict=False).with_columns(pl.col("country").cast(pl.Categorical)),
        pd.DataFrame(ROWS),  # its item column is of floats, for the missing one
        pd.DataFrame(ROWS).astype({"country": "category"}),
        pa.Table.from_pylist(ROWS),
        pa.RecordBatch.from_pylist(ROWS),
        pa.Table.from_pylist(ROWS).cast(
            pa.schema(
                [
                    ("country", pa.large_string()),
                    ("item", pa.string()),
                    ("price", pa.string()),
                    ("age", pa.float32()),
                    ("other", pa.string()),
                ]
            )
        ),
    ],
    ids=["polars", "polars category", "pandas", "pandas category", "arrow", "batch", "text"],
)
def test_every_kind_of_frame_gives_the_same(preprocess, frame):
    from_frame, from_rows = preprocess(frame), preprocess(ROWS)
    np.testing.assert_array_equal(from_frame.categorical, from_rows.categorical)
    np.testing.assert_array_equal(from_frame.numerical, from_rows.numerical)


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_number_stands_for_a_gap(gap):
    price = NumericalField("price", True, 0.5, 2.0, missing=3.0)
    preprocess = Preprocessor(Schema("test", (), (price,), ("click",)), ())
    rows = [{"price": gap}, {"price": 3}, {"price": 0}]
    expected = (np.log1p([[3], [3], [0]]) - 0.5) / 2
    for given in (rows, pl.DataFrame(rows, strict=False), pd.DataFrame(rows), rows[:1]):
        numerical = preprocess(given).numerical
        np.testing.assert_allclose(numerical, expected[: len(given)], rtol=1e-6)
    with pytest.raises(UserError, match="row 1, column 'price': inf is not a finite number"):
        preprocess([{"price": float("inf")}])


def test_no_rows(preprocess):
    encoded = preprocess(pa.Table.from_pylist(ROWS).slice(0, 0))
    assert encoded.categorical.shape == (0, 2)
    assert encoded.numerical.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": None}, r"rows: row 2, column 'price': a missing value is no number"),
        ({"price": float("nan")}, "row 2, column 'price': nan is not a finite number"),
        ({"price": float("inf")}, "row 2, column 'price': inf is not a finite number"),
        ({"price": -1.0}, r"row 2, column 'price': -1.0 has no log\(1 \+ x\)"),
        ({"price": "dear"}, "row 2, column 'price': 'dear' is not of the type of the rows before"),
        ({"item": "x"}, "row 2, column 'item': 'x' is not of the type of the rows before"),
        ({"item": 1.5}, "row 2, column 'item': 1.5 is not an integer"),
        ({"item": 2**70}, "row 2, column 'item'"),
    ],
)
def test_a_bad_cell_is_named(preprocess, change, message):
    with pytest.raises(UserError, match=message):
        preprocess([ROWS[0], ROWS[1] | change])


def test_a_column_of_the_wrong_type_is_named(preprocess):
    frame = pl.DataFrame(ROWS[:2], strict=False)
    with pytest.raises(UserError, match="file: row 12, column 'price': 'dear' is not a number"):
        preprocess(frame.with_columns(price=pl.Series(["1", "dear"])), "file", 10)
    with pytest.raises(UserError, match="row 1, column 'item': 'a' is not an integer"):
        preprocess(frame.with_columns(item=pl.lit("a")))


def test_a_missing_column_is_named(preprocess):
    with pytest.raises(UserError, match="lack column 'item'; they have country, price"):
        preprocess(pa.Table.from_pylist(ROWS).drop_columns(["item", "other", "age"]))
    with pytest.raises(UserError, match="row 2 lacks column 'age'"):
        preprocess([ROWS[0], {k: v for k, v in ROWS[1].items() if k != "age"}])


@pytest.mark.parametrize("rows", [3, "text", [1, 2], None])
def test_what_is_no_table_is_refused(preprocess, rows):
    with pytest.raises(UserError, match="give a pandas or Polars frame"):
        preprocess(rows)


def test_the_store_is_encoded_the_same_way(small_store):
    """Against the other implementation: that which made the training rows."""
    import pyarrow.csv

    log = small_store.path.parent / "log.csv"
    raw = pyarrow.csv.read_csv(
        log, convert_options=pyarrow.csv.ConvertOptions(column_types={"item": pa.string()})
    )
    preprocess = Preprocessor.open(small_store.schema, small_store.path / "vocabulary.arrow")
    encoded = preprocess(raw)
    stored = [small_store.split(name) for name in ("train", "validation", "test")]
    batches = [split.slice(0, len(split)) for split in stored]
    ours = np.concatenate([encoded.categorical, encoded.numerical], axis=1)
    theirs = np.concatenate(
        [np.concatenate([batch["categorical"], batch["numerical"]], axis=1) for batch in batches]
    )
    assert len(ours) == len(theirs)
    order = [np.lexsort(matrix.T) for matrix in (ours, theirs)]
    np.testing.assert_allclose(ours[order[0]], theirs[order[1]], rtol=1e-6)
