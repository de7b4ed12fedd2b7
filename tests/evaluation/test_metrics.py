"""Metrics against scikit-learn and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import metrics

quick = settings(deadline=None, max_examples=60)


@st.composite
def scored(draw: st.DrawFn, both_classes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels and float32 scores with many ties."""
    rows = draw(st.integers(2, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.random(rows) < draw(st.floats(0.05, 0.95))
    if both_classes:
        labels[:2] = [True, False]
    levels = draw(st.sampled_from([2, 5, 10**6]))
    scores = generator.integers(-levels, levels, rows).astype(np.float32) * np.float32(0.37)
    return labels.astype(np.uint8), scores


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
        assert math.isnan(metrics.auc_standard_error(labels, np.zeros(len(labels))))


def test_auc_takes_infinite_scores_and_any_dtype() -> None:
    assert metrics.auc([0, 1, 0, 1], [-np.inf, np.inf, 0, 0]) == 0.875
    assert metrics.auc(np.array([False, True]), np.array([3, 7])) == 1
    assert metrics.auc([0, 1], np.array([1, 2], np.float16)) == 1


def test_auc_standard_error_is_delongs() -> None:
    # Brute force over all pairs, from the definition.
    generator = np.random.default_rng(3)
    labels = generator.random(80) < 0.3
    scores = np.round(generator.standard_normal(80) + labels, 1)
    pairs = (scores[labels][:, None] > scores[~labels]) + 0.5 * (
        scores[labels][:, None] == scores[~labels]
    )
    by_positive, by_negative = pairs.mean(axis=1), pairs.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(
        by_negative
    )
    assert metrics.auc_standard_error(labels, scores) == pytest.approx(np.sqrt(variance))


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


@quick
@given(data=scored(both_classes=False), seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_grouped_metrics_are_scikit_learns_group_by_group(
    data: tuple[np.ndarray, np.ndarray], seed: int, k: int
) -> None:
    labels, scores = data
    groups = np.random.default_rng(seed).integers(-3, 3, len(labels)) * 10**12
    members = [groups == group for group in np.unique(groups)]
    mixed = [rows for rows in members if 0 < labels[rows].sum() < rows.sum()]
    skipped = len(members) - len(mixed)
    pairs = [(labels[rows], scores[rows]) for rows in mixed]

    def mean(values: list[float], weights: list[int] | None = None) -> float:
        return float(np.average(values, weights=weights)) if values else math.nan

    expected = {
        "auc": mean(
            [oracle.roc_auc_score(*pair) for pair in pairs], [int(rows.sum()) for rows in mixed]
        ),
        "ndcg": mean([oracle.ndcg_score([truth], [score], k=k) for truth, score in pairs]),
        "map": mean([oracle.average_precision_score(*pair) for pair in pairs]),
    }
    computed = {
        "auc": metrics.grouped_auc(labels, scores, groups),
        "ndcg": metrics.ndcg_at_k(labels, scores, groups, k),
        "map": metrics.mean_average_precision(labels, scores, groups),
    }
    for name, result in computed.items():
        assert result.groups == len(mixed)
        assert result.skipped == skipped
        assert result.value == pytest.approx(expected[name], nan_ok=True), name
    uniform = metrics.GroupRanking(scores, groups).auc(labels, "uniform")
    assert uniform.value == pytest.approx(
        mean([oracle.roc_auc_score(*pair) for pair in pairs]), nan_ok=True
    )


def test_grouped_metrics_treat_signed_zeros_and_infinities_as_numbers() -> None:
    ranking = metrics.GroupRanking([-0.0, 0.0, -np.inf, np.inf], [1, 1, 1, 1])
    assert ranking.auc([1, 0, 0, 0]).value == pytest.approx(1.5 / 3)
    assert ranking.auc([0, 0, 0, 1]).value == 1


def exact_weighted_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    return oracle.roc_auc_score(labels, scores, sample_weight=weights)


def test_bootstrap_has_the_spread_of_the_exact_one() -> None:
    generator = np.random.default_rng(0)
    rows = 1500
    labels = generator.random((2, rows)) < [[0.1], [0.4]]
    base = generator.standard_normal((2, rows)) + labels
    logits = (base + 0.3 * generator.standard_normal((3, 2, rows))).astype(np.float32)
    samples = metrics.bootstrap(labels, logits, resamples=1000, seed=1)
    assert samples.auc.shape == samples.log_loss.shape == (1000, 3, 2)

    weights = generator.poisson(1, (200, rows))
    exact = np.array(
        [
            [[exact_weighted_auc(labels[t], logits[r, t], w) for t in range(2)] for r in range(3)]
            for w in weights
        ]
    )
    np.testing.assert_allclose(samples.auc.mean(axis=0), exact.mean(axis=0), atol=0.003)
    np.testing.assert_allclose(samples.auc.std(axis=0), exact.std(axis=0), rtol=0.15)
    # The pairing: a difference of two rays is less noisy than either, as much as exactly.
    difference, exact_difference = (x[:, 0] - x[:, 1] for x in (samples.auc, exact))
    np.testing.assert_allclose(difference.std(axis=0), exact_difference.std(axis=0), rtol=0.15)
    assert (difference.std(axis=0) < 0.7 * samples.auc.std(axis=0)[0]).all()
    # Log loss: the standard error of a mean.
    losses = np.log1p(np.exp(np.where(labels, -logits, logits)))
    np.testing.assert_allclose(
        samples.log_loss.std(axis=0), losses.std(axis=-1) / np.sqrt(rows), rtol=0.1
    )
    lower, upper = metrics.interval(samples.log_loss)
    assert ((lower < losses.mean(axis=-1)) & (losses.mean(axis=-1) < upper)).all()


def test_equal_rays_stay_equal_on_every_resample() -> None:
    generator = np.random.default_rng(5)
    rows = 400
    labels = (generator.random((1, rows)) < 0.5).astype(np.uint8)
    logits = generator.standard_normal((2, 1, rows)).astype(np.float32)
    logits[1] = logits[0]
    samples = metrics.bootstrap(labels, logits, resamples=20)
    np.testing.assert_array_equal(samples.auc[:, 0], samples.auc[:, 1])
    np.testing.assert_array_equal(samples.log_loss[:, 0], samples.log_loss[:, 1])


def test_bootstrap_of_groups_sees_that_their_rows_are_alike() -> None:
    generator = np.random.default_rng(2)
    labels = np.repeat(generator.random((1, 400)) < 0.3, 10, axis=1)
    logits = np.repeat(generator.standard_normal((1, 1, 400)), 10, axis=2).astype(np.float32)
    groups = np.repeat(np.arange(400), 10)
    by_row = metrics.bootstrap(labels, logits, resamples=500)
    by_group = metrics.bootstrap(labels, logits, groups=groups, resamples=500)
    for name in ("auc", "log_loss"):
        ratio = getattr(by_group, name).std() / getattr(by_row, name).std()
        assert ratio == pytest.approx(np.sqrt(10), rel=0.2), name


def test_bootstrap_of_one_class_is_nan_for_its_auc_alone() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 1, 0, 1]])
    samples = metrics.bootstrap(labels, np.zeros((1, 2, 4), np.float32), resamples=5)
    assert np.isnan(samples.auc[..., 0]).all()
    assert np.isfinite(samples.log_loss).any()


