"""What is told about suspicious data, and what is not."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from hyperrec_jax.data.checks import (
    first_outside_funnel,
    unseen_in_store,
    unseen_warnings,
)
from hyperrec_jax.data.schema import (
    CategoricalField,
    MultivaluedField,
    NumericalField,
    Schema,
    VectorField,
)
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.store_writer import StoreWriter
from hyperrec_jax.evaluation.leaks import leak_warnings
from hyperrec_jax.evaluation.sanity import suspicions

SCHEMA = Schema(
    source="test",
    categorical=(CategoricalField("item", 40), CategoricalField("flag", 3)),
    numerical=(NumericalField("price"), NumericalField("paid")),
    tasks=("click", "buy", "return"),
)


@pytest.fixture
def write(tmp_path):
    def write(rows=1000, **change):
        rng = np.random.default_rng(0)
        click = rng.random(rows) < 0.5
        buy = click & (rng.random(rows) < 0.5)
        labels = np.stack([click, buy, buy & (rng.random(rows) < 0.5)], axis=1)
        columns = {
            "categorical": np.stack([rng.integers(1, 40, rows), rng.integers(1, 3, rows)], axis=1),
            "numerical": rng.normal(size=(rows, 2)).astype(np.float32),
            "labels": labels.astype(np.uint8),
        } | {key: value(labels) for key, value in change.items()}
        vocabulary = [pa.array(range(39)), pa.array(["x", "y"])]
        with StoreWriter(tmp_path / "store", SCHEMA, vocabulary) as writer:
            for part in np.array_split(np.arange(rows), 3):
                writer.append("train", {key: value[part] for key, value in columns.items()})
            test = {key: value[:10].copy() for key, value in columns.items()}
            test["categorical"][:3, 0] = 0
            test["categorical"][:1, 1] = 0
            writer.append("test", test)
        return Store.open(tmp_path / "store")

    return write


@pytest.mark.usefixtures("small_batches")
def test_the_store_counts_unseen_values_and_labels_that_come_together(write):
    store = write()
    assert store.split("train").unseen == (0, 0)
    assert store.split("validation").unseen == (0, 0)
    assert store.split("test").unseen == (3, 1)
    labels = store.split("train").slice(0, 1000)["labels"].astype(int)
    np.testing.assert_array_equal(store.split("train").both_positive, labels.T @ labels)
    assert store.split("train").positives == tuple(labels.sum(0))


def test_many_unseen_values_are_told(write):
    (line,) = unseen_in_store(write())
    assert "test split: field 'item': 30.0% of 10 rows" in line
    assert unseen_warnings(SCHEMA, (0, 0), 0, "rows") == []


def test_a_feature_that_is_a_label_is_told(write):
    assert leak_warnings(write()) == []

    def numbers(labels):
        return np.stack([np.arange(len(labels)) % 7, -3.0 * labels[:, 1]], axis=1)

    def ids(labels):
        return np.stack([np.arange(len(labels)) % 39 + 1, 2 - labels[:, 0]], axis=1)

    flag, paid = leak_warnings(write(numerical=numbers, categorical=ids))
    assert "column 'flag' alone tells label 'click' (AUC 1.0000" in flag
    assert "column 'paid' alone tells label 'buy' (AUC 1.0000" in paid


def _lists(rng, rows, cells):
    """Rows of a set of three values, padded, from a function of the row's number."""
    ids = np.full((rows, 3), -1)
    for row in range(rows):
        values = cells(row, rng)[:3]
        ids[row, : len(values)] = values
    return ids


LISTS = dataclasses.replace(
    SCHEMA,
    categorical=(),
    tasks=("click",),
    goals=(),
    multivalued=(
        MultivaluedField("tags", "set", 3, "mean", size=9),
        MultivaluedField("absent", "set", 3, "mean", size=9),
        MultivaluedField("bought", "set", 3, "mean", size=9),
        MultivaluedField("seen", "sequence", 3, "mean", size=9),
    ),
    vectors=(VectorField("picture", 3), VectorField("told", 2), VectorField("same", 2)),
)


