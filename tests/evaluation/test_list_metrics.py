"""List metrics against scikit-learn, against all orders of ties, and the paired bootstrap."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import list_metrics as list_metrics_module
from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.list_metrics import (
    METRICS,
    bootstrap,
    descending,
    list_metrics,
    mean_over_lists,
    units_of_lists,
)

quick = settings(deadline=None, max_examples=60)


@st.composite
def scored_lists(
    draw: st.DrawFn, ties: bool = True, longest: int = 9
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [preference, row], gains [goal, row] of all kinds, groups [row] in no order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = rng.integers(1, longest + 1, draw(st.integers(1, 6)))
    groups = np.repeat(rng.permutation(50)[: len(lengths)] - 9, lengths)
    rows = len(groups)
    shuffled = rng.permutation(rows)
    scores = rng.permuted(np.tile(np.arange(rows) - rows / 2, (2, 1)), axis=1)
    if ties:
        scores = scores // draw(st.sampled_from([1, 3, 1000]))
    gains = np.stack(
        [
            rng.random(rows) < 0.4,
            rng.integers(0, 4, rows),
            np.log1p(rng.exponential(9, rows)) * (rng.random(rows) < 0.5),
        ]
    )
    return scores.astype(np.float32), gains, groups[shuffled]


def by_definition(gains: np.ndarray, k: int) -> dict[str, float]:
    """Metrics of one list, given its gains in the order of the list."""
    positive = gains > 0
    if not positive.any():
        return dict.fromkeys(METRICS, np.nan)
    discount = 1 / np.log2(np.arange(len(gains)) + 2)
    at = np.flatnonzero(positive)
    pairs = [i < j for i in at for j in np.flatnonzero(~positive)]
    return {
        "ndcg": (gains * discount)[:k].sum() / (np.sort(gains)[::-1] * discount)[:k].sum(),
        "map": np.mean([positive[: i + 1].mean() for i in at]),
        "mrr": 1 / (at[0] + 1),
        "recall": positive[:k].sum() / positive.sum(),
        "captured": gains[:k].sum() / gains.sum(),
        "auc": np.mean(pairs) if pairs else np.nan,
    }


@quick
@given(data=scored_lists(longest=5), k=st.sampled_from([1, 2, 3, 10]))
def test_ties_take_the_mean_over_all_their_orders(data, k):
    scores, gains, groups = data
    result = list_metrics(scores, gains, groups, k)
    np.testing.assert_array_equal(result.groups, np.unique(groups))
    np.testing.assert_array_equal(result.rows, np.unique(groups, return_counts=True)[1])
    for p, g, (one, group) in itertools.product(range(2), range(3), enumerate(result.groups)):
        values, worth = scores[p, groups == group], gains[g, groups == group]
        orders = [
            by_definition(worth[list(order)], k)
            for order in itertools.permutations(range(len(values)))
            if all(values[i] >= values[j] for i, j in itertools.pairwise(order))
        ]
        for name in METRICS:
            expected = np.mean([order[name] for order in orders])
            assert result.values[name][p, g, one] == pytest.approx(expected, nan_ok=True), name


@quick
@given(data=scored_lists(), k=st.sampled_from([1, 3, 10]))
def test_ndcg_and_auc_are_scikit_learns_with_ties_too(data, k):
    scores, gains, groups = data
    result = list_metrics(scores, gains, groups, k, ["ndcg", "auc"])
    for p, g, (one, group) in itertools.product(range(2), range(3), enumerate(result.groups)):
        values, worth = scores[p, groups == group], gains[g, groups == group]
        if worth.any() and len(worth) > 1:
            expected = oracle.ndcg_score([worth], [values], k=k)
            assert result.values["ndcg"][p, g, one] == pytest.approx(expected)
        if worth.any() and not worth.all():
            expected = oracle.roc_auc_score(worth > 0, values)
            assert result.values["auc"][p, g, one] == pytest.approx(expected)


@quick
@given(data=scored_lists(ties=False))
def test_average_precision_is_scikit_learns(data):
    scores, gains, groups = data
    result = list_metrics(scores, gains, groups, metrics=["map"])
    for p, g, (one, group) in itertools.product(range(2), range(3), enumerate(result.groups)):
        values, worth = scores[p, groups == group], gains[g, groups == group]
        if worth.any():
            expected = oracle.average_precision_score(worth > 0, values)
            assert result.values["map"][p, g, one] == pytest.approx(expected)


@quick
@given(data=scored_lists())
def test_neither_the_order_of_the_rows_nor_the_scale_of_the_scores_matters(data):
    scores, gains, groups = data
    result = list_metrics(scores, gains, groups).values
    # Positives first, as logs often have them.
    order = np.argsort(-gains[1], kind="stable")
    turned = list_metrics(2 * scores[:, order] - 9, gains[:, order], groups[order]).values
    scaled = list_metrics(scores, 7 * gains, groups).values
    for name in METRICS:
        np.testing.assert_allclose(turned[name], result[name], rtol=1e-12)
        np.testing.assert_allclose(scaled[name], result[name], rtol=1e-12)


def test_equal_scores_are_worth_what_chance_is():
    # 1,000 rows of one score, the 10 positives first.
    gains = (np.arange(1000) < 10)[None]
    result = list_metrics(np.zeros((1, 1000)), gains, np.zeros(1000, int)).values
    assert result["auc"].item() == pytest.approx(0.5)
    assert result["recall"].item() == pytest.approx(0.01)
    assert result["ndcg"].item() == pytest.approx(0.01)
    rng = np.random.default_rng(0)
    first = [rng.choice(1000, 10, replace=False).min() + 1 for _ in range(4000)]
    assert result["mrr"].item() == pytest.approx(np.mean(1 / np.array(first)), rel=0.1)


def test_mean_leaves_out_lists_without_a_value():
    values = np.array([[[1.0, np.nan, 3], [np.nan] * 3], [[5, np.nan, 9], [np.nan] * 3]])
    np.testing.assert_array_equal(mean_over_lists(values), [[2, np.nan], [7, np.nan]])
    np.testing.assert_array_equal(mean_over_lists(values, [3, 9, 1]), [[1.5, np.nan], [6, np.nan]])


def noisy_lists(lists: int = 400, lists_of_a_unit: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Values of two preferences that differ by .05 in every list; units that differ a lot."""
    rng = np.random.default_rng(2)
    units = np.arange(lists) // lists_of_a_unit
    base = rng.normal(size=units.max() + 1)[units] + 0.1 * rng.normal(size=lists)
    values = np.stack([base, base + 0.05 + 0.01 * rng.normal(size=lists)])[:, None]
    return values, units


