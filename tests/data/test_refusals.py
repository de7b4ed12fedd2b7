"""What `prepare` refuses leaves the store, and all else that was there, as it was."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

import hyperrec_jax
from hyperrec_jax.commands.prepare import main
from hyperrec_jax.data import prepare
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError

DESCRIPTION = {
    "files": {"train": "log.csv"},
    "categorical": ["item"],
    "numerical": ["age"],
    "labels": ["click"],
    "group": "session",
}
ROWS = [f"{row % 5},{row},{row % 2},{row // 3}" for row in range(60)]
COLUMNS = {"labels": ["click"], "categorical": ["item"], "numerical": ["age"]}


def _contents(folder):
    """Every file below a folder."""
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _write_log(folder, lines=ROWS, header="item,age,click,session", **description):
    (folder / "log.csv").write_text("\n".join([header, *lines]) + "\n")
    (folder / "own.yaml").write_text(yaml.safe_dump(DESCRIPTION | description))


def _with(line, at=30):
    return [*ROWS[:at], line, *ROWS[at:]]


@pytest.fixture
def prepared(tmp_path):
    """A folder with a log, and a store of it in `out`."""
    _write_log(tmp_path)
    main(["csv", "--input", str(tmp_path / "own.yaml"), "--output", str(tmp_path / "out")])
    Store.open(tmp_path / "out")
    return tmp_path


CHANGES = {
    "bad number": {"lines": _with("1,old,0,1")},
    "missing number": {"lines": _with("1,,0,1")},
    "infinite number": {"lines": _with("1,inf,0,1")},
    "number beyond float32": {"lines": _with("1,1e40,0,1")},
    "bad label": {"lines": _with("1,2,maybe,1")},
    "missing label": {"lines": _with("1,2,,1")},
    "short row": {"lines": _with("1,2")},
    "long row": {"lines": _with("1,2,0,1,5")},
    "bad last row": {"lines": [*ROWS, "1,old,0,1"]},
    "no rows": {"lines": []},
    "missing column": {"header": "item,years,click,session"},
    "column twice": {"header": "item,age,click,click"},
    "another separator": {"header": "item;age;click;session"},
    "no labels": {"labels": []},
    "unknown key": {"label": ["click"]},
    "column for two uses": {"labels": ["age"]},
    "bad fraction": {"test_fraction": 2},
    "all rows set aside": {"lines": ["1,2,0,1"] * 9, "test_fraction": 0.999999},
    "no such file": {"files": {"train": "nothing.csv"}},
    "no file": {"files": {"train": "no-*.csv"}},
    "unknown encoding": {"encoding": "utf-7000"},
    "wrong encoding": {"encoding": "utf-16"},
    "bad separator": {"separator": "::"},
    "no log": {"numerical": [{"name": "age", "log1p": True}], "lines": _with("1,-2,0,1")},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_own_files(prepared, change):
    _write_log(prepared, **change)
    _refused(prepared, ["csv", "--input", str(prepared / "own.yaml")])


def _refused(folder, command):
    before = _contents(folder / "out")
    everything = _contents(folder).keys()
    with pytest.raises(UserError) as caught:
        main([*command, "--output", str(folder / "out")])
    assert "\n" not in str(caught.value)
    assert _contents(folder / "out") == before
    assert _contents(folder).keys() == everything


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", gzip.compress(b"item,age,click,session\n1,2,0,1\n" * 99)[:-9]],
    ids=["empty", "utf-16", "truncated"],
)
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.parquet"])
def test_damaged_files(prepared, content, name):
    (prepared / name).write_bytes(content)
    (prepared / "own.yaml").write_text(yaml.safe_dump(DESCRIPTION | {"files": {"train": name}}))
    _refused(prepared, ["csv", "--input", str(prepared / "own.yaml")])


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "&a [*a]"])
def test_unreadable_descriptions(prepared, text):
    (prepared / "own.yaml").write_text(text)
    _refused(prepared, ["csv", "--input", str(prepared / "own.yaml")])


@pytest.mark.parametrize(
    "command",
    [
        ["csv", "--input", "nowhere.yaml"],
        ["aliexpress", "--country", "us", "--input", "nowhere"],
        ["census-income", "--input", "nowhere"],
        ["complete-journey", "--input", "nowhere"],
        ["fairness", "--dataset", "credit"],
        ["fairness", "--dataset", "credit", "--input", "nowhere.csv"],
        ["synthetic", "--rows", "0"],
        ["synthetic", "--conflict", "2"],
        ["synthetic", "--conversion-rate", "0.9"],
        ["synthetic", "--rows", "100", "--test-rows", "10", "--validation-fraction", "1"],
    ],
)
def test_other_sources(prepared, command):
    _refused(prepared, command)


def test_a_bad_row_of_another_source(prepared):
    (prepared / "census.csv").write_text("38, Private\n" * 3)
    _refused(prepared, ["census-income", "--input", str(prepared / "census.csv")])
    for split in ("train", "test"):
        (prepared / f"{split}.csv").write_text("search_id,click\n1,1\n")
    _refused(prepared, ["aliexpress", "--country", "us", "--input", str(prepared)])


def test_another_process(prepared, monkeypatch):
    _write_log(prepared, lines=ROWS[:-3])
    command = ["csv", "--input", str(prepared / "own.yaml")]
    survey = prepare.survey_of

    def meanwhile(*arguments):
        _refused(prepared, command)
        return survey(*arguments)

    monkeypatch.setattr(prepare, "survey_of", meanwhile)
    assert main([*command, "--output", str(prepared / "out")]) == 0


def _frame():
    rows = np.arange(60)
    return pd.DataFrame({"item": rows % 5, "age": rows * 1.0, "click": rows % 2})


def _replaced(column, value):
    return _frame().assign(**{column: pd.Series([value] * 60, dtype=object)})


FRAMES = {
    "a list": (_replaced("item", [1]), COLUMNS, r"the frame: row 1, column 'item': \[1\] is of"),
    "a dictionary": (_replaced("item", {"a": 1}), COLUMNS, "row 1, column 'item'"),
    "a column twice": (
        pd.concat([_frame(), _frame()[["item"]]], axis=1),
        COLUMNS,
        "no table .*item",
    ),
    "a far date": (
        pa.table({"item": pa.array([2**30], pa.date32()), "age": [1.0], "click": [0]}),
        COLUMNS,
        "row 1, column 'item': a value of type date32.* is not a time of the years 1 to 9999",
    ),
    "a lone surrogate": (_replaced("item", "\ud800"), COLUMNS, "no table .*surrogates"),
    "a surrogate in rows": ([{"item": "\ud800", "age": 1, "click": 0}], COLUMNS, "row 1, column"),
    "two types": (
        [{"item": 1, "age": 1, "click": 0}, {"item": "x", "age": 1, "click": 0}],
        COLUMNS,
        "row 2, column 'item': 'x' is not of the type",
    ),
    "a large number": (_frame().assign(age=1e40), COLUMNS, r"row 1, column 'age': 1e\+40 is too"),
    "an infinite one": (_frame().assign(age=np.inf), COLUMNS, "inf is not a finite number"),
    "a missing one": (_frame().assign(age=np.nan), COLUMNS, "row 1, column 'age': an empty cell"),
    "a bad label": (_frame().assign(click=2), COLUMNS, "column 'click': '2' is not a label"),
    "no such column": (_frame(), COLUMNS | {"labels": ["buy"]}, "the frame: lacks column 'buy'"),
    "no rows": (_frame().head(0), COLUMNS, "the frame: has no rows"),
    "no labels": (_frame(), COLUMNS | {"labels": []}, "at least one column of 0 and 1"),
    "a bad fraction": (_frame(), COLUMNS | {"validation_fraction": 2}, "validation fraction"),
    "no frame": (7, COLUMNS, "give a pandas or Polars frame"),
}


@pytest.mark.parametrize(("frame", "columns", "message"), FRAMES.values(), ids=FRAMES)
def test_frames(frame, columns, message, tmp_path):
    hyperrec_jax.prepare(_frame().assign(age=np.arange(60) % 7), tmp_path / "own", **COLUMNS)
    before = _contents(tmp_path)
    for folder in ("own", "new"):
        with pytest.raises(UserError, match=message) as caught:
            hyperrec_jax.prepare(frame, tmp_path / folder, **columns)
        assert "\n" not in str(caught.value)
    assert _contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_the_same_frame_keeps_its_store(tmp_path):
    store = hyperrec_jax.prepare(_frame(), tmp_path / "own", **COLUMNS)
    made = (store.path / "train.arrow").stat().st_mtime_ns
    again = hyperrec_jax.prepare(_frame(), tmp_path / "own", **COLUMNS)
    assert (again.path / "train.arrow").stat().st_mtime_ns == made
    other = hyperrec_jax.prepare(_frame().assign(age=1.0), tmp_path / "own", **COLUMNS)
    assert other.fingerprint != store.fingerprint
    description = json.loads((tmp_path / "own" / "description.json").read_text())
    assert description["files"] == {"train": "rows.parquet"}
    # What is kept beside the store makes the same one.
    arguments = ["csv", "--input", str(tmp_path / "own" / "description.json")]
    main([*arguments, "--output", str(tmp_path / "out")])
    assert Store.open(tmp_path / "out").fingerprint == other.fingerprint