@pytest.mark.parametrize("rows", [900, 20_000])
def test_lists_and_vectors_that_tell_a_label_are_told(tmp_path, rows):
    rng = np.random.default_rng(0)
    label = rng.random(rows) < 0.4
    plain = lambda row, rng: rng.integers(1, 9, rng.integers(0, 4))  # noqa: E731
    # One value is there where the label is; the list is empty where it is; neither.
    columns = [
        _lists(rng, rows, plain),
        _lists(rng, rows, lambda row, rng: [] if label[row] else rng.integers(1, 9, 2)),
        _lists(rng, rows, lambda row, rng: [*rng.integers(1, 8, 2), *([8] if label[row] else [])]),
        np.tile([3, 4, -1], (rows, 1)),
    ]
    vectors = rng.normal(size=(rows, 7)).astype(np.float32)
    vectors[:, 4] = 3 - 2.0 * label
    vectors[:, 5:] = 1
    batch = {
        "numerical": rng.normal(size=(rows, 2)).astype(np.float32),
        "labels": label[:, None].astype(np.uint8),
        "multivalued": np.concatenate(columns, axis=1),
        "vectors": vectors,
    }
    with StoreWriter(tmp_path / "store", LISTS, [pa.array(range(8))] * 4) as writer:
        writer.append("train", batch)
    store = Store.open(tmp_path / "store")
    told = [line.split("'")[1] for line in leak_warnings(store)]
    assert told == ["absent", "bought", "told"]
    constant = [line.split("'")[1] for line in _told(store, "same value")]
    assert constant == ["seen", "same"]


def test_a_value_for_each_row_is_no_leak(write, monkeypatch):
    """In the rows that they were counted on, unique values would tell every label."""

    def ids(labels):
        return np.stack([np.arange(len(labels)) % 39 + 1, np.ones(len(labels), int)], axis=1)

    assert leak_warnings(write(rows=70, categorical=ids)) == []


@pytest.mark.parametrize(
    ("order", "expected"), [((0, 1, 2), None), ((1, 0, 2), 1), ((0, 2, 1), 2), ((2, 1, 0), 1)]
)
def test_labels_in_another_order_than_a_funnel_are_found(write, order, expected):
    store = write(labels=lambda labels: labels[:, order].astype(np.uint8))
    assert first_outside_funnel(store.split("train")) == expected
    assert first_outside_funnel(store.split("validation")) is None


def _told(store, part):
    return [line for line in suspicions(store) if part in line]


def test_constant_columns_are_told(write):
    assert _told(write(), "same value") == []
    rows = np.arange(1000)
    numbers = np.stack([rows, np.ones(1000)], 1).astype(np.float32)
    (line,) = _told(write(numerical=lambda labels: numbers), "same value")
    assert "column 'paid' has the same value in all 1,000 training rows" in line
    late = np.ones((40_000, 2), np.float32)
    late[-1, 1] = 2  # not in the first record batch
    late[1, 0] = 2
    assert _told(write(rows=40_000, numerical=lambda labels: late), "same value") == []


def test_goals_with_few_positives_are_told(write):
    assert len(_told(write(), "mostly noise")) > 0  # ten test rows

    def labels(full):
        return np.stack([full[:, 0], np.arange(len(full)) < 3, full[:, 0]], 1).astype(np.uint8)

    (line,) = _told(write(labels=labels), "hardly be learnt")
    assert "train split: goal 'buy' has 3 positives in 1,000 rows" in line
    (line,) = _told(write(labels=lambda full: 1 - labels(full)), "hardly be learnt")
    assert "goal 'buy' has 3 negatives" in line


def test_empty_splits_are_told(write):
    (line,) = _told(write(), "has no rows")
    assert "the validation split" in line


def test_a_funnel_in_another_order_is_told(write):
    assert _told(write(), "of a funnel") == []
    (line,) = _told(write(labels=lambda labels: labels[:, ::-1].astype(np.uint8)), "of a funnel")
    assert "name them as return, buy, click" in line
    assert _told(write(labels=lambda labels: labels ^ (np.arange(3) == 1)), "of a funnel") == []
