"""Columns of times: one meaning in every form, in `prepare` and in serving; refusals."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperrec_jax import prepare
from hyperrec_jax.data.csv_reader import plain_file, read_csv
from hyperrec_jax.data.fresh import fresh_source, store_of_fresh
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.time_fields import DAY, age_days, hour_and_weekday
from hyperrec_jax.data.times import to_times
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import Preprocessor

ROWS = 60
NEWEST = dt.datetime(2026, 1, 31, 12, 30, tzinfo=dt.UTC)
STAMPS = [NEWEST - dt.timedelta(hours=7 * row) for row in range(ROWS)]
SPLIT = {"by": "time", "column": "ts", "test": "2d", "validation": "2d"}
EAST = dt.timezone(dt.timedelta(hours=9))
FORMS = {
    "text": lambda stamp: stamp.strftime("%Y-%m-%d %H:%M:%S"),
    "zoned text": lambda stamp: stamp.astimezone(EAST).isoformat(),
    "seconds": lambda stamp: int(stamp.timestamp()),
    "fractions": lambda stamp: stamp.timestamp(),
    "milliseconds": lambda stamp: int(stamp.timestamp()) * 1000,
    "numbers as text": lambda stamp: str(int(stamp.timestamp())),
    "zoned": lambda stamp: stamp,
    "naive": lambda stamp: stamp.replace(tzinfo=None),
}
FRAMES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "columns": dict,
    "rows": lambda columns: pa.table(columns).to_pylist(),
}


def _columns(form="text", stamps=STAMPS):
    rows = range(len(stamps))
    return {
        "ts": [FORMS[form](stamp) for stamp in stamps],
        "item": [f"i{row % 3}" for row in rows],
        "price": [float(row % 7) for row in rows],
        "click": [row * row % 5 % 2 for row in rows],
    }


def _expected(schema, stamps):
    """The fields by Python's own calendar: texts of the ids, and the age in days."""
    newest = dt.datetime.fromtimestamp(schema.times[0].newest / 1e6, dt.UTC)
    hours = [str(stamp.hour) for stamp in stamps]
    return (
        hours,
        [stamp.strftime("%A") for stamp in stamps],
        [(newest - stamp) / dt.timedelta(days=1) for stamp in stamps],
    )


def _texts(preprocess, ids, place):
    field = preprocess.schema.categorical[place]
    values = ["(new)", *preprocess.values_of(field).to_pylist()]
    return [values[i] for i in ids[:, place]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("times") / "own"
    return prepare(
        pd.DataFrame(_columns()),
        folder,
        labels=["click"],
        categorical=["item"],
        numerical=["price"],
        time=["ts"],
        split=SPLIT,
    )


@pytest.fixture(scope="module")
def preprocess(store):
    # As an artefact keeps it.
    schema = Schema.from_dict(json.loads(json.dumps(store.schema.to_dict())))
    return Preprocessor.open(schema, store.path / "vocabulary.arrow")


pytestmark = pytest.mark.filterwarnings("ignore:.*never saw", "ignore:.*positives")


@given(st.lists(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)), min_size=1))
def test_hours_weekdays_and_ages_are_those_of_the_calendar(stamps):
    times = to_times(pa.array(stamps, pa.timestamp("us")))
    hours, weekdays = hour_and_weekday(times)
    assert hours.to_pylist() == [str(stamp.hour) for stamp in stamps]
    assert weekdays.to_pylist() == [stamp.strftime("%A") for stamp in stamps]
    ages = [(stamps[0] - stamp) / dt.timedelta(days=1) for stamp in stamps]
    np.testing.assert_allclose(age_days(times, int(times[0])), ages, rtol=1e-12, atol=1e-9)


def test_the_store_has_the_derived_fields(store, preprocess):
    schema = store.schema
    assert [f.name for f in schema.categorical] == ["item", "ts_hour", "ts_weekday"]
    assert [f.name for f in schema.numerical] == ["price", "ts_age_days"]
    train = store.split("train")
    assert schema.times[0].newest == train.times[1]  # and not that of the test rows
    assert schema.times[0].newest <= (NEWEST.timestamp() - 4 * 86_400) * 1e6
    batch = train.slice(0, len(train))
    scale = schema.numerical[1]
    ages = batch["numerical"][:, 1].astype(float) * scale.std + scale.mean
    newest = dt.datetime.fromtimestamp(schema.times[0].newest / 1e6, dt.UTC)
    stamps = [stamp for stamp in STAMPS if stamp <= newest]
    hours, weekdays, expected = _expected(schema, stamps)
    assert sorted(_texts(preprocess, batch["categorical"], 1)) == sorted(hours)
    assert sorted(_texts(preprocess, batch["categorical"], 2)) == sorted(weekdays)
    np.testing.assert_allclose(sorted(ages), sorted(expected), atol=1e-4)
    np.testing.assert_allclose(
        [scale.mean, scale.std], [np.mean(expected), np.std(expected)], rtol=1e-9
    )


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("form", FORMS)
def test_serving_reads_every_form_alike(form, frame, preprocess):
    rows = FRAMES[frame](_columns(form))
    served = preprocess(rows)
    hours, weekdays, ages = _expected(preprocess.schema, STAMPS)
    known = preprocess.values_of(preprocess.schema.categorical[1]).to_pylist()
    assert _texts(preprocess, served.categorical, 1) == [
        hour if hour in known else "(new)" for hour in hours
    ]
    assert _texts(preprocess, served.categorical, 2) == weekdays
    scale = preprocess.schema.numerical[1]
    np.testing.assert_array_equal(
        served.numerical[:, 1],
        ((np.array(ages) - scale.mean) / scale.std).astype(np.float32),
    )


