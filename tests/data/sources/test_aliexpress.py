import json

import numpy as np
import pandas as pd
import pytest

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.aliexpress import CATEGORICAL, NUMERICAL, aliexpress_source
from hyperrec_jax.errors import UserError


def _prepare(folder, out):
    return prepare_store(aliexpress_source(folder, "us"), out)


@pytest.mark.parametrize("form", ["csv", "zip", "zips"])
def test_raw_and_processed_give_the_same_store(write_raw, write_processed, tmp_path, form):
    raw = _prepare(write_raw(tmp_path / "raw", form), tmp_path / "from_raw")
    processed = _prepare(write_processed(tmp_path / "processed"), tmp_path / "from_processed")
    assert raw.fingerprint == processed.fingerprint
    assert raw.schema == processed.schema
    for split in ("train", "validation", "test"):
        a, b = raw.split(split), processed.split(split)
        assert len(a) == len(b) > 0
        for name, column in a.slice(0, len(a)).items():
            np.testing.assert_array_equal(column, b.slice(0, len(b))[name])
    assert [path.name for path in tmp_path.iterdir() if "staging" in path.name] == []


def test_values_are_those_of_the_pandas_join(write_raw, write_processed, tmp_path):
    store = _prepare(write_raw(tmp_path / "raw"), tmp_path / "store")
    data = pd.read_csv(write_processed(tmp_path / "processed") / "test.csv")
    test = store.split("test")
    batch = test.slice(0, len(test))
    np.testing.assert_array_equal(test.groups(0, len(test)), data.search_id)
    np.testing.assert_array_equal(batch["labels"], data[["click", "conversion"]])
    np.testing.assert_array_equal(batch["numerical"], data[list(NUMERICAL)].astype(np.float32))
    for i, name in enumerate(CATEGORICAL):
        known = np.array([-1, *store.vocabulary(name).to_pylist()])
        np.testing.assert_array_equal(known[batch["categorical"][:, i]], data[name])


def test_the_zip_itself_as_input(write_raw, tmp_path):
    folder = write_raw(tmp_path / "raw", "zips")
    store = _prepare(folder / "aliexpress_US_datasets.zip", tmp_path / "a")
    assert store.fingerprint == _prepare(folder, tmp_path / "b").fingerprint


def test_items_without_a_user_are_dropped_and_counted(raw_tables, write_raw, tmp_path, capsys):
    raw_tables["user_test"] = raw_tables["user_test"].iloc[3:]
    kept = raw_tables["item_test"][1].isin(raw_tables["user_test"][1])
    store = _prepare(write_raw(tmp_path / "raw"), tmp_path / "store")
    split = store.split("test")
    np.testing.assert_array_equal(split.groups(0, len(split)), raw_tables["item_test"][1][kept])
    assert f"{(~kept).sum()} impressions dropped" in capsys.readouterr().err


def test_no_item_has_a_user(raw_tables, write_raw, tmp_path):
    raw_tables["user_test"][1] += 10_000
    with pytest.raises(UserError, match="the test split has no rows"):
        _prepare(write_raw(tmp_path / "raw"), tmp_path / "store")


def test_repeated_users(raw_tables, write_raw, tmp_path):
    raw_tables["user_train"].loc[7, 1] = raw_tables["user_train"].loc[2, 1]
    with pytest.raises(UserError, match=r"us_user_train\.csv: rows 3 and 8, .*same|both have"):
        _prepare(write_raw(tmp_path / "raw"), tmp_path / "store")


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        (
            "item_train",
            4,
            49,
            3,
            r"us_item_train\.csv: row 5, column 'column 49': 3 is not a label",
        ),
        ("item_test", 0, 19, -2, r"us_item_test\.csv: row 1, column 'column 19': -2 is negative"),
        ("user_train", 9, 2, -1, r"us_user_train\.csv: row 10, column 'column 2': -1 is negative"),
        ("item_train", 4, 3, "x7", r"row 5, column 'column 3': 'x7' is not a number; correct"),
        ("item_train", 4, 35, "1.5", r"row 5, column 'column 35': '1.5' is not an integer"),
        ("user_test", 1, 12, "nan", r"row 2, column 'column 12': an empty cell is missing"),
        ("user_test", 1, 12, "", r"row 2, column 'column 12': an empty cell is missing"),
        ("item_test", 2, 40, "", r"row 3, column 'column 40': an empty cell is missing"),
        ("item_test", 2, 5, "inf", r"row 3, column 'column 5': inf is not a finite number"),
        ("item_test", 2, 5, "1e60", r"row 3, column 'column 5': inf is not a finite number"),
        ("item_test", 2, 1, "99999999999999999999", r"row 3, column 'column 1': .* not an integer"),
    ],
)
def test_bad_cells(raw_tables, write_raw, tmp_path, table, row, column, value, message):
    raw_tables[table] = raw_tables[table].astype(object)
    raw_tables[table].loc[row, column] = value
    with pytest.raises(UserError, match=message) as caught:
        _prepare(write_raw(tmp_path / "raw"), tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("change", "columns"), [("drop", 48), ("add", 50)])
