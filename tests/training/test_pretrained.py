"""Widths of single fields and goals, and vectors from files: trained, resumed, served, refused."""

import datetime

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hyperrec_jax
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.text import to_text
from hyperrec_jax.data.vectors_file import Vectors, match, vectors_of
from hyperrec_jax.errors import UserError
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.pretrained import begin_with, pretrained_tables
from hyperrec_jax.training.state import first_state, state_template
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from hyperrec_jax.training.warm_start import warm_start
from hyperrec_jax.training.workdir import load_config
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow

WIDTH = 6
NAMES = [f"c{i}" for i in range(4)]


def write(path, ids, vectors):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pq.write_table(pa.table({"id": pa.array(ids), "vector": lists}), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Vectors of items 0 to 14 as numbers, and of one that no row has; and of all countries."""
    folder, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    items = rng.normal(size=(16, WIDTH)).astype(np.float32)
    countries = rng.normal(size=(4, 3)).astype(np.float32)
    np.savez(folder / "countries.npz", ids=np.array(NAMES), vectors=countries)
    ids = np.array([*range(15), 99])
    return write(folder / "items.parquet", ids, items), folder / "countries.npz", items, countries


@pytest.fixture(scope="module")
def options(files):
    return {
        "model__pretrained": {
            "item": {"file": str(files[0]), "trainable": False},
            "country": {"file": str(files[1]), "trainable": True},
        },
        "model__goal_tower_widths": {"buy": (3,)},
        "train__epochs": 1,
        "optimizer__lazy_rows": 2,  # lazy Adam on all tables, too
        "optimizer__l2": 0.1,
    }


@pytest.fixture(scope="module")
def run(small_store, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    train(tiny_config(small_store, **options), folder, small_store)
    return folder


def tables_of(variables):
    flat = jax.tree_util.tree_flatten_with_path(dict(variables))[0]
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(v) for p, v in flat}
    return {name: value for name, value in named.items() if name.endswith("/embedding")}


def expected_items(store: Store, items):
    """Vectors in the order of the ids; the mean of those that are there for all others."""
    values = store.vocabulary("item").to_pylist()
    known = {str(i): items[i] for i in range(15)}
    mean = np.mean([known[v] for v in values if v in known], axis=0)
    return np.stack([mean, *[known.get(value, mean) for value in values]])


def test_frozen_vectors_stay_bit_for_bit_and_others_move(small_store, files, run, options, caplog):
    tables = tables_of(load_trained(run).variables)
    assert sorted(tables) == [
        "batch_stats/embedding/own_1/embedding",
        "params/embedding/own_0/embedding",
    ]
    begun = resolve(
        tiny_config(small_store, **options), small_store.schema, small_store.split("train")
    )
    frozen = tables["batch_stats/embedding/own_1/embedding"]
    given = pretrained_tables(begun, small_store)
    np.testing.assert_array_equal(frozen, given[1])
    np.testing.assert_allclose(frozen, expected_items(small_store, files[2]), atol=1e-6)
    assert "'item': " in caplog.text
    assert "has vectors for 15 of 20 values (75.0%)" in caplog.text
    moved = np.abs(tables["params/embedding/own_0/embedding"][1:] - files[3]).max(axis=1)
    assert (moved > 1e-3).all()
    # The optimizer holds nothing of the frozen table.
    state = state_template(begun)
    held = tables_of({"opt_state": state.opt_state})
    assert held
    assert not any("own_1" in name for name in held)


def test_the_config_keeps_the_file_its_width_and_fingerprint(files, run):
    kept = load_config(run)["model"]["pretrained"]["item"]
    assert kept == {
        "file": str(files[0]),
        "trainable": False,
        "width": WIDTH,
        "fingerprint": vectors_of(files[0]).fingerprint,
    }


def test_the_model_needs_its_files_no_more(small_store, options, files, run, tmp_path):
    rows = [{"country": "c1", "item": item, "price": 1.0, "age": 0.2} for item in (3, 17, 400)]
    model = hyperrec_jax.load(run)
    model.export(tmp_path / "model")
    exported = hyperrec_jax.load(tmp_path / "model")
    weights = np.float32([0.3, 0.7])
    expected = model.predict(rows, weights)
    np.testing.assert_allclose(exported.predict(rows, weights), expected, atol=1e-6)
    # Items without a vector of their own begin at one mean, and are told apart by nothing else.
    np.testing.assert_array_equal(expected[1], expected[2])
    assert np.abs(expected[0] - expected[1]).max() > 0
    # Going on, and another run that begins at this one, hold the vectors, too.
    config = tiny_config(small_store, **options)
    assert train(config, run, small_store).finished
    begun = resolve(config, small_store.schema, small_store.split("train"))
    warm = warm_start(begun, small_store, run, pretrained_tables(begun, small_store))
    jax.tree.map(np.testing.assert_array_equal, warm.variables, dict(load_trained(run).variables))
    state, _ = Checkpoints(run, read_only=True).restore_latest(state_template(begun))
    frozen = state.batch_stats["embedding"]["own_1"]["embedding"]
    first = begin_with(begun, first_state(begun), pretrained_tables(begun, small_store))
    np.testing.assert_array_equal(frozen, first.batch_stats["embedding"]["own_1"]["embedding"])


def test_a_changed_file_is_another_run(small_store, options, files, run, tmp_path):
    other = write(tmp_path / "items.parquet", np.arange(15), files[2][:15] + 1)
    changed = options | {"model__pretrained": {"item": {"file": str(other)}}}
    with pytest.raises(UserError, match=r"model\.pretrained"):
        train(tiny_config(small_store, **changed), run, small_store)


def test_matching_is_by_text():
    values = pa.array(["1.5", "2020-01-02", "7", "a"])
    for ids, row in (
        (pa.array([7, 8]), 2),
        (pa.array([1.5, 2.5]), 0),
        (pa.array([datetime.date(2020, 1, 2)]), 1),
        (pa.array(["a", "b"]), 3),
    ):
        numbers = np.ones((len(ids), 2), np.float32)
        found = match(Vectors(to_text(ids), numbers, ""), values)
        assert found.found == 1
        np.testing.assert_array_equal(found.table[row + 1], [1, 1])


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1, 1], np.ones((2, 3)), r"id '1' has several rows"),
        ([1, 2], np.array([[1, 2], [1, np.nan]]), "row 2, id '2': its vector has a number that"),
        ([1, None], np.ones((2, 3)), "row 2: the id is missing"),
        (["x", "y"], np.ones((2, 3)), "has a vector for none of the 20 values of field 'item'"),
    ],
)
def test_bad_files_are_refused_before_anything_is_written(
    small_store, tmp_path, ids, vectors, message
):
    path = write(tmp_path / "v.parquet", ids, vectors)
    config = tiny_config(small_store, model__pretrained={"item": {"file": str(path)}})
    with pytest.raises(UserError, match=message) as told:
        train(config, tmp_path / "run", small_store)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__pretrained": {"item": {"file": "no.parquet"}}}, "no such file of vectors"),
        ({"model__pretrained": {"item": {"file": "README.md"}}}, "unreadable as a file of vec"),
        ({"model__pretrained": {"item": "no"}}, "'no' names no file of vectors"),
        ({"model__pretrained": {"item": {"trainable": True}}}, "names no file of vectors"),
        ({"model__pretrained": {"item": {"file": "README.md", "x": 1}}}, "no option 'x'"),
        ({"model__embedding_dims": {"itme": 8}}, "no field 'itme' of ids; did you mean item"),
        ({"model__embedding_dims": {"price": 8}}, "'price' is a number, and all numbers become"),
        ({"model__goal_tower_widths": {"by": (8,)}}, "no goal 'by' with a tower; did you mean buy"),
    ],
)
def test_options_are_refused_in_one_line(small_store, overrides, message):
    with pytest.raises(UserError, match=message) as told:
        resolve(
            tiny_config(small_store, **overrides), small_store.schema, small_store.split("train")
        )
    assert "\n" not in str(told.value)


def test_two_widths_of_one_field_are_refused(small_store, files):
    config = tiny_config(
        small_store,
        model__pretrained={"item": {"file": str(files[0])}},
        model__embedding_dims={"item": 8},
    )
    with pytest.raises(UserError, match=r"vectors of 6 numbers and model\.embedding_dims says 8"):
        resolve(config, small_store.schema, small_store.split("train"))


def test_an_option_within_an_option_is_set_by_its_path(small_store):
    config = tiny_config(small_store, **{"model__embedding_dims__item": "8"})
    assert config["model"]["embedding_dims"] == {"item": 8}
