"""Platt scaling, alone and with a slope for each weight of the preference, against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.calibration import fit_calibrator, identity_calibrator
from tests.support.conflict import conflicting_lists, sigmoid

CENTRE = np.array([[0.5, 0.5]])


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.3, -2.0), (-2.0, 1.0)])
def test_under_one_preference_it_is_a_logistic_regression(slope, intercept):
    labels, log_odds, _ = conflicting_lists()
    logits = (log_odds - intercept) / slope
    calibrator, left = fit_calibrator(labels, logits[None], CENTRE)
    assert left == ()
    for goal in range(2):
        oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[goal][:, None], labels[goal])
        np.testing.assert_allclose(calibrator.slope[:, goal], oracle.coef_[0, 0], rtol=1e-3)
        np.testing.assert_allclose(calibrator.intercept[:, goal], oracle.intercept_[0], atol=1e-3)
    for preference in ([0.5, 0.5], [1.0, 0.0]):  # the same for all
        for truth, values in zip(labels, calibrator.apply(logits.T, preference).T, strict=True):
            assert metrics.calibration(truth, values.astype(np.float32)) == pytest.approx(
                1, abs=1e-4
            )


def test_slopes_that_follow_the_preference_are_found():
    labels, log_odds, _ = conflicting_lists(1500)
    preferences = np.array([[1.0, 0], [0.6, 0.4], [0.5, 0.5], [0, 1]])
    slopes, intercepts = np.array([[1.0, 3], [0.5, 1]]), np.array([[0.2, -1], [1, 0.5]])
    # A model asked under r answers what calibrates to the truth.
    logits = [(log_odds.T - r @ intercepts) / (r @ slopes) for r in preferences]
    calibrator, _ = fit_calibrator(labels, np.stack(logits).swapaxes(1, 2), preferences)
    own = [LogisticRegression(C=np.inf).fit(log_odds[g][:, None], labels[g]) for g in (0, 1)]
    for preference, asked in zip(preferences, logits, strict=True):
        calibrated = calibrator.apply(asked, preference)
        for goal in (0, 1):
            expected = own[goal].decision_function(log_odds[goal][:, None])
            np.testing.assert_allclose(calibrated[:, goal], expected, atol=0.02)


def test_one_class_is_left_as_it_is_and_named():
    labels, log_odds, _ = conflicting_lists(30)
    labels[1] = 0
    calibrator, left = fit_calibrator(labels, log_odds[None], CENTRE)
    assert left == (1,)
    np.testing.assert_array_equal(calibrator.apply(log_odds.T, [0.3, 0.7])[:, 1], log_odds[1])
    np.testing.assert_array_equal(
        identity_calibrator(2).apply(log_odds.T, [0.3, 0.7]), log_odds.T.astype(np.float64)
    )


def test_constant_predictions_become_the_base_rate():
    labels, _, _ = conflicting_lists(30)
    calibrator, _ = fit_calibrator(labels, np.full((1, *labels.shape), 2.5), CENTRE)
    rates = sigmoid(calibrator.apply(np.full((1, 2), 2.5), [0.5, 0.5]))[0]
    np.testing.assert_allclose(rates, labels.mean(axis=1), rtol=1e-6)


def test_separable_labels_calibrate_to_something_finite():
    calibrator, _ = fit_calibrator([[0, 0, 1, 1]], [[[-2.0, -1, 1, 2]]], [[1.0]])
    assert np.isfinite(calibrator.apply([[-2.0], [2]], [1.0])).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be"):
        fit_calibrator([[0, 1]], [[0.0, 1]], [[1.0]])
