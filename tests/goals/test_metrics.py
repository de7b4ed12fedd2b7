"""Elementary metrics against scikit-learn, SciPy and their definitions over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from hyperrec_jax.goals import metrics

quick = settings(deadline=None, max_examples=60)


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of at least 0 and predictions, both with ties, and weights."""
    count = draw(st.integers(4, 50))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10**6]))
    labels = generator.integers(0, draw(st.sampled_from([2, 4, 1000])), count) * 0.7
    labels[:2] = [0, 0.7]
    predictions = generator.integers(-levels, levels, count) * 0.37
    predictions[:2] = [1, 2]
    return labels, predictions, generator.integers(1, 4, count).astype(np.float64)


@quick
@given(data=rows())
def test_auc_is_scikit_learns(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, weights = data
    truth = labels > 0
    assert metrics.auc(labels, scores) == pytest.approx(oracle.roc_auc_score(truth, scores))
    weighted = oracle.roc_auc_score(truth, scores, sample_weight=weights)
    assert metrics.auc(labels, scores, weights) == pytest.approx(weighted)


@quick
@given(data=rows())
def test_errors_are_scikit_learns(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, predictions, weights = data
    for ours, theirs in (
        (metrics.mean_squared_error, oracle.mean_squared_error),
        (metrics.root_mean_squared_error, oracle.root_mean_squared_error),
        (metrics.mean_absolute_error, oracle.mean_absolute_error),
        (metrics.r2, oracle.r2_score),
    ):
        assert ours(labels, predictions) == pytest.approx(theirs(labels, predictions))
        expected = theirs(labels, predictions, sample_weight=weights)
        assert ours(labels, predictions, weights) == pytest.approx(expected)


@quick
@given(data=rows())
def test_poisson_deviance_is_scikit_learns(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, predictions, weights = data
    log_rates = np.clip(predictions, -5, 5)
    expected = oracle.mean_poisson_deviance(labels, np.exp(log_rates), sample_weight=weights)
    assert metrics.poisson_deviance(labels, log_rates, weights) == pytest.approx(expected)


def pairwise(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> float:
    """XAUC from its definition."""
    above = labels[:, None] > labels
    right = np.sign(predictions[:, None] - predictions) / 2 + 0.5
    mass = weights[:, None] * weights
    return float((above * right * mass).sum() / (above * mass).sum())


@quick
@given(data=rows())
def test_xauc_counts_pairs(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, predictions, weights = data
    plain = metrics.xauc(labels, predictions)
    assert plain == pytest.approx(pairwise(labels, predictions, np.ones(len(labels))))
    weighted = metrics.xauc(labels, predictions, weights)
    assert weighted == pytest.approx(pairwise(labels, predictions, weights))
    binary = (labels > 0).astype(float)
    assert metrics.xauc(binary, predictions, weights) == pytest.approx(
        metrics.auc(binary, predictions, weights)
    )


@quick
@given(data=rows())
def test_spearman_is_scipys(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, predictions, weights = data
    expected = stats.spearmanr(labels, predictions).statistic
    assert metrics.spearman(labels, predictions) == pytest.approx(expected, abs=1e-12)
    copies = weights.astype(int)
    repeated = stats.spearmanr(np.repeat(labels, copies), np.repeat(predictions, copies)).statistic
    assert metrics.spearman(labels, predictions, weights) == pytest.approx(repeated, abs=1e-12)


def lorenz_gini(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> float:
    """Gini from the Lorenz curve, one point for each run of equal predictions."""
    points = [(0.0, 0.0)]
    for value in np.unique(predictions):
        below = predictions <= value
        points.append((weights[below].sum(), (weights * labels)[below].sum()))
    x, y = np.array(points).T
    return 1 - 2 * oracle.auc(x / x[-1], y / y[-1])


@quick
@given(data=rows())
def test_gini_is_that_of_the_lorenz_curve(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, predictions, weights = data
    expected = lorenz_gini(labels, predictions, weights) / lorenz_gini(labels, labels, weights)
    assert metrics.gini(labels, predictions, weights) == pytest.approx(expected)
    assert metrics.gini(labels, labels, weights) == pytest.approx(1)
    binary = (labels > 0).astype(float)
    area = metrics.auc(binary, predictions, weights)
    assert metrics.gini(binary, predictions, weights) == pytest.approx(2 * area - 1)


@quick
@given(data=rows())
def test_a_weight_is_a_number_of_copies(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, predictions, weights = data
    copies = weights.astype(int)
    for metric in (metrics.auc, metrics.xauc, metrics.gini, metrics.total_ratio, metrics.r2):
        repeated = metric(np.repeat(labels, copies), np.repeat(predictions, copies))
        assert metric(labels, predictions, weights) == pytest.approx(repeated, rel=1e-9, abs=1e-9)


@quick
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12), levels=st.sampled_from([2, 5, 1000]))
def test_ndcg_is_scikit_learns(seed: int, k: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    lists = generator.integers(-3, 3, 40)
    gains = generator.integers(0, 5, 40).astype(float)
    scores = generator.integers(0, levels, 40) * 0.1
    weights = generator.uniform(0.1, 2, 40)
    values, list_weights = [], []
    for group in np.unique(lists):
        here = lists == group
        if len(np.unique(gains[here])) > 1:
            values.append(oracle.ndcg_score(gains[None, here], scores[None, here], k=k))
            list_weights.append(weights[here].mean())
    result = metrics.ndcg(gains, scores, lists, k=k)
    assert result.lists == len(values)
    assert result.lists + result.skipped == len(np.unique(lists))
    assert result.value == pytest.approx(np.mean(values))
    weighted = metrics.ndcg(gains, scores, lists, weights, k=k).value
    assert weighted == pytest.approx(np.average(values, weights=list_weights))


def test_equal_labels_or_predictions() -> None:
    same, rising = np.ones(4), np.arange(4.0)
    for metric in (metrics.auc, metrics.xauc, metrics.spearman, metrics.gini, metrics.r2):
        assert np.isnan(metric(same, rising))
        assert np.isnan(metric([], []))
    assert metrics.auc(rising, same) == metrics.xauc(rising, same) == 0.5
    assert metrics.gini(rising, same) == pytest.approx(0)
    assert np.isnan(metrics.spearman(rising, same))
    assert metrics.ndcg(same, rising, np.zeros(4))[1:] == (0, 1)
    assert metrics.ndcg([], [], [])[1:] == (0, 0)


def test_shapes_that_differ() -> None:
    for metric in (metrics.auc, metrics.xauc, metrics.gini, metrics.log_loss):
        with pytest.raises(ValueError, match="alike"):
            metric([1, 0], [0.5])
    with pytest.raises(ValueError, match="groups"):
        metrics.ndcg([1, 0], [1, 2], [1])
    with pytest.raises(ValueError, match="at least one rank"):
        metrics.ndcg([1, 0], [1, 2], [1, 1], k=0)


def test_order_of_many_rows() -> None:
    # A loop over pairs of 100,000 rows would not end.
    generator = np.random.default_rng(0)
    labels = generator.normal(size=100_000)
    predictions = labels + generator.normal(size=100_000)
    expected = 0.5 + stats.kendalltau(labels, predictions).statistic / 2
    assert metrics.xauc(labels, predictions) == pytest.approx(expected)
    assert metrics.auc(labels, predictions) == pytest.approx(
        oracle.roc_auc_score(labels > 0, predictions)
    )
