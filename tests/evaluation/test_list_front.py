"""The front of lists: its measures against their definitions, its verdict and its files."""

import csv

import numpy as np
import pytest

from hyperrec_jax.evaluation import pareto
from hyperrec_jax.evaluation.list_front import Lists, list_front
from hyperrec_jax.evaluation.list_metrics import list_metrics
from hyperrec_jax.evaluation.list_scorer import fit_list_scorer, scorer_scores
from hyperrec_jax.preference.grid import das_dennis
from hyperrec_jax.reports.lists import fusion_rows, lists_summary, section
from tests.support.conflict import conflicting_lists

GRID = das_dennis(2, 10)
GOALS = ("click", "<buy>")


@pytest.fixture(scope="module")
def data():
    return conflicting_lists()


def front_of(data, fusion="expected_gain", resamples=100, scores=None):
    labels, log_odds, groups = data
    if scores is None:
        scorer = fit_list_scorer(GOALS, labels, log_odds, None, GRID, groups, [0.5, 0.5])
        scores = scorer_scores(scorer, [log_odds] * len(GRID), GRID, fusion, "centre")
    return list_front(fusion, "centre", GOALS, labels, scores, groups, GRID, resamples=resamples)


@pytest.fixture(scope="module")
def lists(data):
    return Lists((front_of(data), front_of(data, "log_odds")))


def test_it_runs_from_one_goals_order_to_the_others(data, lists):
    labels, log_odds, groups = data
    front = lists.first
    alone = list_metrics(log_odds, labels, groups).values
    for name in ("ndcg", "map", "mrr", "recall"):
        for place, goal in ((0, 0), (-1, 1)):  # at its own corner the list is the goal's own
            expected = np.nanmean(alone[name][goal, goal])
            assert front.values[name][place, goal] == pytest.approx(expected)
    assert (front.order > 0.98).all()
    assert front.not_dominated.mean() > 0.9
    assert front.scalarised == pytest.approx((GRID * front.ndcg).sum(axis=1).mean())
    positives = [np.unique(groups[row > 0]).size for row in labels]
    np.testing.assert_array_equal(front.lists, positives)
    np.testing.assert_array_equal(front.lists + front.skipped, 300)


def test_hypervolumes_begin_at_the_worst_of_all_fusions(lists):
    worst = np.min([front.ndcg.min(axis=0) for front in lists.fronts], axis=0)
    np.testing.assert_array_equal(lists.worst, worst)
    for front, record in zip(lists.fronts, lists.to_dict()["fusions"], strict=True):
        # The area of a staircase, by hand.
        points = front.ndcg[np.argsort(front.ndcg[:, 0])] - worst
        heights = np.maximum.accumulate(points[::-1, 1])[::-1]
        area = (np.diff(points[:, 0], prepend=0) * heights).sum()
        assert record["hypervolume"] == pytest.approx(area)
        low, high = record["hypervolume_interval"]
        assert low < area < high


def test_the_largest_jump_is_that_between_neighbours(data):
    scores = np.repeat(data[1][:1], len(GRID), axis=0)
    scores[6:] = data[1][1]  # one step in the middle
    front = front_of(data, scores=scores)
    size, share = front.largest_jump
    assert share == pytest.approx(1)
    assert size == pytest.approx(np.abs(front.ndcg[5] - front.ndcg[6]).max())
    jump, even = front_of(data).largest_jump
    assert jump < size
    assert even < 0.35


def test_the_verdict_is_that_of_a_bootstrap_over_lists(data):
    front = front_of(data)
    assert front.trade_off.found
    np.testing.assert_allclose(
        front.trade_off.gain,
        [front.ndcg[0, 0] - front.ndcg[-1, 0], front.ndcg[-1, 1] - front.ndcg[0, 1]],
        atol=0.01,
    )
    same = np.repeat(data[1].sum(axis=0, keepdims=True), len(GRID), axis=0)
    unmoved = front_of(data, scores=same)
    assert not unmoved.trade_off.found
    assert unmoved.largest_jump == (0.0, 0.0)
    assert "lists: no trade-off beyond noise" in lists_summary(Lists((unmoved,)))[-1]
    assert front_of(data, resamples=0).trade_off is None


def test_more_goals_have_the_neighbours_of_their_grid():
    rng = np.random.default_rng(0)
    grid = das_dennis(3, 3)
    labels, logits = (rng.random((3, 800)) < 0.3).astype(np.uint8), rng.normal(size=(3, 800))
    front = list_front(
        "expected_gain", "centre", "abc", labels, grid @ logits, np.arange(800) // 10, grid
    )
    step = np.abs(grid[:, None] - grid).sum(axis=-1)
    pairs = np.argwhere((step > 0) & (step < 0.67))
    expected = np.abs(front.ndcg[pairs[:, 0]] - front.ndcg[pairs[:, 1]]).max()
    assert front.largest_jump[0] == pytest.approx(expected)


def test_a_goal_without_positives_stays_out(data):
    labels, log_odds, groups = data
    labels = labels.copy()
    labels[1] = 0
    front = list_front(
        "log_odds", "centre", GOALS, labels, GRID @ log_odds, groups, GRID, resamples=20
    )
    assert front.lists[1] == 0
    assert np.isnan(front.ndcg[:, 1]).all()
    assert front.hypervolume(front.worst()) == pytest.approx(np.ptp(front.ndcg[:, 0]))
    assert front.trade_off is None
    assert f"{GOALS[1]} 0" in lists_summary(Lists((front,)))[0]
    labels[0] = 0
    nothing = list_front("log_odds", "centre", GOALS, labels, GRID @ log_odds, groups, GRID)
    assert np.isnan(nothing.hypervolume(nothing.worst()))
    assert nothing.not_dominated.all()


def test_tables_and_page_hold_all_of_it_and_escape(lists):
    rows = list(csv.DictReader(lists.to_csv().splitlines()))
    assert len(rows) == 2 * len(GRID)
    assert float(rows[3]["ndcg@10/click"]) == lists.first.ndcg[3, 0]
    assert {row["fusion"] for row in rows} == {"expected_gain", "log_odds"}
    header, table = fusion_rows(lists)
    assert [row[0] for row in table] == ["expected_gain", "log_odds"]
    text = "\n".join(lists_summary(lists))
    assert "lists: the preference trades off: NDCG@10 gained" in text
    assert "order click" in header
    page = section(lists)
    assert "<buy>" not in page
    assert "&lt;buy&gt;" in page
    assert f"{lists.first.ndcg[0, 0]:.4f}" in page
    np.testing.assert_array_equal(
        lists.first.not_dominated, pareto.non_dominated(-lists.first.ndcg)
    )
