"""The job from Python, and the example that does it on real data."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hyperrec_jax
from hyperrec_jax import fit, load, prepare
from hyperrec_jax.errors import UserError
from tests.conftest import ROOT, TINY_MODEL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frame(small_store):
    return pd.read_csv(small_store.path.parent / "log.csv")


@pytest.fixture(scope="module")
def columns():
    return {
        "categorical": ["country", "item"],
        "numerical": ["price", "age"],
        "log1p": ["price"],
        "labels": ["click", "buy"],
        "group": "session",
    }


def test_ten_lines_do_the_job(frame, columns, tmp_path, caplog):
    store = prepare(frame, tmp_path / "shop", **columns)
    model = fit(store, tmp_path / "run", TINY_MODEL | {"model.num_experts": 2})
    front = model.evaluate()
    model.plot(tmp_path / "front.png", front)
    assert (tmp_path / "front.png").stat().st_size > 10_000
    choice = model.suggest("best:buy")
    held = model.evaluate(split="validation")
    expected = hyperrec_jax.suggest_preference(held, "best:buy").preference
    np.testing.assert_array_equal(choice.preference, expected)
    scores = model.predict(frame, choice.preference)
    assert scores.shape == (len(frame), 2)
    model.export(tmp_path / "model")
    for other in (load(tmp_path / "run"), load(tmp_path / "model")):
        np.testing.assert_allclose(other.predict(frame, choice.preference), scores, atol=1e-6)
    assert repr(model) == f"Model(pomoe, goals click, buy, {tmp_path / 'run'})"
    assert not caplog.records  # a notebook shows warnings of the libraries below
    assert front.auc[:, 0].max() > 0.6
    assert np.corrcoef(scores[:, 1], frame["buy"])[0, 1] > 0.2


def test_a_frame_that_was_prepared_before_keeps_its_store(frame, columns, tmp_path):
    rows = frame.head(300)
    first = prepare(rows, tmp_path / "shop", **columns)
    written = (first.path / "train.arrow").stat().st_mtime_ns
    again = prepare(rows.copy(), tmp_path / "shop", **columns)
    assert again.fingerprint == first.fingerprint
    assert (again.path / "train.arrow").stat().st_mtime_ns == written
    other = prepare(rows.assign(age=rows["age"] + 1), tmp_path / "shop", **columns)
    assert (other.path / "train.arrow").stat().st_mtime_ns != written


def test_the_package_shows_its_names():
    names = {"Model", "fit", "load", "plot", "prepare", "suggest_preference"}
    assert names <= set(dir(hyperrec_jax))
    assert hyperrec_jax.Model.__name__ == "Model"


def test_a_list_of_dictionaries_with_gaps(frame, columns, tmp_path):
    rows = frame.head(200).to_dict("records")
    for row in rows[::3]:
        row |= {"age": None, "click": bool(row["click"])}
    with pytest.raises(UserError, match="rows: row 2, column 'click': 1 is not of"):
        prepare(rows, tmp_path / "shop", **columns)  # labels of two types
    for row in rows:
        row["click"] = bool(row["click"])
    store = prepare(rows, tmp_path / "shop", **columns, missing={"age": -1.0})
    assert store.schema.numerical[1].missing == -1
    assert sum(store.split(name).positives[0] for name in ("train", "validation", "test")) == sum(
        row["click"] for row in rows
    )


def test_a_frame_becomes_the_store_of_the_same_file(frame, columns, small_store, tmp_path):
    frame = frame.assign(price=pd.to_numeric(frame["price"]))
    store = prepare(pl.from_pandas(frame), tmp_path / "own", test_fraction=0.2, **columns)
    assert store.schema.field_sizes == small_store.schema.field_sizes
    for name in ("train", "validation", "test"):
        ours, theirs = store.split(name), small_store.split(name)
        assert len(ours) == len(theirs)
        for key, values in theirs.slice(0, len(theirs)).items():
            np.testing.assert_allclose(ours.slice(0, len(ours))[key], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["sale"]}, "lacks column 'sale'"),
        ({"log1p": ["cost"]}, "log1p: 'cost' is not among the numerical columns"),
        ({"missing": {"cost": 0}}, "missing: 'cost' is not among the numerical columns"),
        ({"labels": []}, "at least one column of 0 and 1"),
        ({"test_fraction": 1.5}, "test_fraction"),
    ],
)
def test_bad_columns_are_told(frame, columns, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        prepare(frame, tmp_path / "shop", **columns | change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"model.num_exprts": 3}}, "num_exprts"),
        ({"options": {"train.epochs": "many"}}, "epochs|many"),
        ({"preset": "best"}, "no preset 'best'; there are default, original"),
    ],
)
def test_bad_options_are_told(small_store, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        fit(small_store, tmp_path / "run", **arguments)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        hyperrec_jax.fitt  # noqa: B018


def test_the_census_example_runs(real_data_dir, tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            ROOT / "examples" / "census_income.py",
            real_data_dir / "census_income_kdd.csv.gz",
            "--rows=8000",
            f"--output={tmp_path}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "--preference" in result.stdout
    assert "never_married: weight" in result.stdout
    assert (tmp_path / "front.png").exists()


@pytest.mark.parametrize("key", ["train.epoch", "trian.epochs", "sede"])
def test_a_mistyped_option_is_told(small_store, tmp_path, key):
    with pytest.raises(UserError, match=f"no config key '{key}'"):
        fit(small_store, tmp_path / "run", {key: 3})
