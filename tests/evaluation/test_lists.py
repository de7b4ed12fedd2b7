"""Fused lists: calibration, scores and the front that they draw."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import metrics, pareto
from hyperrec_jax.evaluation.grouped import GroupRanking
from hyperrec_jax.evaluation.lists import Calibrator, fit_calibrator, fused_score, ranking_front
from hyperrec_jax.preference.grid import das_dennis


def conflicting_searches(searches: int = 300, size: int = 20) -> tuple[np.ndarray, ...]:
    """Labels `[task, row]`, true log-odds `[task, row]` that disagree, groups `[row]`."""
    generator = np.random.default_rng(0)
    rows = searches * size
    base = generator.standard_normal((2, rows))
    log_odds = np.stack([base[0], -0.6 * base[0] + 0.8 * base[1]]) * 1.5 - 1
    labels = (generator.random((2, rows)) < 1 / (1 + np.exp(-log_odds))).astype(np.uint8)
    return labels, log_odds.astype(np.float32), generator.permutation(rows) % searches


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.3, -2.0), (-2.0, 1.0)])
def test_calibration_is_a_logistic_regression(slope: float, intercept: float) -> None:
    labels, log_odds, _ = conflicting_searches()
    logits = (log_odds - intercept) / slope
    calibrator = fit_calibrator(labels, logits)
    np.testing.assert_allclose(calibrator.slope, slope, rtol=0.1)
    for task in range(2):
        oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[task][:, None], labels[task])
        assert calibrator.slope[task] == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
        assert calibrator.intercept[task] == pytest.approx(oracle.intercept_[0], abs=1e-3)
    calibrated = calibrator.apply(logits)
    assert calibrated.dtype == np.float32
    for truth, values in zip(labels, calibrated, strict=True):
        assert metrics.calibration(truth, values) == pytest.approx(1, abs=1e-4)


def test_calibration_of_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="goal 1 has labels of one class"):
        fit_calibrator([[0, 1], [0, 0]], [[0.0, 1], [0, 1]])


def test_separable_labels_calibrate_to_something_finite() -> None:
    calibrator = fit_calibrator([[0, 0, 1, 1]], [[-2.0, -1, 1, 2]])
    assert np.isfinite(calibrator.apply([[-2.0, 2.0]])).all()


def test_fused_score_weights_the_tasks() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [10.0, 0.0, -10.0]])
    np.testing.assert_allclose(fused_score(logits, [0.75, 0.25]), [3.25, 1.5, -0.25])
    preferences = [[1.0, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose(fused_score(np.stack([logits, logits]), preferences), logits)
    with pytest.raises(ValueError, match="must be"):
        fused_score(logits, [1.0, 0.0, 0.0])


def test_front_runs_from_one_tasks_order_to_the_others() -> None:
    labels, log_odds, groups = conflicting_searches()
    preferences = das_dennis(2, 10)
    front = ranking_front(
        labels,
        [fused_score(log_odds, preference) for preference in preferences],
        groups,
        preferences,
    )
    own = [GroupRanking(values, groups) for values in log_odds]
    for name, metric in [
        ("ndcg", GroupRanking.ndcg),
        ("average_precision", GroupRanking.average_precision),
        ("grouped_auc", GroupRanking.auc),
    ]:
        values = getattr(front, name)
        # At its own corner a task's list is the one by its own logits.
        assert values[0, 0] == pytest.approx(metric(own[0], labels[0]).value)
        assert values[-1, 1] == pytest.approx(metric(own[1], labels[1]).value)
        correlation = pareto.preference_correlation(preferences, 1 - values)
        assert (correlation < -0.9).all(), name
        assert pareto.span(values) > 0.05, name
    # In the middle one list serves both better than either corner serves the other.
    assert front.grouped_auc[5].min() > front.grouped_auc[[0, -1]].min(axis=1).max()
    for task in range(2):
        sizes = np.bincount(groups)
        mixed = np.bincount(groups, labels[task]) % sizes != 0
        assert front.groups[task] == mixed.sum()
        assert front.skipped[task] == len(sizes) - mixed.sum()


def test_front_takes_each_preferences_own_scores() -> None:
    labels, log_odds, groups = conflicting_searches(50)
    preferences = np.array([[1.0, 0.0], [0.5, 0.5]])
    scores = np.stack([log_odds[0], -log_odds[0]])
    front = ranking_front(labels, scores, groups, preferences)
    np.testing.assert_allclose(front.grouped_auc[1], 1 - front.grouped_auc[0])
    with pytest.raises(ValueError, match="for 2 preferences"):
        ranking_front(labels, np.stack([log_odds[0]] * 3), groups, preferences)


def test_calibration_decides_what_a_preference_means() -> None:
    # A model three times as confident outvotes the other; calibration takes that away.
    labels, log_odds, groups = conflicting_searches()
    confident = log_odds * np.array([[3.0], [1.0]], np.float32)

    def even_list(logits: np.ndarray) -> np.ndarray:
        score = fused_score(logits, [0.5, 0.5])
        return ranking_front(labels, [score], groups, [[0.5, 0.5]]).grouped_auc[0]

    def calibrated(logits: np.ndarray) -> np.ndarray:
        return fit_calibrator(labels, logits).apply(logits)

    np.testing.assert_allclose(
        even_list(calibrated(confident)), even_list(calibrated(log_odds)), atol=1e-4
    )
    shift = even_list(confident) - even_list(log_odds)
    assert shift[0] > 0.05
    assert shift[1] < -0.05
    assert Calibrator(np.ones(2), np.zeros(2)).apply(log_odds).tolist() == log_odds.tolist()
