import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from hyperrec_jax.data.encode import ValueEncoder
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.source import NumericalColumn, Rows, Source
from hyperrec_jax.data.staging import set_aside
from hyperrec_jax.errors import UserError


def _rows(start, stop):
    index = np.arange(start, stop)
    return Rows(
        categorical=(pa.array(index // 7), pa.array([f"v{i // 5}" for i in index])),
        numerical=np.stack([index**1.5, index % 11.0, np.full(len(index), 4.0)], axis=1),
        labels=np.stack([index % 2, index % 3 == 0], axis=1).astype(np.uint8),
        groups=index // 10,
    )


@pytest.fixture
def source():
    def chunks(start, stop):
        return lambda staging: (_rows(i, min(i + 33, stop)) for i in range(start, stop, 33))

    return Source(
        name="counted",
        categorical=("number", "text"),
        numerical=(
            NumericalColumn("log", log1p=True, standardise=True),
            NumericalColumn("raw"),
            NumericalColumn("constant", standardise=True),
        ),
        tasks=("odd", "third"),
        group="ten",
        splits={"train": chunks(0, 1000), "test": chunks(900, 1400)},
        identity="1",
    )


def _all(split):
    return split.slice(0, len(split))


def _train_rows(store):
    """Row numbers of the training split, told by the untransformed group."""
    validation = set_aside(np.arange(1000) // 10, {"validation": 0.2})["validation"]
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def test_vocabulary_is_of_the_training_rows_alone(source, tmp_path):
    store = prepare_store(source, tmp_path / "out", 0.2)
    train, validation = _train_rows(store)
    assert len(store.split("train")) == len(train)
    assert 100 < len(validation) < 300
    for i, (name, values) in enumerate(
        {
            "number": np.arange(1400) // 7,
            "text": np.array([f"v{i // 5}" for i in range(1400)]),
        }.items()
    ):
        known = sorted(set(values[train].tolist()))
        assert store.vocabulary(name).to_pylist() == known
        assert store.schema.categorical[i].size == len(known) + 1
        ids = {value: position + 1 for position, value in enumerate(known)}
        for split, rows in (
            ("train", train),
            ("validation", validation),
            ("test", np.arange(900, 1400)),
        ):
            expected = [ids.get(value, 0) for value in values[rows].tolist()]
            np.testing.assert_array_equal(_all(store.split(split))["categorical"][:, i], expected)
        assert 0 in _all(store.split("validation"))["categorical"][:, i]
        assert 0 not in _all(store.split("train"))["categorical"][:, i]


def test_numbers_are_standardised_on_the_training_rows(source, tmp_path):
    store = prepare_store(source, tmp_path / "out", 0.2)
    train, _ = _train_rows(store)
    index = np.arange(1400)
    scaler = StandardScaler().fit(np.log1p(index[train, None] ** 1.5))
    for split, rows in (("train", train), ("test", index[900:])):
        numerical = _all(store.split(split))["numerical"]
        expected = scaler.transform(np.log1p(index[rows, None] ** 1.5))[:, 0]
        np.testing.assert_allclose(numerical[:, 0], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(numerical[:, 1], rows % 11)
        np.testing.assert_array_equal(numerical[:, 2], 0)
    log, raw, constant = store.schema.numerical
    np.testing.assert_allclose([log.mean, log.std], [scaler.mean_[0], scaler.scale_[0]])
    assert (raw.mean, raw.std) == (0, 1)
    assert (constant.mean, constant.std) == (4, 1)


def _numbers_source(train, test):
    def read(values):
        labels = (np.arange(len(values))[:, None] % 2).astype(np.uint8)
        return lambda staging: iter([Rows((), np.array(values, float)[:, None], labels)])

    column = NumericalColumn("x", standardise=True)
    splits = {"train": read(train), "test": read(test)}
    return Source("numbers", (), (column,), ("click",), None, splits, "")


@pytest.mark.parametrize(
    ("train", "std"),
    [
        ([3.7] * 1000, 1.0),
        ([3.7, 3.7 + 1e-9] * 500, 1.0),  # less than float32 tells apart
        ([0.0] * 1000, 1.0),
        ([1e-300] * 1000, 1.0),
        ([1.7e9, 1.7e9 + 3600] * 500, 1800.0),  # two time stamps an hour apart
        ([1e-9, 3e-9] * 500, 1e-9),
    ],
)
def test_a_constant_column_is_not_scaled_up(train, std, tmp_path):
    store = prepare_store(_numbers_source(train, [3.8]), tmp_path / "out", 0.0)
    assert store.schema.numerical[0].std == pytest.approx(std)
    expected = (3.8 - np.mean(train)) / std
    assert _all(store.split("test"))["numerical"][0, 0] == pytest.approx(expected, rel=1e-6)


def test_a_number_that_scaling_takes_out_of_float32_is_told(tmp_path):
    source = _numbers_source([1e-30, 3e-30] * 500, [2e-30, 1e20])
    with pytest.raises(UserError, match=r"test rows: row 2, column 'x': 1e\+20 is too large"):
        prepare_store(source, tmp_path / "out", 0.0)


def test_rows_stay_aligned_and_groups_whole(source, tmp_path):
    store = prepare_store(source, tmp_path / "out", 0.2)
    groups = {}
    for split in ("train", "validation"):
        part = store.split(split)
        groups[split] = part.groups(0, len(part))
        assert np.all(np.bincount(groups[split])[np.unique(groups[split])] == 10)
    assert not set(groups["train"]) & set(groups["validation"])
    test = store.split("test")
    np.testing.assert_array_equal(test.groups(0, 500), np.arange(900, 1400) // 10)
    np.testing.assert_array_equal(_all(test)["labels"][:, 0], np.arange(900, 1400) % 2)


def test_finished_stages_are_reused(source, tmp_path):
    calls = []

    def counted(name):
        def read(staging):
            calls.append(name)
            yield from source.splits[name](staging)
            if calls.count("test") == 1 and name == "test":
                raise KeyboardInterrupt

        return read

    interrupted = dataclasses.replace(source, splits={n: counted(n) for n in ("train", "test")})
    with pytest.raises(KeyboardInterrupt):
        prepare_store(interrupted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store = prepare_store(interrupted, tmp_path / "out")
    assert calls == ["train", "test", "test"]
    assert store.fingerprint == prepare_store(source, tmp_path / "other").fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out"]
    prepare_store(interrupted, tmp_path / "out")
    assert calls == ["train", "test", "test"]


def test_a_changed_input_is_read_again(source, tmp_path):
    first = prepare_store(source, tmp_path / "out")
    changed = dataclasses.replace(
        source, identity="2", splits=source.splits | {"train": source.splits["test"]}
    )
    assert prepare_store(changed, tmp_path / "out").fingerprint != first.fingerprint


def test_an_older_store_is_replaced(source, tmp_path):
    first = prepare_store(source, tmp_path / "out")
    path = tmp_path / "out" / "schema.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    assert prepare_store(source, tmp_path / "out").fingerprint == first.fingerprint


def test_a_source_without_test_rows_sets_some_aside(source, tmp_path):
    source = dataclasses.replace(
        source, splits={"train": source.splits["train"]}, test_fraction=0.3
    )
    store = prepare_store(source, tmp_path / "out", 0.1)
    rows = {split: len(store.split(split)) for split in ("train", "validation", "test")}
    assert sum(rows.values()) == 1000
    assert 200 < rows["test"] < 450
    assert 30 < rows["validation"] < 200


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_impossible_fractions(source, tmp_path, fraction):
    with pytest.raises(UserError, match="validation fraction"):
        prepare_store(source, tmp_path / "out", fraction)


def test_no_rows_left_to_train(source, tmp_path):
    one_group = dataclasses.replace(
        source, splits=source.splits | {"train": lambda staging: iter([_rows(0, 10)])}
    )
    with pytest.raises(UserError, match="no training rows are left"):
        prepare_store(one_group, tmp_path / "out", 0.999999)


def test_set_aside_is_a_stable_fair_choice():
    units = np.arange(100_000)
    chosen = set_aside(units, {"validation": 0.1, "test": 0.2})
    assert abs(chosen["validation"].mean() - 0.1) < 0.005
    assert abs(chosen["test"].mean() - 0.2) < 0.005
    assert not np.any(chosen["validation"] & chosen["test"])
    # The choice for a group does not depend on which others there are.
    part = set_aside(units[500:700], {"validation": 0.1, "test": 0.2})
    np.testing.assert_array_equal(part["test"], chosen["test"][500:700])


@given(
    st.sets(st.one_of(st.integers(-(2**63), 2**63 - 1)), max_size=30),
    st.lists(st.integers(-5, 5), max_size=30),
)
def test_encoder_of_integers(known, values):
    vocabulary = sorted(known)
    encode = ValueEncoder(pa.array(vocabulary, pa.int64()))
    expected = [vocabulary.index(v) + 1 if v in known else 0 for v in [*values, *vocabulary]]
    assert encode(pa.array([*values, *vocabulary], pa.int64())).tolist() == expected


@given(st.sets(st.text(max_size=4), max_size=30), st.lists(st.text(max_size=2), max_size=30))
def test_encoder_of_text(known, values):
    vocabulary = pa.array(known, pa.string()).sort().to_pylist()
    encode = ValueEncoder(pa.array(vocabulary, pa.string()))
    expected = [vocabulary.index(v) + 1 if v in known else 0 for v in [*values, *vocabulary]]
    assert encode(pa.array([*values, *vocabulary], pa.string())).tolist() == expected


def test_large_vocabularies(tmp_path):
    values = np.random.default_rng(0).permutation(400_000)

    def read(staging):
        for part in np.array_split(values, 20):
            yield Rows((pa.array([f"item {v}" for v in part]),), np.empty((len(part), 0)),
                       (part[:, None] % 2).astype(np.uint8))  # fmt: skip

    source = Source("big", ("item",), (), ("click",), None, {"train": read, "test": read}, "")
    store = prepare_store(source, tmp_path / "out", 0.0)
    assert store.schema.field_sizes == (400_001,)
    ids = store.split("test").gather(np.arange(0, 400_000, 5000))["categorical"][:, 0]
    assert ids.dtype == np.int32
    vocabulary = store.vocabulary("item")
    assert [vocabulary[int(i) - 1].as_py() for i in ids] == [f"item {v}" for v in values[::5000]]
