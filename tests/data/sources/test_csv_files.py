import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.sources.description import SCHEMA_EXAMPLE
from hyperrec_jax.errors import UserError

DESCRIPTION = {
    "files": {"train": "train.csv", "test": "test.csv", "validation": "dev.csv"},
    "categorical": ["country", "item"],
    "numerical": ["age", {"name": "price", "log1p": True}, {"name": "score", "standardise": False}],
    "labels": ["click", "buy", "like"],
    "group": "session",
}


def _table(rows, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "unused": "x",
            "session": [f"s{i // 4}" for i in range(rows)],
            "country": rng.choice(["nl", "es", ""], rows),
            "item": rng.integers(0, 9, rows),
            "age": rng.integers(18, 90, rows),
            "price": rng.exponential(20, rows),
            "score": rng.normal(size=rows),
            **{name: rng.integers(0, 2, rows) for name in ("click", "buy", "like")},
        }
    )


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("train", "test", "dev")):
        _table(40 + 20 * i, seed=i).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def _prepare(folder, description, suffix="yaml"):
    path = folder / f"shop.{suffix}"
    path.write_text((yaml.safe_dump if suffix == "yaml" else json.dumps)(description))
    return prepare_store(csv_source(path), folder / "out")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_own_files(folder, suffix):
    store = _prepare(folder, DESCRIPTION, suffix)
    assert store.schema.source == "shop"
    assert store.schema.tasks == ("click", "buy", "like")
    assert store.vocabulary("country").to_pylist() == ["", "es", "nl"]
    tables = {"train": _table(40, 0), "test": _table(60, 1), "validation": _table(80, 2)}
    for split, table in tables.items():
        part = store.split(split)
        batch = part.slice(0, len(part))
        np.testing.assert_array_equal(batch["labels"], table[["click", "buy", "like"]])
        np.testing.assert_allclose(batch["numerical"][:, 2], table.score, rtol=1e-6)
        prices = np.log1p(tables["train"].price)
        expected = (np.log1p(table.price) - prices.mean()) / prices.std(ddof=0)
        np.testing.assert_allclose(batch["numerical"][:, 1], expected, rtol=1e-4, atol=1e-5)
        groups = part.groups(0, len(part))
        np.testing.assert_array_equal(
            groups[1:] == groups[:-1], table.session[1:].values == table.session[:-1].values
        )
        assert groups.min() >= 0


def test_one_task_no_group_no_numbers_and_no_other_splits(folder):
    description = {"files": {"train": "train.csv"}, "categorical": ["item"], "labels": ["click"]}
    store = _prepare(folder, description)
    assert store.schema.num_tasks == 1
    assert store.schema.group is None
    assert sum(len(store.split(s)) for s in ("train", "validation", "test")) == 40


def test_only_numbers(folder):
    store = _prepare(folder, {"files": {"train": "train.csv"}, "numerical": "age", "labels": "buy"})
    assert store.split("train").slice(0, 3)["categorical"].shape == (3, 0)


def test_csv_gzip_and_parquet_agree(folder):
    first = _prepare(folder, DESCRIPTION)
    _table(60, 1).to_parquet(folder / "test.parquet")
    (folder / "dev.csv.gz").write_bytes(gzip.compress((folder / "dev.csv").read_bytes()))
    _table(40).iloc[:15].to_csv(folder / "part-1.csv", index=False)
    _table(40).iloc[15:].to_parquet(folder / "part-2.parquet")
    files = {"train": "part-*", "test": "test.parquet", "validation": ["dev.csv.gz"]}
    assert _prepare(folder, DESCRIPTION | {"files": files}).fingerprint == first.fingerprint