def test_missing_or_extra_column(raw_tables, write_raw, tmp_path, change, columns):
    item = raw_tables["item_train"]
    raw_tables["item_train"] = item.drop(columns=5) if change == "drop" else item.assign(extra=1)
    with pytest.raises(UserError, match=f"row 1 has {columns} columns instead of 49"):
        _prepare(write_raw(tmp_path / "raw"), tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.drop(columns="numerical_7"), "header lacks column 'numerical_7'"),
        (lambda data: data.assign(extra=1), "unexpected column 'extra'"),
        (lambda data: data.assign(click=2), "row 1, column 'click': 2 is not a label"),
        (lambda data: data.iloc[:0], "has no rows"),
    ],
)
def test_bad_processed_files(write_processed, tmp_path, change, message):
    path = write_processed(tmp_path / "processed") / "train.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(UserError, match=rf"train\.csv: .*{message}"):
        _prepare(tmp_path / "processed", tmp_path / "store")


def test_a_conversion_without_a_click_is_kept(write_processed, tmp_path):
    path = write_processed(tmp_path / "processed") / "test.csv"
    pd.read_csv(path).assign(click=0, conversion=1).to_csv(path, index=False)
    split = _prepare(tmp_path / "processed", tmp_path / "store").split("test")
    assert np.all(split.slice(0, len(split))["labels"] == [0, 1])


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_empty_file(write_processed, tmp_path, name):
    folder = write_processed(tmp_path / "processed")
    (folder / name).write_text("")
    with pytest.raises(UserError, match=rf"{name}: is empty"):
        _prepare(folder, tmp_path / "store")


def test_missing_folder(tmp_path):
    with pytest.raises(
        UserError,
        match=r"download aliexpress_US_datasets\.zip from https://tianchi.*into this folder",
    ):
        aliexpress_source(tmp_path / "nowhere", "us")


def test_missing_file(write_raw, tmp_path):
    folder = write_raw(tmp_path / "raw", "zip")
    (folder / "us_user_test.zip").unlink()
    with pytest.raises(UserError, match=r"us_user_test\.zip missing; download"):
        aliexpress_source(folder, "us")


def test_files_of_another_country(write_raw, tmp_path):
    with pytest.raises(UserError, match="no AliExpress files of country 'nl'"):
        aliexpress_source(write_raw(tmp_path / "raw"), "nl")


@pytest.mark.parametrize("form", ["zip", "zips"])
def test_truncated_zip(write_raw, tmp_path, form):
    folder = write_raw(tmp_path / "raw", form)
    path = folder / ("aliexpress_US_datasets.zip" if form == "zips" else "us_item_train.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{path.name}.*truncated or not a zip file.*download"):
        _prepare(folder, tmp_path / "store")


def test_damaged_zip(write_raw, tmp_path):
    path = write_raw(tmp_path / "raw", "zip") / "us_item_train.zip"
    content = bytearray(path.read_bytes())
    content[2000:2010] = b"\x55" * 10
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"us_item_train\.zip"):
        _prepare(tmp_path / "raw", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_interrupted_run_reuses_the_users(raw_tables, write_raw, tmp_path, monkeypatch):
    folder = write_raw(tmp_path / "raw", "zips")
    item = raw_tables["item_train"]
    source = aliexpress_source(folder, "us")
    monkeypatch.setattr(
        "hyperrec_jax.data.sources.aliexpress._join",
        lambda *a: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        prepare_store(source, tmp_path / "store")
    monkeypatch.undo()
    staging = tmp_path / "store.staging"
    assert {p.name for p in staging.glob("users_train/*")} >= {"searches.npy", "order.npy"}
    monkeypatch.setattr("hyperrec_jax.data.sources.aliexpress.read_csv", _refuse_users(monkeypatch))
    store = prepare_store(source, tmp_path / "store")
    rows = len(store.split("train")) + len(store.split("validation"))
    assert rows == len(item)
    assert not staging.exists()


def _refuse_users(monkeypatch):
    from hyperrec_jax.data.sources import aliexpress

    original = aliexpress.read_csv

    def read(text, types, header):
        assert "user_train" not in text.name
        return original(text, types, header)

    return read


def test_the_sample(real_data_dir, tmp_path):
    store = _prepare(real_data_dir / "aliexpress_sample", tmp_path / "store")
    data = pd.read_csv(real_data_dir / "aliexpress_sample" / "train.csv")
    assert len(store.split("train")) + len(store.split("validation")) == len(data)
    contents = json.loads((tmp_path / "store" / "schema.json").read_text())
    assert contents["schema"]["source"] == "aliexpress_us"
