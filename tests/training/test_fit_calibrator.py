"""Calibration of predictions as a function of the preference, and in every product."""

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperrec_jax
from hyperrec_jax.config.defaults import get_config
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.calibration import Calibrator, features_of
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.prediction_calibrator import PredictionCalibrator
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.metrics import calibration_error, log_loss
from hyperrec_jax.goals.value import Value
from hyperrec_jax.serving.export import export
from hyperrec_jax.training.fit_calibrator import CALIBRATOR, calibrate, kept_calibrator
from hyperrec_jax.training.trained import load_trained
from tests.support.conflict import sigmoid

GOALS = (Binary(name="click"), Binary(name="buy"))
GRID = np.array([[1.0, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]])


def distorted(rows, seed, preferences=GRID):
    """Labels `[goal, row]`, true log-odds and those of a model that is the less sure of a goal, the
    less it weighs: `[preference, goal, row]`."""
    random = np.random.default_rng(seed)
    truth = random.normal(-2, 1.5, (2, rows))
    labels = (random.random((2, rows)) < sigmoid(truth)).astype(np.uint8)
    slopes = 0.5 + 0.7 * preferences[:, :, None] ** 2
    logits = (truth * slopes + 0.6 * (1 - preferences[:, :, None])).astype(np.float32)
    return labels, truth, logits


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=5),
    degree=st.sampled_from([1, 2]),
)
def test_features_are_shares(weights, degree):
    preference = np.array(weights) / sum(weights)
    features = features_of(preference, degree)
    m = len(weights)
    assert features.shape == (m if degree == 1 else m * (m + 1) // 2,)
    assert (features >= 0).all()
    assert features.sum() == pytest.approx(1)


def test_a_distortion_that_bends_with_the_preference_is_found():
    labels, _, logits = distorted(20_000, 0)
    found = calibrate(GOALS, Scores(logits, labels), GRID, None, step=7)
    assert (set(found.gains), found.step) == ({"click", "buy"}, 7)
    between = np.array([[0.6, 0.4], [0.1, 0.9]])  # preferences that no fit has seen
    fresh, truth, asked = distorted(20_000, 1, between)
    result = found.apply_by_output(asked, between)
    rows_first = found.apply(asked.swapaxes(1, 2), between[:, None])
    np.testing.assert_allclose(rows_first.swapaxes(1, 2), result, atol=1e-5)
    for preference in range(2):
        for goal in range(2):
            best = log_loss(fresh[goal], truth[goal])
            assert log_loss(fresh[goal], result[preference, goal]) < best + 5e-3
            raw, after = (
                calibration_error(fresh[goal], sigmoid(each[preference, goal].astype(float)))
                for each in (asked, result)
            )
            assert after < max(0.03, 0.6 * raw)
            order = np.argsort(asked[preference, goal], kind="stable")
            assert (np.diff(result[preference, goal][order]) >= 0).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_few_rows_do_not_move_what_is_right(seed):
    """300 rows have some 40 positives: their rate is 16 % off by chance, the model's is not."""
    random = np.random.default_rng(seed)
    truth = random.normal(-2, 1, (2, 300))
    labels = (random.random((2, 300)) < sigmoid(truth)).astype(np.uint8)
    scores = Scores(np.repeat(truth[None], 5, axis=0).astype(np.float32), labels)
    found = calibrate(GOALS, scores, GRID, None)
    shift = found.apply(np.full((5, 1, 2), -2, np.float32), GRID[:, None]) + 2
    assert np.abs(shift).max() < 0.15


def test_weights_are_copies_and_missing_labels_are_left_out():
    labels, _, logits = distorted(3_000, 2)
    weights = np.random.default_rng(3).integers(0, 3, 3_000)
    groups = np.arange(3_000)
    known = labels.astype(np.float32)
    known[1, :500] = np.nan
    weighted = calibrate(GOALS, Scores(logits, known, weights.astype(np.float32)), GRID, groups)
    copies = np.repeat(np.arange(3_000), weights)
    copied = calibrate(GOALS, Scores(logits[..., copies], known[:, copies]), GRID, groups[copies])
    np.testing.assert_allclose(weighted.outputs.slope, copied.outputs.slope, rtol=1e-5)
    np.testing.assert_allclose(weighted.outputs.intercept, copied.outputs.intercept, atol=1e-5)


def test_other_kinds_and_goals_of_one_class_stay():
    goals = (Value(name="seconds"), Binary(name="click"), Binary(name="never"))
    grid = np.concatenate([np.eye(3), np.full((2, 3), 1 / 3)])
    labels, _, logits = distorted(4_000, 4, grid[:, 1:])
    seconds = np.zeros((5, 3, 4_000), np.float32)
    outputs = np.concatenate([seconds, logits[:, :1], logits[:, 1:]], axis=1)
    truth = np.stack([labels[0], labels[0], 0 * labels[0]])
    found = calibrate(goals, Scores(outputs, truth), grid, None)
    assert set(found.gains) == {"click"}
    result = found.apply_by_output(outputs, grid)
    np.testing.assert_array_equal(result[:, [0, 1, 2, 4]], outputs[:, [0, 1, 2, 4]])
    assert np.abs(result[:, 3] - outputs[:, 3]).max() > 0.1


def test_a_file_that_is_damaged_is_refused_and_that_of_another_step_ignored(tmp_path):
    identity = Calibrator(np.ones((2, 2)), np.zeros((2, 2)))
    PredictionCalibrator(identity, {"click": (0.4, 0.3)}, step=8).save(tmp_path / CALIBRATOR)
    kept = kept_calibrator(tmp_path, 8)
    assert kept is not None
    assert kept.gains == {"click": (0.4, 0.3)}
    assert kept_calibrator(tmp_path, 9) is None
    text = (tmp_path / CALIBRATOR).read_text()
    (tmp_path / CALIBRATOR).write_text(text.replace("0.4", "0.5"))
    with pytest.raises(UserError, match=f"{CALIBRATOR}: damaged"):
        kept_calibrator(tmp_path, 8)


def test_every_product_has_the_calibrated_predictions(trained_run, small_store, tmp_path):
    """Predictions are the calibrated ones, lists are of the model's own outputs."""
    raw = shutil.copytree(trained_run, tmp_path / "raw")
    (raw / CALIBRATOR).unlink()
    run = shutil.copytree(raw, tmp_path / "run")
    before, step = hyperrec_jax.load(raw), load_trained(run).progress.best_step
    slope = np.array([[2.0, 1], [1, 1], [0.5, 3]])
    chosen = Calibrator(slope, slope - 1)
    PredictionCalibrator(chosen, {"click": (1.0, 0.5)}, step or 0).save(run / CALIBRATOR)
    export(run, tmp_path / "model")
    model, served = hyperrec_jax.load(run), hyperrec_jax.load(tmp_path / "model")
    rows = pd.read_csv(small_store.path.parent / "log.csv").head(50)
    preferences = np.array([[0.25, 0.75], [1, 0]])
    chances = before.predict(rows, preferences).astype(float)
    at = np.stack([features_of(one, 2) for one in preferences])
    log_odds = np.log(chances / (1 - chances)) * (at @ slope)[:, None]
    expected = sigmoid(log_odds + (at @ (slope - 1))[:, None])
    np.testing.assert_allclose(model.predict(rows, preferences), expected, atol=2e-5)
    np.testing.assert_allclose(served.predict(rows, preferences), expected, atol=2e-5)
    for each in (model, served):
        ranked = each.rank(rows, preferences[0])
        np.testing.assert_allclose(ranked.score, before.rank(rows, preferences[0]).score, rtol=1e-5)
    batch = served.preprocess(rows)
    each_own = served.score_each(batch, np.tile(preferences[:1], (50, 1)).astype(np.float32))
    np.testing.assert_allclose(each_own.probabilities, expected[0], atol=2e-5)
    # evaluation
    own, other = load_trained(run), load_trained(raw)
    scores = own.score_rows(small_store, "test", preferences)
    np.testing.assert_array_equal(
        scores.logits, other.score_rows(small_store, "test", preferences).logits
    )
    front, old = (each.evaluate(small_store, preferences=preferences) for each in (own, other))
    np.testing.assert_allclose(front.auc, old.auc, atol=1e-6)
    assert (np.abs(front.loss - old.loss) > 1e-3).any()


def test_a_run_keeps_its_calibrator_and_the_original_has_none(trained_run):
    step = load_trained(trained_run).progress.best_step
    assert kept_calibrator(trained_run, step) is not None
    assert not get_config("original").train.calibrate
    assert get_config().train.calibrate