def test_bootstrap_errors_are_those_of_the_sample():
    values, units = noisy_lists()
    samples = bootstrap(values, resamples=2000)
    assert samples.shape == (2000, 2, 1)
    assert samples[:, 0, 0].std() == pytest.approx(values[0, 0].std() / np.sqrt(400), rel=0.1)
    assert samples[:, 0, 0].mean() == pytest.approx(values[0, 0].mean(), abs=0.01)
    # Four lists of a unit are nearly one: the error is twice as large.
    by_unit = bootstrap(values, units, resamples=2000)
    means = values[0, 0].reshape(-1, 4).mean(1)
    assert by_unit[:, 0, 0].std() == pytest.approx(means.std() / np.sqrt(100), rel=0.1)
    assert by_unit[:, 0, 0].std() > 1.8 * samples[:, 0, 0].std()


def test_bootstrap_is_paired_between_preferences_and_between_calls():
    values, units = noisy_lists()
    samples = bootstrap(values, units, resamples=500, seed=3)
    low, high = interval(samples[:, 1, 0] - samples[:, 0, 0])
    assert 0.045 < low < values[1].mean() - values[0].mean() < high < 0.055
    assert np.ptp(interval(samples[:, 0, 0])) > 0.2
    again = bootstrap(values[:1], units, resamples=500, seed=3)
    np.testing.assert_allclose(again[:, 0], samples[:, 0], rtol=1e-12)
    other = bootstrap(values, units, resamples=500, seed=4)
    assert not np.allclose(other, samples)


@quick
@given(seed=st.integers(0, 10**6), weighted=st.booleans())
def test_bootstrap_is_the_mean_of_the_drawn_lists(seed, weighted):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, 2, 12))
    values[:, 1, rng.random(12) < 0.4] = np.nan
    units, weights = rng.integers(5, 9, 12), rng.integers(1, 5, 12).astype(float)
    present = np.unique(units)
    samples = bootstrap(
        values, units, weights=weights if weighted else None, resamples=9, seed=seed
    )
    draws = np.random.default_rng(seed).integers(0, len(present), (9, len(present)))
    for sample, draw in zip(samples, draws, strict=True):
        lists = np.concatenate([np.flatnonzero(units == present[unit]) for unit in draw])
        for p, g in np.ndindex(2, 2):
            here = values[p, g, lists]
            kept = ~np.isnan(here)
            weight = weights[lists] if weighted else np.ones(len(lists))
            expected = np.average(here[kept], weights=weight[kept]) if kept.any() else np.nan
            assert sample[p, g] == pytest.approx(expected, nan_ok=True)


def test_bootstrap_draws_the_same_in_chunks(monkeypatch):
    values, _ = noisy_lists(lists=7)
    whole = bootstrap(values, resamples=50)
    monkeypatch.setattr(list_metrics_module, "_DRAWS_AT_ONCE", 21)
    np.testing.assert_allclose(bootstrap(values, resamples=50), whole, rtol=1e-12)


def test_units_of_lists():
    groups, households = [5, 3, 5, 9], ["b", "a", "b", "b"]
    np.testing.assert_array_equal(units_of_lists(groups, households), ["a", "b", "b"])
    with pytest.raises(ValueError, match="list 5 is of the units 1 and 2"):
        units_of_lists([5, 5], [1, 2])


def test_scores_are_ordered_as_numbers():
    scores = np.array([-np.inf, -3.5, -1e-30, -0.0, 0.0, 1e-30, 2, np.inf], np.float32)
    keys = descending(scores)
    assert keys[3] == keys[4]
    assert np.all(np.diff(keys.astype(np.int64))[[0, 1, 2, 4, 5, 6]] < 0)
    assert keys.max() < 2**32


def test_unusable_input_is_refused():
    scores, gains, groups = np.zeros((1, 3)), np.ones((1, 3)), np.zeros(3, int)
    with pytest.raises(UserError, match="1 of 3 scores are NaN"):
        list_metrics([[0, np.nan, 1]], gains, groups)
    for bad in (-gains, np.nan * gains, np.inf * gains):
        with pytest.raises(ValueError, match="at least 0"):
            list_metrics(scores, bad, groups)
    with pytest.raises(ValueError, match=r"groups \(2,\) \[row\]"):
        list_metrics(scores, gains, groups[:2])
    with pytest.raises(ValueError, match="no list metric dcg"):
        list_metrics(scores, gains, groups, metrics=["dcg"])
    with pytest.raises(ValueError, match="at least one rank"):
        list_metrics(scores, gains, groups, k=0)
    with pytest.raises(ValueError, match="the same lists must count"):
        mean_over_lists([[[1, np.nan]], [[1, 2]]])
    with pytest.raises(ValueError, match=r"units \(2,\) must be \[list\]"):
        bootstrap(np.ones((1, 1, 3)), [1, 2])
