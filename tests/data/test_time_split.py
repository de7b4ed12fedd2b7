"""Splits by time, and that no split moves with the share of another, however rows are split."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperrec_jax import prepare
from hyperrec_jax.commands.prepare import summary
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.time_split import Cuts, TimeSplit
from hyperrec_jax.errors import UserError

DAY = 86_400_000_000


def _cuts(times, test, validation, groups=None, chunk=7):
    split = TimeSplit.parse(
        {"by": "time", "column": "ts", "test": test, "validation": validation}, "here"
    )

    def chunks():
        for start in range(0, len(times), chunk):
            part = slice(start, start + chunk)
            yield times[part], None if groups is None else groups[part]

    return Cuts(split, {"test": 0.1, "validation": 0.1}, chunks)


@given(
    st.lists(st.integers(-(10**15), 10**15), min_size=2, max_size=60, unique=True),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_shares_of_the_newest_rows(times, test, validation):
    times = np.array(times)
    masks = _cuts(times, test / 10, validation / 10).masks(times, None)
    order = np.sort(times)
    rows = len(times)
    first_test = int(np.floor(rows * (1 - test / 10) + 1e-6))
    np.testing.assert_array_equal(np.sort(times[masks["test"]]), order[first_test:])
    held = masks["test"].sum() + masks["validation"].sum()
    assert rows * (test + validation) / 10 <= held + 1e-6
    assert held <= rows * (test + validation) / 10 + 2
    train = ~masks["test"] & ~masks["validation"]
    if train.any():
        assert times[train].max() < times[masks["validation"]].min()


@given(st.sampled_from([0.1, 0.3, "2d", "2026-01-20"]), st.sampled_from([0.05, 0.2, "1d", "5d"]))
def test_the_test_split_does_not_move_with_validation(test, validation):
    times = np.random.default_rng(0).integers(20_454 * DAY, 20_484 * DAY, 500)  # January 2026
    ours = _cuts(times, test, validation).masks(times, None)
    other = _cuts(times, test, None).masks(times, None)
    np.testing.assert_array_equal(ours["test"], other["test"])
    assert ours["test"].any()
    assert not np.any(ours["test"] & ours["validation"])


def test_durations_and_dates():
    times = np.arange(30) * DAY + 20_454 * DAY  # the days of January 2026, from the first on
    masks = _cuts(times, "7d", "1w").masks(times, None)
    np.testing.assert_array_equal(np.flatnonzero(masks["test"]), np.arange(23, 30))
    np.testing.assert_array_equal(np.flatnonzero(masks["validation"]), np.arange(16, 23))
    masks = _cuts(times, "2026-01-25", "2026-01-20T00:00:00Z").masks(times, None)
    np.testing.assert_array_equal(np.flatnonzero(masks["test"]), np.arange(24, 30))
    np.testing.assert_array_equal(np.flatnonzero(masks["validation"]), np.arange(19, 24))


def test_a_group_goes_where_its_newest_row_is():
    times = np.arange(100) * DAY
    groups = np.arange(100) // 2
    groups[0] = groups[99]
    masks = _cuts(times, 0.1, 0.1, groups).masks(times, groups)
    assert masks["test"][0]
    for mask in masks.values():
        assert all(len(set(mask[groups == group])) == 1 for group in set(groups))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("time", "write {by: time"),
        ({"by": "group"}, "write {by: time"),
        ({"by": "time"}, "column: None is not a name"),
        ({"by": "time", "column": "ts", "tests": 1}, "unknown key 'tests'"),
        ({"by": "time", "column": "ts", "unit": "years"}, "there are ns, us, ms"),
        ({"by": "time", "column": "ts", "test": 1.5}, "neither a duration"),
        ({"by": "time", "column": "ts", "test": "7 days"}, "neither a duration"),
        (
            {"by": "time", "column": "ts", "test": "2026-01-01", "validation": "2026-02-01"},
            "it lies before",
        ),
    ],
)
def test_malformed_splits_are_refused(split, message):
    with pytest.raises(UserError, match=message):
        TimeSplit.parse(split, "here")


def _write(folder, split, rows=300, times=None, extra=""):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "item": rng.integers(0, 9, rows),
            "x": np.arange(rows),
            "click": rng.integers(0, 2, rows),
            "session": np.arange(rows) // 3,
            "ts": 1_767_225_600 + 3600 * np.arange(rows) if times is None else times,
        }
    )
    frame.to_csv(folder / "log.csv", index=False)
    path = folder / "own.yaml"
    path.write_text(
        "files: {train: log.csv}\ncategorical: [item]\nnumerical: [{name: x, standardise: false}]\n"
        f"labels: [click]\n{split}\n{extra}"
    )
    return path


def _rows(store, name):
    return set(store.split(name).slice(0, len(store.split(name)))["numerical"][:, 0].astype(int))


@pytest.mark.parametrize(
    "split",
    [
        "test_fraction: 0.2",
        "test_fraction: 0.2\ngroup: session",
        "split: {by: time, column: ts, test: 0.2}",
        "split: {by: time, column: ts, test: 2d}\ngroup: session",
        "split: {by: time, column: ts, test: 2026-01-10}",
    ],
)
def test_no_split_moves_with_the_share_of_validation(tmp_path, split):
    source = csv_source(_write(tmp_path, split))
    stores = [prepare_store(source, tmp_path / str(share), share) for share in (0.1, 0.3)]
    test, validation = (_rows(stores[0], name) for name in ("test", "validation"))
    assert test == _rows(stores[1], "test")
    assert validation < _rows(stores[1], "validation")


def test_the_table_tells_the_times_of_the_splits(tmp_path):
    path = _write(tmp_path, "split: {by: time, column: ts, test: 2d, validation: 1d}")
    store = prepare_store(csv_source(path), tmp_path / "store")
    assert (len(store.split("test")), len(store.split("validation"))) == (48, 24)
    lines = summary(store).splitlines()
    assert "test: from 2026-01-11 12:00:00 to 2026-01-13 11:00:00 (UTC)" in lines
    assert "validation: from 2026-01-10 12:00:00 to 2026-01-11 11:00:00 (UTC)" in lines


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("split: {by: time, column: ts, test: 2027-01-01}", "the test split gets no row by its"),
        ("split: {by: time, column: ts, test: 900d}", "no training rows are left"),
        (
            "split: {by: time, column: ts, test: 2d}\ntest_fraction: 0.1",
            "has both test_fraction and split: test",
        ),
        ("split: {by: time, column: when, test: 2d}", "lacks column 'when'"),
    ],
)
def test_a_split_that_cannot_be_leaves_the_store_as_it_was(tmp_path, split, message):
    prepare_store(csv_source(_write(tmp_path, "")), tmp_path / "store")
    before = {path: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    with pytest.raises(UserError, match=message):
        prepare_store(csv_source(_write(tmp_path, split)), tmp_path / "store")
    assert before == {path: path.read_bytes() for path in (tmp_path / "store").iterdir()}


def test_an_unreadable_time_is_refused_with_its_row(tmp_path):
    times = np.array(["2026-01-01"] * 299 + ["yesterday"])
    path = _write(tmp_path, "split: {by: time, column: ts, test: 0.1}", times=times)
    place = re.escape(f"{tmp_path / 'log.csv'}: row 300, column 'ts': 'yesterday' is no time")
    with pytest.raises(UserError, match=place):
        prepare_store(csv_source(path), tmp_path / "store")


def test_a_frame_is_split_by_time(tmp_path):
    frame = pd.DataFrame(
        {
            "item": ["a", "b"] * 50,
            "click": [0, 1] * 50,
            "ts": pd.date_range("2026-01-01", periods=100, freq="h"),
        }
    )
    store = prepare(
        frame,
        tmp_path / "data",
        labels=["click"],
        categorical=["item"],
        split={"by": "time", "column": "ts", "test": "10h", "validation": 0.2},
    )
    assert [len(store.split(name)) for name in ("train", "validation", "test")] == [70, 20, 10]
