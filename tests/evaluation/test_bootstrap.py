"""The bootstrap against the exact one, with scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.bootstrap import bootstrap, interval, poisson_table


def exact_weighted_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    return oracle.roc_auc_score(labels, scores, sample_weight=weights)


@pytest.mark.slow
def test_bootstrap_has_the_spread_of_the_exact_one() -> None:
    generator = np.random.default_rng(0)
    rows = 1500
    labels = generator.random((2, rows)) < [[0.1], [0.4]]
    base = generator.standard_normal((2, rows)) + labels
    logits = (base + 0.3 * generator.standard_normal((3, 2, rows))).astype(np.float32)
    samples = bootstrap(labels, logits, resamples=1000, seed=1)
    assert samples.auc.shape == samples.loss.shape == (1000, 3, 2)

    weights = generator.poisson(1, (200, rows))
    exact = np.array(
        [
            [[exact_weighted_auc(labels[t], logits[r, t], w) for t in range(2)] for r in range(3)]
            for w in weights
        ]
    )
    np.testing.assert_allclose(samples.auc.mean(axis=0), exact.mean(axis=0), atol=0.003)
    np.testing.assert_allclose(samples.auc.std(axis=0), exact.std(axis=0), rtol=0.15)
    # The pairing: a difference of two preferences is less noisy than either, as much as exactly.
    difference, exact_difference = (x[:, 0] - x[:, 1] for x in (samples.auc, exact))
    np.testing.assert_allclose(difference.std(axis=0), exact_difference.std(axis=0), rtol=0.15)
    assert (difference.std(axis=0) < 0.7 * samples.auc.std(axis=0)[0]).all()
    # Log loss: the standard error of a mean.
    losses = np.log1p(np.exp(np.where(labels, -logits, logits)))
    np.testing.assert_allclose(
        samples.loss.std(axis=0), losses.std(axis=-1) / np.sqrt(rows), rtol=0.1
    )
    lower, upper = interval(samples.loss)
    assert ((lower < losses.mean(axis=-1)) & (losses.mean(axis=-1) < upper)).all()


def test_equal_preferences_stay_equal_on_every_resample() -> None:
    generator = np.random.default_rng(5)
    rows = 400
    labels = (generator.random((1, rows)) < 0.5).astype(np.uint8)
    logits = generator.standard_normal((2, 1, rows)).astype(np.float32)
    logits[1] = logits[0]
    samples = bootstrap(labels, logits, resamples=20)
    np.testing.assert_array_equal(samples.auc[:, 0], samples.auc[:, 1])
    np.testing.assert_array_equal(samples.loss[:, 0], samples.loss[:, 1])


def test_bootstrap_of_groups_sees_that_their_rows_are_alike() -> None:
    generator = np.random.default_rng(2)
    labels = np.repeat(generator.random((1, 400)) < 0.3, 10, axis=1)
    logits = np.repeat(generator.standard_normal((1, 1, 400)), 10, axis=2).astype(np.float32)
    groups = np.repeat(np.arange(400), 10)
    by_row = bootstrap(labels, logits, resamples=500)
    by_group = bootstrap(labels, logits, groups=groups, resamples=500)
    for name in ("auc", "loss"):
        ratio = getattr(by_group, name).std() / getattr(by_row, name).std()
        assert ratio == pytest.approx(np.sqrt(10), rel=0.2), name


def test_bootstrap_of_one_class_is_nan_for_its_auc_alone() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 1, 0, 1]])
    samples = bootstrap(labels, np.zeros((1, 2, 4), np.float32), resamples=5)
    assert np.isnan(samples.auc[..., 0]).all()
    assert np.isfinite(samples.loss).any()


def test_poisson_weights_have_their_moments() -> None:
    weights = poisson_table().astype(np.float64)
    assert weights.mean() == pytest.approx(1, abs=1e-4)
    assert weights.var() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bootstrap([[0, 1]], np.zeros((1, 2, 2))), ValueError, "preference, goal, row"),
        (lambda: bootstrap([[0, 1]], [[[0, np.nan]]]), UserError, "NaN"),
        (lambda: interval([0.0], 1.5), ValueError, "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