def test_poisson_weights_have_their_moments() -> None:
    weights = metrics._poisson_table().astype(np.float64)
    assert weights.mean() == pytest.approx(1, abs=1e-4)
    assert weights.var() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.auc([0, 1], [0.0]), ValueError, r"\(2,\) and scores \(1,\)"),
        (lambda: metrics.auc([0, 2], [0.0, 1]), ValueError, "0 or 1"),
        (lambda: metrics.auc([0, 1], [np.nan, 1]), UserError, "1 of 2 scores are NaN"),
        (lambda: metrics.log_loss([0, 1], [np.nan, 1]), UserError, "diverged"),
        (lambda: metrics.grouped_auc([0, 1], [np.nan, 1], [0, 0]), UserError, "NaN"),
        (lambda: metrics.grouped_auc([0, 1], [0, 1], [0]), ValueError, "alike"),
        (lambda: metrics.GroupRanking([0, 1], [0, 0]).auc([0]), ValueError, "as the scores"),
        (lambda: metrics.ndcg_at_k([0, 1], [0, 1], [0, 0], 0), ValueError, "at least one"),
        (lambda: metrics.calibration_curve([], []), ValueError, "no point"),
        (lambda: metrics.bootstrap([[0, 1]], np.zeros((1, 2, 2))), ValueError, "ray, task, row"),
        (lambda: metrics.bootstrap([[0, 1]], [[[0, np.nan]]]), UserError, "NaN"),
        (lambda: metrics.interval([0.0], 1.5), ValueError, "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
