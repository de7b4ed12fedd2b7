"""The id that `prepare` gave a value is the id that serving gives it, whatever frame or file."""

import datetime as dt
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperrec_jax import prepare
from hyperrec_jax.data.csv_reader import plain_file, read_csv
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import Preprocessor

ROWS = 24
DAYS = st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))
KINDS = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "gap": st.integers(-(2**53), 2**53) | st.none(),
    "float": st.sampled_from([7.0, 3.58, 1e14, 1e19, 1e300, 1e-5, 2.5, math.nan])
    | st.floats(allow_infinity=False),
    "flag": st.booleans(),
    "day": DAYS,
    "moment": st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
    | DAYS.map(lambda day: dt.datetime(day.year, day.month, day.day)),
    "zoned": st.datetimes(
        dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)
    ),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5)
    | st.sampled_from(["7", "7.0", "007", "True", "true", "NaN", "2026-01-31 00:00:00"])
    | st.none(),
}
FORMS = ("pandas", "polars", "polars categories", "arrow", "rows", "csv", "parquet")


def _columns(draw):
    """Few values in many rows, so that most are in training rows and some are not."""
    columns = {}
    for name, kind in KINDS.items():
        values = [*draw(st.lists(kind, min_size=4, max_size=4)), draw(kind.filter(bool))]
        columns[name] = [values[row * row % 5] for row in range(ROWS)]
    numbers = list(range(ROWS))
    return columns | {"row": [float(n) for n in numbers], "click": [n % 2 for n in numbers]}


def _frame(columns, form):
    if form in ("pandas", "csv"):
        return pd.DataFrame(columns)
    if form.startswith("polars"):
        frame = pl.DataFrame(columns, strict=False)
        if form == "polars categories":
            frame = frame.with_columns(pl.col("text").cast(pl.Categorical))
        return frame
    if form == "rows":
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return pa.table(columns)


def _prepared(columns, form, folder):
    frame = _frame(columns, form)
    if form not in ("csv", "parquet"):
        return prepare(
            frame, folder / "own", labels=["click"], categorical=list(KINDS), numerical=["row"]
        )
    if form == "csv":
        frame.to_csv(folder / "log.csv", index=False)
    else:
        pq.write_table(frame, folder / "log.parquet")
    path = folder / "own.yaml"
    path.write_text(
        f"files: {{train: log.{form}}}\ncategorical: [{', '.join(KINDS)}]\n"
        "numerical: [row]\nlabels: [click]\n"
    )
    return prepare_store(csv_source(path), folder / "store")


def _served(columns, form, preprocess, folder):
    frame = _frame(columns, form)
    if form == "csv":
        path = folder / "served.csv"
        frame.to_csv(path, index=False)
        types = preprocess.column_types()
        (chunk,) = read_csv(plain_file(path), types, header=True, exact=False)
        return preprocess(chunk.batch)
    if form == "parquet":
        pq.write_table(frame, folder / "served.parquet")
        return preprocess(pq.read_table(folder / "served.parquet"))
    return preprocess(frame)


@pytest.mark.filterwarnings("ignore:.*never saw", "ignore:.*alone tells")
@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(
    deadline=None, max_examples=12, suppress_health_check=list(HealthCheck)
)  # each example prepares a store
def test_prepare_and_serving_agree(form, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    columns = _columns(data.draw)
    store = _prepared(columns, form, folder)
    preprocess = Preprocessor.open(store.schema, store.path / "vocabulary.arrow")
    scale = store.schema.numerical[0]
    served = _served(columns, data.draw(st.sampled_from(FORMS)), preprocess, folder)
    seen = 0
    for name in ("train", "validation", "test"):
        split = store.split(name)
        batch = split.slice(0, len(split))
        rows = np.rint(batch["numerical"][:, 0] * scale.std + scale.mean).astype(int)
        np.testing.assert_array_equal(served.categorical[rows], batch["categorical"])
        assert tuple((batch["categorical"] == 0).sum(0)) == split.unseen
        seen += len(rows)
    assert seen == ROWS
    assert store.split("train").unseen == (0,) * len(KINDS)


@pytest.mark.parametrize(
    ("train", "test"),
    [("7", "7.0"), ("true", "True"), ("2026-01-31", "2026-01-31 00:00:00"), ("", "NaN")],
)
def test_the_spelling_of_another_program_is_the_same_id(train, test, tmp_path):
    for name, value in (("train", train), ("test", test)):
        lines = [f"{value},{row % 2}" for row in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,click", *lines]) + "\n")
    (tmp_path / "own.yaml").write_text(
        "files: {train: train.csv, test: test.csv}\ncategorical: [id]\nlabels: [click]\n"
    )
    store = prepare_store(csv_source(tmp_path / "own.yaml"), tmp_path / "store")
    assert store.split("test").unseen == (0,)
    assert store.vocabulary("id").to_pylist() == [train]


@pytest.mark.parametrize("missing", [None, math.nan, pd.NA, pd.NaT])
def test_pandas_signs_for_a_missing_value(missing, tmp_path):
    stamps = [pd.Timestamp("2026-01-31 12:00:00.000000001"), pd.Timestamp("2026-01-31")]
    frame = pd.DataFrame({"at": [*stamps, None] * 9, "click": [0, 0, 1] * 9})
    store = prepare(frame, tmp_path / "own", labels=["click"], categorical=["at"])
    preprocess = Preprocessor.open(store.schema, store.path / "vocabulary.arrow")
    expected = preprocess(frame.head(3)).categorical
    assert expected[:, 0].tolist() == [3, 2, 1]
    rows = [{"at": value} for value in [*stamps, missing]]
    np.testing.assert_array_equal(preprocess(rows).categorical, expected)
    np.testing.assert_array_equal(preprocess(rows[2:]).categorical, expected[2:])


def test_unseen_values_are_counted_by_field(small_store):
    preprocess = Preprocessor.open(small_store.schema, small_store.path / "vocabulary.arrow")
    row = {"country": "c1", "item": 3, "price": 1.0, "age": 0.0}
    encoded = preprocess([row, row | {"item": 1e300}, row | {"item": 99, "country": None}])
    assert encoded.unseen.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\ud800", "row 2, column 'country': .*surrogate"),
        ([1], "row 2, column 'country'"),
        pytest.param(1 << 70_000, "row 2, column 'country': a value of type int", id="endless"),
    ],
)
def test_a_value_without_a_text_is_told(small_store, value, message):
    preprocess = Preprocessor.open(small_store.schema, small_store.path / "vocabulary.arrow")
    row = {"country": "c1", "item": 3, "price": 1.0, "age": 0.0}
    with pytest.raises(UserError, match=message):
        preprocess([row, row | {"country": value}])
    with pytest.raises(UserError, match="row 1, column 'country'"):
        preprocess([row | {"country": value}])
