"""The score of a list: its formula, the choice of how to ask the model, its file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.calibration import Calibrator, identity_calibrator
from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists
from hyperrec_jax.evaluation.list_scorer import (
    FUSIONS,
    ListScorer,
    fit_list_scorer,
    scorer_scores,
)
from hyperrec_jax.evaluation.ranks import ranks
from hyperrec_jax.preference.grid import das_dennis
from tests.support.conflict import conflicting_lists, sigmoid

GRID = das_dennis(2, 4)
GOALS = ("click", "buy")


def fit(labels, at_centre, at_preference=None, groups=None, **options):
    return fit_list_scorer(
        GOALS[: len(labels)],
        labels,
        at_centre,
        at_preference,
        das_dennis(len(labels), 4) if len(labels) > 1 else np.ones((1, 1)),
        groups,
        options.pop("training_rates", labels.mean(axis=1)),
        **options,
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), goals=st.integers(1, 4))
def test_every_fusion_is_its_formula_row_by_row(seed, goals):
    rng = np.random.default_rng(seed)
    logits, weights = rng.normal(size=(7, goals)) * 3, rng.dirichlet(np.ones(goals))
    calibrator = Calibrator(rng.normal(size=(goals, goals)), rng.normal(size=(goals, goals)))
    scales = rng.uniform(0.01, 1, goals)
    scorer = ListScorer(
        tuple("abcd"[:goals]),
        scales,
        {"centre": identity_calibrator(goals), "preference": calibrator},
        dict.fromkeys(FUSIONS, "preference"),
    )
    expected = {fusion: np.zeros(7) for fusion in FUSIONS}
    for row in range(7):
        for goal in range(goals):
            slope = sum(weights[j] * calibrator.slope[j, goal] for j in range(goals))
            shift = sum(weights[j] * calibrator.intercept[j, goal] for j in range(goals))
            log_odds = slope * logits[row, goal] + shift
            chance = 1 / (1 + np.exp(-log_odds))
            expected["expected_gain"][row] += weights[goal] * chance / scales[goal]
            expected["log_odds"][row] += weights[goal] * log_odds
            expected["product"][row] += weights[goal] * np.log(chance)
    for fusion in FUSIONS:
        np.testing.assert_allclose(
            scorer.score(logits, weights, fusion), expected[fusion], rtol=1e-5, atol=1e-6
        )
    plain = (weights * sigmoid(logits) / scales).sum(axis=1)
    np.testing.assert_allclose(scorer.score(logits, weights, at="centre"), plain, rtol=1e-5)


def test_a_row_of_average_gain_is_worth_one():
    labels, log_odds, _ = conflicting_lists()
    scorer = fit(labels, log_odds)
    np.testing.assert_allclose(scorer.scales, labels.mean(axis=1))
    for preference in GRID:
        assert scorer.score(log_odds.T, preference).mean() == pytest.approx(1, abs=1e-4)


def test_the_expected_gain_is_the_best_order_for_what_is_gained():
    labels, log_odds, groups = conflicting_lists(2000)
    scorer = fit(labels, log_odds)
    weights = np.array([0.5, 0.5])
    gain = (weights / scorer.scales) @ labels
    rank = {fusion: ranks(scorer.score(log_odds.T, weights, fusion), groups) for fusion in FUSIONS}
    value = {name: (gain / np.log2(1 + at) * (at <= 10)).mean() for name, at in rank.items()}
    assert value["expected_gain"] > value["log_odds"] * 1.01
    assert value["expected_gain"] > value["product"] * 1.01


def test_scaled_logits_change_nothing_since_calibration_takes_it_away():
    labels, log_odds, _ = conflicting_lists()
    confident = log_odds * np.array([[3.0], [0.5]], np.float32) - 1
    one, other = (
        fit(labels, values).score(values.T, [0.3, 0.7]) for values in (log_odds, confident)
    )
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_validation_chooses_where_the_model_is_asked():
    labels, log_odds, groups = conflicting_lists()
    noise = np.random.default_rng(1).normal(size=log_odds.shape) * 3
    good, bad = np.stack([log_odds] * len(GRID)), np.stack([log_odds + noise] * len(GRID))
    for central, under, expected in (
        (log_odds, bad, "centre"),
        (log_odds + noise, good, "preference"),
    ):
        scorer = fit(labels, central, under, groups)
        assert scorer.place() == expected
        found = scorer.validation["expected_gain"]
        assert found[expected] > found["centre" if expected == "preference" else "preference"]
        asked = scorer.asked(GRID)
        np.testing.assert_allclose(asked, GRID if expected == "preference" else GRID * 0 + 0.5)
        # The recorded number is that of the lists themselves.
        scores = scorer_scores(scorer, under, GRID, "expected_gain", "preference")
        ndcg = mean_over_lists(list_metrics(scores, labels, groups, 10, ("ndcg",)).values["ndcg"])
        assert found["preference"] == pytest.approx((GRID * ndcg).sum(axis=1).mean())
    # Without lists, or without a preference, there is nothing to choose by.
    assert fit(labels, log_odds, bad, None).validation == {}
    assert fit(labels, log_odds, None, groups).place() == "centre"


def test_one_goal_is_ordered_by_its_predictions():
    labels, log_odds, _ = conflicting_lists(50)
    scorer = fit(labels[:1], log_odds[:1])
    for fusion in FUSIONS:
        score = scorer.score(log_odds[:1].T, [1.0], fusion)
        assert (np.diff(score[np.argsort(log_odds[0])]) >= 0).all()


def test_constant_predictions_leave_rows_in_their_order():
    labels, log_odds, groups = conflicting_lists(50)
    constant = np.full_like(log_odds, -1.5)
    scorer = fit(labels, constant, np.stack([constant] * len(GRID)), groups)
    score = scorer.score(constant.T, [0.5, 0.5])
    np.testing.assert_allclose(score, 1, atol=1e-5)
    rank = ranks(score, groups)
    for group in np.unique(groups):
        np.testing.assert_array_equal(rank[groups == group], np.arange(1, 21))


def test_goals_without_positives():
    labels, log_odds, groups = conflicting_lists(30)
    labels[1] = 0
    scorer = fit(labels, log_odds, None, groups, training_rates=[0.4, 0.02])
    assert scorer.uncalibrated == ("buy",)
    assert scorer.scales[1] == 0.02
    with pytest.raises(UserError, match="goal buy has no positive among the training"):
        fit(labels, log_odds, None, groups, training_rates=[0.4, 0.0])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), lists=st.integers(1, 5))
def test_ranks_are_a_stable_sort_of_each_list(seed, lists):
    rng = np.random.default_rng(seed)
    scores, groups = rng.integers(0, 4, (2, 30)).astype(np.float32), rng.integers(0, lists, 30)
    found = ranks(scores, groups)
    for values, places in zip(scores, found, strict=True):
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group).tolist()
            order = sorted(rows, key=lambda row: -values[row])
            assert [places[row] for row in order] == list(range(1, len(rows) + 1))
    np.testing.assert_array_equal(ranks(scores[0]), ranks(scores[0], np.zeros(30)))
    assert ranks(np.zeros(0), np.zeros(0)).shape == (0,)


def test_the_file_is_read_as_written_and_damage_is_told(tmp_path):
    labels, log_odds, groups = conflicting_lists(50)
    scorer = fit(labels, log_odds, np.stack([log_odds] * len(GRID)), groups, step=7)
    path = tmp_path / "list_scorer.json"
    scorer.save(path)
    again = ListScorer.load(path)
    assert again.to_dict() == scorer.to_dict()
    for fusion in FUSIONS:
        one, other = (each.score(log_odds.T, [0.2, 0.8], fusion) for each in (scorer, again))
        np.testing.assert_array_equal(one, other)
    values = json.loads(path.read_text())
    for damaged in (
        json.dumps(values | {"scales": [1.0, 1.0]}),
        "{",
        "[]",
        json.dumps({"goals": ["click"]}),
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"damaged .*delete it, and it is fitted anew"):
            ListScorer.load(path)
    with pytest.raises(UserError, match="fusion 'sum': there are expected_gain, log_odds, product"):
        scorer.place("sum")


def test_far_predictions_stay_finite():
    labels, log_odds, _ = conflicting_lists(30)
    scorer = fit(labels, log_odds)
    for fusion in FUSIONS:
        score = scorer.score([[1e6, -1e6], [-1e6, 1e6]], [0.5, 0.5], fusion)
        assert np.isfinite(score).all()
