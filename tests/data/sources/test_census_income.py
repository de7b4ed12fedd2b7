import gzip

import numpy as np
import pandas as pd
import pytest

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.census_income import (
    CATEGORICAL,
    COLUMNS,
    NUMERICAL,
    census_income_source,
)
from hyperrec_jax.errors import UserError

ROW = (
    "38, Private, 6, 36, 1st 2nd 3rd or 4th grade, 0, Not in universe, Never married, Retail, "
    "Sales, White, Mexican (Mexicano), Female, Not in universe, Not in universe, Full-time, 0, 0, "
    "0, Single, Not in universe, Not in universe, Spouse, Spouse, 1032.38, ?, ?, ?, Not in "
    "universe under 1 year old, ?, 4, Not in universe, Mexico, Mexico, Mexico, Foreign born, 0, "
    "Not in universe, 2, 12, 95, - 50000."
)


def _write(path, rows):
    text = "\n".join(rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_features_leak_no_label():
    assert len(COLUMNS) == 42
    assert len(NUMERICAL) == 7
    assert len(CATEGORICAL) == 32
    assert not {"income", "marital_status", "instance_weight"} & {*CATEGORICAL, *NUMERICAL}


@pytest.mark.slow
def test_real_data(real_data_dir, tmp_path):
    path = real_data_dir / "census_income_kdd.csv.gz"
    store = prepare_store(census_income_source(path), tmp_path / "census")
    data = pd.read_csv(path, header=None, names=COLUMNS, skipinitialspace=True, na_filter=False)
    order = np.random.default_rng(0).permutation(99_762)
    positions = {
        "train": order[:59_400],
        "validation": order[59_400:66_000],
        "test": order[66_000:],
    }
    for split, rows in positions.items():
        part = store.split(split)
        batch, expected = part.slice(0, len(part)), data.iloc[rows]
        assert len(part) == len(rows)
        labels = np.stack(
            [expected.income != "- 50000.", expected.marital_status == "Never married"], axis=1
        )
        np.testing.assert_array_equal(batch["labels"], labels)
        logs = np.log1p(data.iloc[positions["train"]][list(NUMERICAL)])
        numbers = (np.log1p(expected[list(NUMERICAL)]) - logs.mean()) / logs.std(ddof=0)
        np.testing.assert_allclose(batch["numerical"], numbers, rtol=1e-4, atol=1e-5)
        for i, name in enumerate(CATEGORICAL):
            known = np.array([None, *store.vocabulary(name).to_pylist()], object)
            decoded = known[batch["categorical"][:, i]]
            seen = decoded != None  # noqa: E711 (elementwise)
            np.testing.assert_array_equal(
                decoded[seen], expected[name].astype(str).str.strip()[seen]
            )
            assert seen.mean() > 0.99


def test_uci_release_keeps_its_split(tmp_path):
    ages = [ROW.replace("38", str(age), 1) for age in range(20, 40)]
    _write(tmp_path / "census-income.data.gz", ages)
    _write(tmp_path / "census-income.test", [ROW.replace("- 50000.", "50000+.")] * 3)
    store = prepare_store(census_income_source(tmp_path), tmp_path / "out")
    sizes = {name: len(store.split(name)) for name in ("train", "validation", "test")}
    assert sizes == {"train": 18, "validation": 2, "test": 3}
    assert store.split("test").slice(0, 3)["labels"].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("38", "old", 1), r"row 3, column 'age': 'old' is not a number"),
        (ROW.replace("38", "-1", 1), r"row 3, column 'age': -1.0 is negative"),
        (ROW.replace("- 50000.", "rich"), r"row 3, column 'income': ' rich' is neither"),
        (ROW.rsplit(",", 1)[0], r"row 3 has 41 columns instead of 42"),
    ],
)
def test_bad_rows(tmp_path, row, message):
    path = _write(tmp_path / "census.csv", [ROW, ROW, row, ROW])
    with pytest.raises(UserError, match=message):
        prepare_store(census_income_source(path), tmp_path / "out")


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"not here; download .*archive\.ics\.uci\.edu"):
        census_income_source(tmp_path)


def test_truncated_gzip(tmp_path):
    path = _write(tmp_path / "census.csv.gz", [ROW] * 500)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        UserError, match=r"census\.csv\.gz: truncated or damaged.*download it again"
    ):
        prepare_store(census_income_source(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