def test_the_example_is_a_valid_description(tmp_path):
    files = yaml.safe_load(SCHEMA_EXAMPLE)["files"]
    columns = "country,item_id,age,price,score,rating,click,purchase,session_id"
    row = "nl,7,30,1.5,0.1,,1,0,s"
    for pattern in files.values():
        path = tmp_path / pattern.replace("*", "01")
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([columns, *[f"{row}{i}" for i in range(30)]]))
    (tmp_path / "shop.yaml").write_text(SCHEMA_EXAMPLE)
    store = prepare_store(csv_source(tmp_path / "shop.yaml"), tmp_path / "out")
    assert store.schema.source == "my_shop"
    assert store.schema.numerical[1].log1p


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_in_words_and_missing_numbers(folder, suffix):
    """The store is that of the same rows with 0 and 1, and with the number in every gap."""
    table = _table(40)
    plain = table.assign(age=table.age.astype(float))
    plain.loc[3:9, "age"] = -1
    words = plain.assign(
        click=np.where(plain.click == 1, "Yes", "no"),
        buy=plain.buy == 1,
        like=plain.like.astype(float),
        age=plain.age.replace(-1, np.nan),
    )
    assert words.age.isna().sum() == 7
    numerical = [{"name": "age", "missing": -1}, "score"]
    stores = []
    for name, rows in (("plain", plain), ("words", words)):
        path = folder / f"{name}.{suffix}"
        rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
        files = {"train": path.name}
        stores.append(_prepare(folder, DESCRIPTION | {"files": files, "numerical": numerical}))
    one, other = stores
    assert one.schema == other.schema
    assert one.schema.numerical[0].missing == -1
    assert one.fingerprint == other.fingerprint


def test_text_beside_a_gap_is_what_is_told(folder):
    path = folder / "train.csv"
    _table(40).assign(age=["", "old"] + ["7"] * 38).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"row 2, column 'age': 'old' is not a number; correct it"):
        _prepare(folder, DESCRIPTION | {"numerical": [{"name": "age", "missing": 0}]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ["click"]}, "unknown key 'label'; there are"),
        ({"labels": []}, "labels: at least one column"),
        ({"labels": ["click", "age"]}, "column 'age' is used twice"),
        ({"group": "click"}, "column 'click' is used twice"),
        ({"labels": ["clicked"]}, r"train\.csv: its header lacks column 'clicked'"),
        ({"files": {"test": "test.csv"}}, "must name at least the train files"),
        ({"files": {"train": "nothing-*.csv"}}, r"files: train: no file .*nothing-\*\.csv"),
        ({"files": {"train": "train.csv", "dev": "dev.csv"}}, "unknown split 'dev'"),
        ({"numerical": [{"name": "age", "log": True}]}, "unknown key of a numerical column 'log'"),
        (
            {"numerical": [{"name": "age", "log1p": "yes"}]},
            "log1p: 'yes' is neither true nor false",
        ),
        ({"separator": ";;"}, "separator: ';;' is not one character"),
        ({"separator": 3}, "separator: 3 is not one character"),
        ({"encoding": "utf-7000"}, "encoding: 'utf-7000' is not one"),
        ({"encoding": 8}, "encoding: 8 is not one"),
        ({"encoding": "base64"}, "encoding: 'base64' is not one"),
        ({"separator": ";"}, 'columns are separated by ","; add `separator'),
        ({"numerical": [{"name": "age", "missing": 1e40}]}, "missing: 1e\\+40 is not a number"),
        ({"categorical": [3]}, "categorical: 3 is not a name"),
        ({"numerical": [{"name": "age", "missing": "mean"}]}, "missing: 'mean' is not a number"),
        ({"test_fraction": 2}, "test_fraction: 2 is not a number between"),
        (
            {"numerical": [{"name": "score", "log1p": True}]},
            r"column 'score': .* has no log\(1 \+ x\)",
        ),
        ({"labels": ["item"]}, r"column 'item'"),
        ({"numerical": ["country"], "categorical": []}, r"row \d+, column 'country'"),
    ],
)
def test_bad_descriptions(folder, change, message):
    with pytest.raises(UserError, match=message) as caught:
        _prepare(folder, DESCRIPTION | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[1]", "a: [", "\x00", "- x", "&a [*a]", "!!python/object:os.x {}"]
)
def test_unreadable_descriptions(tmp_path, text):
    (tmp_path / "shop.yaml").write_text(text)
    with pytest.raises(UserError, match=r"shop\.yaml") as caught:
        csv_source(tmp_path / "shop.yaml")
    assert "\n" not in str(caught.value)


def test_missing_description(tmp_path):
    with pytest.raises(UserError, match="no such description file; see"):
        csv_source(tmp_path / "shop.yaml")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("click", 2, "row 1, column 'click': 2 is not a label"),
        ("click", 0.5, "row 1, column 'click': 0.5 is not a label"),
        ("age", np.nan, "row 1, column 'age': an empty cell is missing"),
        ("age", "old", "row 1, column 'age': 'old' is not a number"),
        ("age", np.inf, "row 1, column 'age': inf is not a finite number"),
    ],
)
def test_bad_parquet(folder, column, values, message):
    _table(40).assign(**{column: values}).to_parquet(folder / "train.parquet")
    with pytest.raises(UserError, match=rf"train\.parquet: .*{message}"):
        _prepare(folder, DESCRIPTION | {"files": {"train": "train.parquet"}})


