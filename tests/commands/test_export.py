"""The exported model against the training code, and in a process without it."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hyperrec_jax
from hyperrec_jax.commands.export import main
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.outputs import make_score_fn
from hyperrec_jax.serving.buckets import ROW_BUCKETS, row_chunks
from hyperrec_jax.serving.export import export
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow

PREFERENCES = np.array([[0.3, 0.7], [0.5, 0.5], [1.0, 0.0]])


@pytest.fixture(scope="module")
def rows(small_store):
    return pl.read_csv(small_store.path.parent / "log.csv").head(700)


def _logits_of_the_training_code(workdir, predictor, rows):
    trained = load_trained(workdir)
    encoded = predictor.preprocess(rows)
    batch = {"categorical": encoded.categorical, "numerical": encoded.numerical}
    preferences = jnp.asarray(PREFERENCES, jnp.float32)
    return np.asarray(make_score_fn(trained.network)(trained.variables, batch, preferences))


def test_predictions_are_those_of_the_training_code(exported_model, trained_run, rows):
    predictor = hyperrec_jax.load(exported_model)
    probabilities = predictor.predict(rows, PREFERENCES)
    logits = _logits_of_the_training_code(trained_run, predictor, rows)
    np.testing.assert_allclose(
        probabilities, (1 / (1 + np.exp(-logits))).swapaxes(1, 2), rtol=0, atol=1e-6
    )
    assert np.ptp(probabilities, axis=0).max() > 1e-4  # the preference arrives
    from_workdir = hyperrec_jax.load(trained_run)
    np.testing.assert_allclose(
        from_workdir.predict(rows, PREFERENCES), probabilities, rtol=0, atol=1e-6
    )
    one = predictor.predict(rows, [3, 7])
    np.testing.assert_allclose(one, probabilities[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(predictor.predict(rows), probabilities[1], rtol=0, atol=1e-6)


def test_a_preference_a_row_is_as_a_preference_for_all(exported_model, rows):
    predictor = hyperrec_jax.load(exported_model)
    encoded = predictor.preprocess(rows)
    choice = np.arange(len(rows)) % len(PREFERENCES)
    mixed = predictor.score_each(encoded, PREFERENCES[choice].astype(np.float32)).probabilities
    expected = predictor.predict(rows, PREFERENCES)[choice, np.arange(len(rows))]
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-6)


def test_a_list_at_the_centre_is_decoded_beside_the_predictions(exported_model, rows):
    """As by a model of an earlier release, which is asked twice."""
    predictor = hyperrec_jax.load(exported_model)
    assert predictor.both is not None
    at = dict.fromkeys(predictor.scorer.at, "centre")
    once = dataclasses.replace(predictor, scorer=dataclasses.replace(predictor.scorer, at=at))
    twice = dataclasses.replace(once, both=None)
    encoded = predictor.preprocess(rows)
    preferences = PREFERENCES[np.arange(len(rows)) % len(PREFERENCES)].astype(np.float32)
    for found, expected in zip(
        once.score_each(encoded, preferences), twice.score_each(encoded, preferences), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@given(st.integers(1, 10_000))
def test_rows_are_divided_into_calls_that_hold_them(rows):
    chunks = row_chunks(rows)
    assert [chunk.start for chunk in chunks] == [0, *(chunk.stop for chunk in chunks[:-1])]
    assert chunks[-1].stop == rows
    assert all(chunk.stop - chunk.start in ROW_BUCKETS for chunk in chunks[:-1])
    padded = sum(min(b for b in ROW_BUCKETS if b >= c.stop - c.start) for c in chunks)
    assert padded <= 2 * rows + ROW_BUCKETS[1]


def test_results_do_not_depend_on_the_rows_beside(exported_model, rows):
    predictor = hyperrec_jax.load(exported_model)
    whole = predictor.predict(rows, PREFERENCES[0])
    single = np.concatenate([predictor.predict(rows[i : i + 1], PREFERENCES[0]) for i in range(5)])
    np.testing.assert_allclose(single, whole[:5], rtol=0, atol=1e-6)


def test_a_model_that_takes_no_preference(small_store, tmp_path, rows):
    options = {"model__name": "sharedbottom", "train__epochs": 1, "train__calibrate": False}
    train(tiny_config(small_store, **options), tmp_path / "run", small_store)
    export(tmp_path / "run", tmp_path / "model")
    predictor = hyperrec_jax.load(tmp_path / "model")
    assert not predictor.conditioned
    probabilities = predictor.predict(rows, PREFERENCES)
    logits = _logits_of_the_training_code(tmp_path / "run", predictor, rows)
    expected = (1 / (1 + np.exp(-logits[0]))).T
    np.testing.assert_allclose(probabilities, np.stack([expected] * 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ([1, 2, 3], "3 weights for 2 goals"),
        ([-1, 2], "negative"),
        ([0, 0], "all weights are zero"),
        ([float("nan"), 1], "not a finite number"),
        ("much", "not a list of numbers"),
        ([], "one number for each goal"),
        ([[[0.5, 0.5]]], "one number for each goal"),
    ],
)
def test_a_bad_preference_is_refused(exported_model, rows, preference, message):
    with pytest.raises(UserError, match=message):
        hyperrec_jax.load(exported_model).predict(rows, preference)


def test_damage_and_other_versions_are_told(exported_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(exported_model, copy)
    weights = copy / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"weights\.npz: damaged or missing"):
        hyperrec_jax.load(copy)
    manifest = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="of format 99, and this program reads 3"):
        hyperrec_jax.load(copy)
    (copy / "model.json").write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        hyperrec_jax.load(copy)
    with pytest.raises(UserError, match="no exported model here"):
        hyperrec_jax.load(tmp_path)


def test_export_replaces_a_model_and_nothing_else(trained_run, exported_model, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no exported model"):
        export(trained_run, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    target = tmp_path / "model"
    shutil.copytree(exported_model, target)
    (target / "weights.npz").unlink()
    main(["--workdir", str(trained_run), "--out", str(target)])
    assert "goals click, buy" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes.txt"]
    hyperrec_jax.load(target)
