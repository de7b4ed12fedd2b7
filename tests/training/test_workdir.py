"""What a run's folder holds is never lost: refused runs, mixed-up files, damaged bits."""

import hashlib
import json
import shutil

import numpy as np
import polars as pl
import pytest

from hyperrec_jax.api.load import load_predictor
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.errors import UserError
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from tests.conftest import tiny_config, write_own_data

pytestmark = pytest.mark.slow

TREE = {"model__name": "sharedbottom", "train__epochs": 1, "train__checkpoint_every": 4}


def tree(folder):
    """The bytes of all files below a folder, as digests by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(small_store, tmp_path_factory):
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_config(small_store, **TREE), folder, small_store)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def _prepare_again(folder, change):
    path = write_own_data(folder)
    rows = pl.read_csv(folder / "log.csv")
    rows.with_columns(change).write_csv(folder / "log.csv")
    return prepare_store(csv_source(path), folder / "store", 0.1)


@pytest.mark.parametrize(
    "change",
    [pl.col("item") + 5, pl.int_range(pl.len()).mod(90).alias("item")],
    ids=["other ids", "more ids"],
)
def test_a_run_refused_for_its_data_is_as_before(tmp_path, change):
    store = _prepare_again(tmp_path, pl.col("item"))
    config, run = tiny_config(store, **TREE), tmp_path / "run"
    train(config, run, store)
    rows = pl.read_csv(tmp_path / "log.csv").head(100)
    before, scores = tree(run), load_predictor(run).predict(rows)
    _prepare_again(tmp_path, change)
    for _ in range(2):
        with pytest.raises(UserError, match="the store changed since the run was begun"):
            train(config, run)
        assert tree(run) == before
    np.testing.assert_array_equal(load_predictor(run).predict(rows), scores)


def test_a_finished_run_is_not_rewritten(small_store, run):
    before = tree(run)
    assert train(tiny_config(small_store, **TREE), run, small_store).finished
    assert tree(run) == before


@pytest.mark.parametrize("folder", ["best", "checkpoints"])
def test_the_checkpoint_of_another_model_is_refused_and_stays(small_store, run, tmp_path, folder):
    other = tiny_config(small_store, **TREE, model__bottom_widths=(5,))
    train(other, tmp_path / "other", small_store)
    shutil.rmtree(run / folder)
    shutil.copytree(tmp_path / "other" / folder, run / folder)
    before = tree(run)
    with pytest.raises(UserError, match=r"a checkpoint of another model: .*\(4, 8\)|\(.*, 5\)"):
        train(tiny_config(small_store, **TREE), run, small_store)
    if folder == "best":
        with pytest.raises(UserError, match="a checkpoint of another model"):
            load_trained(run)
    assert tree(run) == before


def test_a_selected_model_is_never_replaced_by_a_run_from_the_start(small_store, run):
    shutil.rmtree(run / "checkpoints")
    before = tree(run)
    with pytest.raises(UserError, match="a selected model and no checkpoint to go on from"):
        train(tiny_config(small_store, **TREE), run, small_store)
    (run / "config.json").unlink()
    before.pop("config.json")
    assert tree(run) == before


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_run_whose_selected_model_is_gone_is_refused(small_store, run, epochs):
    shutil.rmtree(run / "best")
    before = tree(run)
    config = tiny_config(small_store, **TREE | {"train__epochs": epochs})
    with pytest.raises(UserError, match=r"holds no selected model, though step \d+ was selected"):
        train(config, run, small_store)
    assert tree(run) == before


def test_checkpoints_without_their_config_are_not_taken_over(small_store, run):
    (run / "config.json").unlink()
    before = tree(run)
    with pytest.raises(UserError, match=r"holds checkpoints and no config\.json"):
        train(tiny_config(small_store, **TREE), run, small_store)
    assert tree(run) == before


def test_checkpoints_that_are_all_damaged_stay_where_they_are(small_store, run):
    for folder in ("checkpoints", "best"):
        for step in (run / folder).iterdir():
            largest = max((step / "state").rglob("*"), key=lambda path: path.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 0x40
            largest.write_bytes(content)
    before = tree(run)
    with pytest.raises(UserError, match=r"none of the checkpoints .* can be read; nothing was"):
        train(tiny_config(small_store, **TREE), run, small_store)
    with pytest.raises(UserError, match=r"none of the checkpoints .* can be read; nothing was"):
        load_trained(run)
    assert tree(run) == before


def test_a_changed_progress_counts_as_damaged(small_store, run):
    (step,) = (run / "best").iterdir()
    path = step / "progress" / "metadata"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"best_value": values["best_value"] + 0.25}))
    with pytest.raises(UserError, match="none of the checkpoints"):
        load_trained(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{}", r"config\.json: damaged, it has no 'data\.store'"),
        ("config.json", "[]", r"config\.json: damaged, it holds list"),
        ("schema.json", "{}", r"schema\.json: damaged"),
        ("schema.json", "{", r"schema\.json: can't be read"),
        ("metrics.jsonl", '{"step": 1, "kind": "train"}\n7\n', r"metrics\.jsonl: line 2 is no rec"),
        ("metrics.jsonl", b"\xff\n", r"metrics\.jsonl: line 1 is no record"),
    ],
)
def test_a_damaged_description_is_told_and_stays(small_store, run, name, content, message):
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = tree(run)
    with pytest.raises(UserError, match=message):
        train(tiny_config(small_store, **TREE), run, small_store)
    if name != "metrics.jsonl":
        with pytest.raises(UserError, match=message):
            load_trained(run)
    assert tree(run) == before


def _other_vocabulary(run, tmp_path):
    store = _prepare_again(tmp_path, pl.col("item") + 5)
    shutil.copyfile(store.path / "vocabulary.arrow", run / "vocabulary.arrow")


def _truncate(run, tmp_path):
    path = run / "vocabulary.arrow"
    path.write_bytes(path.read_bytes()[:-40])


def _remove(run, tmp_path):
    (run / "vocabulary.arrow").unlink()


def _of_other_sizes_without_a_checksum(run, tmp_path):
    """As a run of release 0.1 would have it."""
    store = _prepare_again(tmp_path, pl.int_range(pl.len()).mod(90).alias("item"))
    shutil.copyfile(store.path / "vocabulary.arrow", run / "vocabulary.arrow")
    values = json.loads((run / "schema.json").read_text())
    values.pop("vocabulary")
    (run / "schema.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_vocabulary, "damaged, or of another run"),
        (_truncate, "damaged, or of another run"),
        (_remove, "missing"),
        (_of_other_sizes_without_a_checksum, "field 'item' has 21 ids in the model and 91 in the"),
    ],
)
def test_another_vocabulary_is_refused_and_training_puts_it_right(
    small_store, finished, run, tmp_path, change, message
):
    from hyperrec_jax.serving.export import export

    target = tmp_path / "model"
    export(finished, target)
    exported = tree(target)
    change(run, tmp_path)
    before = tree(run)
    with pytest.raises(UserError, match=message):
        load_predictor(run)
    with pytest.raises(UserError, match=message):
        export(run, target)
    assert tree(run) == before
    assert tree(target) == exported
    train(tiny_config(small_store, **TREE), run, small_store)
    load_predictor(run)


def test_evaluation_refuses_another_store(small_store, finished, tmp_path):
    trained = load_trained(finished)
    same_sizes = _prepare_again(tmp_path, pl.col("item") + 5)
    before = tree(finished)
    with pytest.raises(UserError, match="its vocabulary is not that of the model"):
        trained.score(same_sizes)
    more = _prepare_again(tmp_path, pl.int_range(pl.len()).mod(90).alias("item"))
    with pytest.raises(UserError, match=r"its schema .* is not that of the model"):
        trained.score(more)
    assert tree(finished) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train__epochs", 0),
        ("train__epochs", -1),
        ("train__checkpoint_every", 0),
        ("train__steps_per_dispatch", 0),
        ("train__batch_size", 0),
        ("train__grid", 0),
        ("optimizer__learning_rate", -0.001),
        ("optimizer__learning_rate", float("nan")),
        ("optimizer__l2", -1.0),
    ],
)
def test_numbers_without_sense_are_refused_at_once(small_store, finished, key, value):
    before = tree(finished)
    name = key.replace("__", ".")
    with pytest.raises(UserError, match=rf"{name} is {value}: give a (whole )?number"):
        train(tiny_config(small_store, **(TREE | {key: value})), finished, small_store)
    assert tree(finished) == before


def test_a_store_without_validation_rows_is_refused_before_an_epoch(small_store, tmp_path):
    class Empty:
        path = small_store.path

        def split(self, name):
            return () if name == "validation" else small_store.split(name)

    with pytest.raises(UserError, match="its validation split has no rows"):
        train(tiny_config(small_store), tmp_path / "run", Empty())
    assert not (tmp_path / "run").exists()
