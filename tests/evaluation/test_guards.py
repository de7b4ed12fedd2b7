"""Guards and their bounds: what they promise, against brute force and on simulated data."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.exchange import exchange_rates, steps_around
from hyperrec_jax.evaluation.guarded_choice import Objective, search
from hyperrec_jax.evaluation.guards import Guard, check, lower_bounds, measures_of
from hyperrec_jax.evaluation.measures import Labelled
from hyperrec_jax.evaluation.paired import Measured, Resampler, list_terms, row_terms
from hyperrec_jax.goals import Statistics, create_goal
from hyperrec_jax.preference.grid import evaluation_grid

GOALS = (create_goal("binary", "click"), create_goal("binary", "buy"))
KNOWN = measures_of(GOALS, lists=True)
KINDS = {
    "binary": (1, lambda rng, n: rng.integers(0, 2, n)),
    "count": (1, lambda rng, n: rng.poisson(1.5, n)),
    "regression": (1, lambda rng, n: rng.normal(2, 3, n)),
    "value": (3, lambda rng, n: rng.lognormal(size=n) * rng.integers(0, 2, n)),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_the_metrics_on_every_resample(kind, weighted):
    rng = np.random.default_rng(1)
    outputs, draw = KINDS[kind]
    labels = draw(rng, 600)
    goal = create_goal(kind, "goal").fitted(Statistics.of(labels))
    weights = rng.uniform(0.5, 2, 600) if weighted else None
    logits = rng.normal(size=(600, outputs)) * 0.5
    logits[:, 0] += 0.3 * (labels > 0)
    rows = Labelled(labels, weights, None)
    drawn = Resampler(rng.integers(0, 150, 600), 40)
    times = drawn.unit_weights()[:, drawn.unit_of_row].astype(np.float64)
    summed = 0
    for name, metric in goal.metrics.items():
        terms = row_terms(goal, name, rows, logits)
        if terms is None:
            assert name in ("r2", "d2", "xauc", "spearman", "gini", "ece") or (
                weighted and "auc" in name
            )
            continue
        summed += 1
        found = drawn.measure([terms], [drawn.unit_of_row])
        np.testing.assert_allclose(found.values[0], metric(labels, logits, weights), rtol=1e-6)
        exact = [metric(labels, logits, one if weights is None else one * weights) for one in times]
        first_order = name.startswith("auc")
        np.testing.assert_allclose(
            found.samples[:, 0], exact, rtol=1e-5, atol=4e-3 if first_order else 1e-6
        )
    assert summed


def test_means_over_lists_are_resampled_with_their_units():
    values = np.array([0.5, np.nan, 1.0, 0.25, 0.75])
    drawn = Resampler(np.array([7, 7, 9, 9, 11]), 50)
    found = drawn.measure([list_terms(values)], [drawn.unit_of_row])
    times = drawn.unit_weights()[:, drawn.unit_of_row].astype(float)
    with np.errstate(invalid="ignore"):
        exact = (times * np.nan_to_num(values)).sum(1) / (times * ~np.isnan(values)).sum(1)
    np.testing.assert_allclose(found.samples[:, 0], exact, atol=1e-6)
    assert found.values[0] == 0.625


def test_the_bound_is_that_of_a_bootstrap_that_draws_rows():
    rng = np.random.default_rng(3)
    gains = rng.normal(size=(400, 3)).cumsum(axis=1) + np.array([0.1, 0.2, 0.3])
    drawn = Resampler(np.arange(400), 4000)
    found = drawn.measure([list_terms(g) for g in gains.T], [drawn.unit_of_row] * 3)
    bound = lower_bounds(found.values[:, None], found.samples[..., None], 0.95)[:, 0]
    brute = gains[rng.integers(0, 400, (4000, 400))].mean(axis=1)
    errors = brute - gains.mean(axis=0)
    scale = errors.std(axis=0)
    factor = np.quantile((errors / scale).max(axis=1), 0.95)
    np.testing.assert_allclose(bound, gains.mean(axis=0) - factor * scale, atol=0.012)
    assert factor > 1.7  # of one candidate alone it is 1.64


@settings(deadline=None)
@given(
    st.integers(0, 1000),
    st.lists(st.floats(0.5, 0.999), min_size=2, max_size=5),
    st.integers(1, 4),
)
def test_more_confidence_is_a_lower_bound(seed, confidences, candidates):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(200, candidates, 2)) * rng.uniform(0, 2, (candidates, 2))
    bounds = [lower_bounds(samples.mean(axis=0), samples, c) for c in sorted(confidences)]
    assert all((low >= high - 1e-12).all() for low, high in pairwise(bounds))


def test_what_never_differs_is_its_own_bound():
    bound = lower_bounds([[0.0, -0.01]], np.tile([0.0, -0.01], (50, 1, 1)), 0.95)
    np.testing.assert_array_equal(bound, [[0.0, -0.01]])


def simulated(rng):
    """100 users whose clicks fall, and purchases rise, by the weight of the second goal.

    The mean click of a user is 1 at equal weights and falls by .04 per unit of weight.
    """
    base, slope = 1 + rng.normal(size=100) * 0.2, 0.04 + rng.normal(size=100) * 0.1
    bend = rng.normal(size=100) * 0.1  # so that neighbouring preferences are no mere multiples
    users = np.stack([base, slope, bend, np.ones(100)], axis=1)
    seed = int(rng.integers(1 << 30))
    resampled = Resampler(np.arange(100), 300, seed).unit_weights().astype(float) @ users
    totals = np.concatenate([users.sum(axis=0)[None], resampled])

    def ask(preferences):
        weight = preferences[:, 1] - 0.5
        clicks = totals[:, :1] - totals[:, 1:2] * weight + totals[:, 2:3] * weight * (weight - 0.25)
        click = clicks / totals[:, 3:]
        both = np.stack([click, np.broadcast_to(1 + weight, click.shape)], axis=-1)
        return Measured(both[0], both[1:])

    return ask


def test_guards_hold_at_the_nominal_rate_where_estimates_do_not():
    rng = np.random.default_rng(5)
    guards = [Guard.parse("click>=-1%", KNOWN)]
    objective = Objective.parse("max:buy", KNOWN)
    names = ["ndcg@10/click", "ndcg@10/buy"]
    broken = {"bound": 0, "estimate": 0}
    used = []
    for _ in range(200):
        ask = simulated(rng)
        baseline = ask(np.array([[0.5, 0.5]]))
        grid = np.concatenate([evaluation_grid(2, 60), [[0.5, 0.5]]])
        found = search(ask, grid, baseline, objective, guards, names, 0.9)
        # The true click falls by .04 (w - .5), and by 1 % at w = .75.
        weight = found.preferences[found.chosen, 1]
        used.append(weight)
        broken["bound"] += weight > 0.75
        broken["estimate"] += found.preferences[found.by_estimate, 1] > 0.75
    assert broken["estimate"] > 60
    assert broken["bound"] <= 30  # 10 % of 200, and two standard errors
    assert np.mean(used) > 0.55  # and it is no refusal to move


def test_the_search_ends_between_the_points_of_the_grid():
    def ask(preferences):
        first = preferences[:, :1]
        values = np.concatenate([1 - (1 - first) ** 2, 1 - first**2], axis=1)
        return Measured(values, np.repeat(values[None], 5, axis=0))

    baseline = ask(np.array([[0.5, 0.5]]))
    names = ["ndcg@10/click", "ndcg@10/buy"]
    guards = [Guard.parse("click>=-0.0725", KNOWN)]  # 1 - .6775 from .75: at .43
    objective = Objective.parse("max:buy", KNOWN)
    found = search(ask, evaluation_grid(2, 12), baseline, objective, guards, names, 0.95)
    assert 0.4297 < found.preferences[found.chosen, 0] < 0.44
    assert len(found.preferences) <= 12 + 2 * 4


def test_no_preference_that_meets_a_guard_names_the_nearest():
    baseline = Measured(np.array([[0.9, 0.9]]), np.full((5, 1, 2), 0.9))

    def ask(preferences):
        return Measured(0.8 * preferences, np.repeat(0.8 * preferences[None], 5, axis=0))

    with pytest.raises(UserError, match=r"nearest is 1,0 .*click>=-1%: -1\d\.\d\d %") as caught:
        search(
            ask,
            evaluation_grid(2, 5),
            baseline,
            Objective.parse("max:buy", KNOWN),
            [Guard.parse("click>=-1%", KNOWN)],
            ["ndcg@10/click", "ndcg@10/buy"],
            0.95,
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "limit", "relative"),
    [
        ("click>=-1%", "ndcg@10/click", -0.01, True),
        ("auc/buy >= -0.002", "auc/buy", -0.002, False),
        ("log_loss/click<=+0.5%", "log_loss/click", -0.005, True),
        ("calibration/click<=+0.01", "calibration/click", -0.01, False),
        ("recall@10/buy>=+1e-3", "recall@10/buy", 0.001, False),
    ],
)
def test_guards_are_read(text, name, limit, relative):
    guard = Guard.parse(text, KNOWN)
    assert (guard.measure.name, guard.limit, guard.relative) == (
        name,
        pytest.approx(limit),
        relative,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("click", "not of the form"),
        ("clik>=-1%", "no goal or metric 'clik'; did you mean click"),
        ("click<=+1%", "higher is better in ndcg@10/click.*'click>=-1%'"),
        ("log_loss/click>=-1%", r"lower is better.*'log_loss/click<=\+1%'"),
        ("click>=1%", "with its sign"),
        ("calibration/click<=+1%", "give it without %"),
        ("click>=-1e999", "not a number"),
        ("click>=-1..2", "not a number"),
    ],
)
def test_a_bad_guard_is_told(text, message):
    with pytest.raises(UserError, match=message):
        Guard.parse(text, KNOWN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max:sale", "no goal or metric 'sale'"),
        ("max:log_loss/click", "goal that begins with min:"),
        ("min:click", "goal that begins with max:"),
        ("max:calibration/click", "best at 1: guard it"),
        ("max:-1*click", "'-1' is not a weight above 0"),
        ("max:x*click", "'x' is not a weight above 0"),
    ],
)
def test_a_bad_goal_is_told(text, message):
    with pytest.raises(UserError, match=message):
        Objective.parse(text, KNOWN)


def test_calibration_is_guarded_from_both_sides():
    guard = Guard.parse("calibration/click<=+0.01", KNOWN)
    values = Measured(np.array([[1.04], [0.98], [0.94]]), np.zeros((4, 3, 1)) + 1)
    baseline = Measured(np.array([[1.03]]), np.ones((4, 1, 1)))
    found = check([guard], [0], values, baseline, 0.9)
    np.testing.assert_allclose(found.change[:, 0], [-0.01, 0.01, -0.03])


def test_the_exchange_rate_is_the_slope_of_the_front():
    pairs, around = steps_around(np.array([0.4, 0.6]))
    assert pairs == [(0, 1)]
    np.testing.assert_allclose(around, [[0.45, 0.55], [0.35, 0.65]])
    rng = np.random.default_rng(0)
    values = np.stack([around[:, 0], 1 - 0.5 * around[:, 0]], axis=1)  # click costs half of buy
    samples = values + rng.normal(size=(500, 2, 2)) * 0.005
    mains = [KNOWN["click"], KNOWN["buy"]]
    (rate,) = exchange_rates(pairs, Measured(values, samples), mains, [0, 1], 0.95)
    assert rate.rate == pytest.approx(0.5)
    assert 0.3 < rate.low < 0.5 < rate.high < 0.7
    assert str(rate).startswith("one more point of ndcg@10/click costs 0.50 [")
    noise = values + rng.normal(size=(500, 2, 2))
    (none,) = exchange_rates(pairs, Measured(values, noise), mains, [0, 1], 0.95)
    assert np.isnan(none.rate)
    assert "no rate" in str(none)


def test_at_an_end_weight_moves_to_one_side_only():
    _, around = steps_around(np.array([1.0, 0.0]))
    np.testing.assert_allclose(around, [[1.0, 0.0], [0.95, 0.05]])