@pytest.mark.parametrize("form", ["text", "milliseconds", "zoned"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_are_prepared_and_served_as_frames_are(form, kind, tmp_path, store, preprocess):
    frame, path = pd.DataFrame(_columns(form)), tmp_path / f"log.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    described = tmp_path / "own.json"
    described.write_text(
        json.dumps(
            {
                "files": {"train": path.name},
                "categorical": ["item"],
                "numerical": ["price"],
                "labels": ["click"],
                "time": "ts",
                "split": SPLIT,
            }
        )
    )
    again = prepare_store(csv_source(described), tmp_path / "store")
    assert again.schema.times == store.schema.times
    for name in ("train", "validation", "test"):
        ours, theirs = again.split(name), store.split(name)
        for column, values in theirs.slice(0, len(theirs)).items():
            np.testing.assert_array_equal(ours.slice(0, len(ours))[column], values)
    if kind == "csv":
        types = preprocess.column_types()
        (chunk,) = read_csv(plain_file(path), types, header=True, exact=False)
        served = preprocess(chunk.batch)
    else:
        served = preprocess(pq.read_table(path))
    for source in (path, described):  # a fresh log, encoded by `evaluate` as serving does
        fresh = fresh_source(source, store.schema)
        folder = tmp_path / f"fresh of {source.name}"
        split = store_of_fresh(fresh, folder, store.schema, preprocess.vocabulary).split("test")
        batch = split.slice(0, len(split))
        np.testing.assert_array_equal(batch["categorical"], served.categorical)
        np.testing.assert_array_equal(batch["numerical"], served.numerical)


@pytest.mark.parametrize(
    ("change", "row", "told"),
    [
        ({2: None}, 3, "every row needs one"),
        ({4: 1_700_000_000_000}, 5, "counts milliseconds since 1970, the rows before it seconds"),
        ({1: 17}, 2, "is no time"),
    ],
)
def test_refusals_name_the_place_in_prepare_and_in_serving(change, row, told, preprocess, tmp_path):
    columns = _columns("seconds")
    for place, value in change.items():
        columns["ts"][place] = value
    with pytest.raises(UserError, match=rf"row {row}, column 'ts': .*{told}") as served:
        preprocess(pa.table(columns))
    with pytest.raises(UserError, match=rf"row {row}, column 'ts': .*{told}"):
        prepare(pa.table(columns), tmp_path / "own", labels=["click"], time=["ts"])
    assert not (tmp_path / "own").exists()
    assert str(next(iter(change.values())) or "missing") in str(served.value)


def test_text_beside_numbers_is_refused_where_it_stands(preprocess):
    columns = _columns("numbers as text")
    columns["ts"][6] = "soon"
    with pytest.raises(UserError, match=r"row 7, column 'ts': 'soon' is no number"):
        preprocess(columns)


@pytest.mark.parametrize(
    "columns",
    [{"numerical": ["ts"]}, {"categorical": ["ts_hour"]}, {"group": "ts"}],
)
def test_a_name_that_is_used_twice_is_refused(columns, tmp_path):
    frame = _columns() | {"ts_hour": ["7"] * ROWS}
    with pytest.raises(UserError, match="is used twice"):
        prepare(frame, tmp_path / "own", labels=["click"], time=["ts"], **columns)


def test_stores_without_times_say_nothing_of_them(tmp_path):
    made = prepare(_columns(), tmp_path / "own", labels=["click"], categorical=["item"])
    assert "times" not in made.schema.to_dict()
    assert json.loads((made.path / "schema.json").read_text())["version"] == 3


def test_a_time_alone_is_enough_and_a_lone_moment_has_no_scale(tmp_path):
    made = prepare(_columns(stamps=[NEWEST] * 40), tmp_path / "own", labels=["click"], time="ts")
    (age,) = made.schema.numerical
    assert (age.name, age.mean, age.std) == ("ts_age_days", 0.0, 1.0)
    assert made.schema.times[0].newest % DAY == (12 * 60 + 30) * 60 * 10**6
