"""Metrics against scikit-learn and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import metrics
from tests.support.scored import scored

quick = settings(deadline=None, max_examples=60)


@quick
@given(data=scored())
def test_auc_is_scikit_learns(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = data
    assert metrics.auc(labels, scores) == pytest.approx(oracle.roc_auc_score(labels, scores))


@quick
@given(data=scored())
def test_auc_depends_on_order_alone(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = data
    area = metrics.auc(labels, scores)
    assert metrics.auc(labels, np.exp(scores.astype(np.float64) / 1e6)) == pytest.approx(area)
    assert metrics.auc(labels, -scores) == pytest.approx(1 - area)
    assert metrics.auc(1 - labels, scores) == pytest.approx(1 - area)


def test_auc_of_one_class_is_nan() -> None:
    for labels in ([0, 0], [1, 1], []):
        assert math.isnan(metrics.auc(labels, np.zeros(len(labels))))


def test_auc_takes_infinite_scores_and_any_dtype() -> None:
    assert metrics.auc([0, 1, 0, 1], [-np.inf, np.inf, 0, 0]) == 0.875
    assert metrics.auc(np.array([False, True]), np.array([3, 7])) == 1
    assert metrics.auc([0, 1], np.array([1, 2], np.float16)) == 1


@quick
@given(data=scored())
def test_log_loss_is_scikit_learns(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = data
    logits = np.clip(scores, -12, 12)  # beyond, the oracle's 1 - p loses digits
    expected = oracle.log_loss(labels, 1 / (1 + np.exp(-logits.astype(np.float64))))
    assert metrics.log_loss(labels, logits) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_log_loss_is_stable_far_from_zero() -> None:
    assert metrics.log_loss([1, 0], [800.0, 0.0]) == pytest.approx(np.log(2) / 2)
    assert metrics.log_loss([0, 0], [800.0, 600.0]) == 700
    assert metrics.log_loss([1], [50.0]) == pytest.approx(np.exp(-50), rel=1e-12)
    assert math.isnan(metrics.log_loss([], []))


def test_log_loss_sums_millions_of_rows_in_float64() -> None:
    logits = np.full(2_000_000, -5, np.float32)
    labels = np.zeros(len(logits), np.uint8)
    assert metrics.log_loss(labels, logits) == pytest.approx(np.log1p(np.exp(-5)), rel=1e-12)


def test_calibration_is_predicted_over_observed() -> None:
    assert metrics.calibration([1, 0, 0, 1], [0.0, 0, 0, 0]) == pytest.approx(1)
    assert metrics.calibration([1, 0, 0, 0], [0.0, 0, 0, 0]) == pytest.approx(2)
    assert math.isnan(metrics.calibration([0, 0], [0.0, 0.0]))


def test_calibration_curve_is_scikit_learns() -> None:
    from sklearn.calibration import calibration_curve

    generator = np.random.default_rng(0)
    logits = generator.standard_normal(5000).astype(np.float32) - 1
    labels = generator.random(5000) < 1 / (1 + np.exp(-logits))
    curve = metrics.calibration_curve(labels, logits, bins=10)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    observed, predicted = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(curve.observed, observed, atol=0.005)
    np.testing.assert_allclose(curve.predicted, predicted, atol=0.002)
    assert curve.rows.sum() == 5000
    assert np.ptp(curve.rows) <= 1
    assert curve.rows @ curve.observed == pytest.approx(labels.sum())


def test_calibration_curve_keeps_equal_logits_together() -> None:
    curve = metrics.calibration_curve([0, 1, 0, 1, 1], [0.0, 0, 0, 0, 2], bins=4)
    np.testing.assert_array_equal(curve.rows, [4, 1])
    np.testing.assert_allclose(curve.observed, [0.5, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.auc([0, 1], [0.0]), ValueError, r"\(2,\) and scores \(1,\)"),
        (lambda: metrics.auc([0, 2], [0.0, 1]), ValueError, "0 or 1"),
        (lambda: metrics.auc([0, 1], [np.nan, 1]), UserError, "1 of 2 scores are NaN"),
        (lambda: metrics.log_loss([0, 1], [np.nan, 1]), UserError, "diverged"),
        (lambda: metrics.calibration_curve([], []), ValueError, "no point"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