@pytest.mark.parametrize(
    ("no", "yes"),
    [("N", "Y"), ("no", "Yes"), ("f", "T"), ("False", "TRUE"), ("0.00", "1.00"), (" 0", "1 ")],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "PARQUET", "CSV.GZ"])
def test_spellings_of_labels_and_of_endings(folder, no, yes, suffix):
    table = _table(40).assign(buy=lambda t: np.where(t.buy == 1, yes, no))
    path = folder / f"train.{suffix}"
    if suffix.lower() == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, compression="gzip" if "GZ" in suffix else None)
    store = _prepare(folder, DESCRIPTION | {"files": DESCRIPTION["files"] | {"train": path.name}})
    labels = store.split("train").slice(0, 40)["labels"]
    np.testing.assert_array_equal(labels, _table(40)[["click", "buy", "like"]])


@pytest.mark.parametrize(
    ("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), (",", "latin-1")]
)
def test_separator_and_encoding_of_the_description(folder, separator, encoding):
    first = _prepare(folder, DESCRIPTION)
    for name in ("train", "test", "dev"):
        table = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        table.to_csv(folder / f"{name}.csv", index=False, sep=separator, encoding=encoding)
    told = "\\t" if separator == "\t" else separator
    description = DESCRIPTION | {"separator": told, "encoding": encoding}
    assert _prepare(folder, description).fingerprint == first.fingerprint


def test_types_of_a_parquet_file_make_no_difference(folder):
    """Dates, categories, floats for integers: the store is that of the same values as text."""
    table = _table(40).assign(
        country=pd.Categorical(np.resize(["nl", "es"], 40)),
        item=np.resize([7.0, np.nan], 40),
        session=pd.to_datetime("2026-01-31") + pd.to_timedelta(np.arange(40) // 4, "h"),
    )
    table.to_parquet(folder / "train.parquet")
    table.astype(str).replace("nan", "").assign(
        session=table.session.map(str),
        item=np.resize(["7", ""], 40),
    ).to_csv(folder / "train.csv", index=False)
    splits = [{"train": f"train.{suffix}"} for suffix in ("parquet", "csv")]
    one, other = [_prepare(folder, DESCRIPTION | {"files": files}) for files in splits]
    assert one.fingerprint == other.fingerprint
    assert one.vocabulary("item").to_pylist() == ["", "7"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("item", [[1], [2]], r"row 1, column 'item': \[1\] is of type list<.*; ids are text"),
        ("item", [{"a": 1}, {"a": 2}], r"row 1, column 'item': \{'a': 1\} is of type struct<"),
        ("age", [[1], [2]], r"row 1, column 'age': \[1\] is of type list<.*; give numbers"),
        ("age", [{"a": 1}, {"a": 2}], r"row 1, column 'age': .* is of type struct<"),
        ("item", [b"a", b"\xff"], r"row 2, column 'item': b'\\xff' is not UTF-8 text"),
        ("age", [1.0, 1e40], r"row 2, column 'age': 1e\+40 is too large"),
        ("click", [[1], [0]], r"row 1, column 'click': \[1\] is of type list<"),
    ],
)
def test_what_a_parquet_column_may_not_be(folder, column, values, message):
    table = _table(40)
    table[column] = pd.Series([values[row % 2] for row in range(40)])
    table.to_parquet(folder / "train.parquet")
    with pytest.raises(UserError, match=rf"train\.parquet: {message}") as caught:
        _prepare(folder, DESCRIPTION | {"files": {"train": "train.parquet"}})
    assert "\n" not in str(caught.value)


def test_a_column_that_is_there_twice(folder):
    table = pa.Table.from_pandas(_table(40)).append_column("item", pa.array(range(40)))
    pq.write_table(table, folder / "train.parquet")
    with pytest.raises(UserError, match="has column 'item' twice"):
        _prepare(folder, DESCRIPTION | {"files": {"train": "train.parquet"}})


def test_damaged_parquet(folder):
    _table(40).to_parquet(folder / "train.parquet")
    content = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(content[:-30])
    with pytest.raises(UserError, match=r"train\.parquet: damaged or not a Parquet file"):
        _prepare(folder, DESCRIPTION | {"files": {"train": "train.parquet"}})
