"""The greedy order of lists whose variety counts, against the loop that it stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.schema import BINARY_KINDS, CategoricalField, GoalField, Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import list_goals
from hyperrec_jax.evaluation.list_metrics import list_metrics
from hyperrec_jax.evaluation.list_scorer import ListScorer, unfitted_scorer
from hyperrec_jax.evaluation.marginal_gain import add_variety, list_fusion
from hyperrec_jax.evaluation.varied import (
    Varied,
    VarietyGoal,
    category_rate,
    variety_goals,
    with_variety,
)
from hyperrec_jax.goals import GOALS
from hyperrec_jax.goals.binary import Binary

WEIGHTS, SCALES = np.array([0.6, 0.4]), np.array([0.1, 0.5])


def varied(measure, categories):
    return [Varied(VarietyGoal(1, "variety", 0, measure), categories)]


def schema(**options):
    goals = (GoalField("buy"), GoalField("variety", "variety", options))
    fields = (CategoricalField("shelf", 5),)
    return Schema("", fields, (), ("buy", "variety"), group="session", goals=goals)


@st.composite
def rows(draw: st.DrawFn):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 30))
    gain = generator.permutation(count) / draw(st.sampled_from([1, 4, 20]))
    return gain, generator.integers(0, 3, count), generator.integers(0, 4, count)


def greedily(gain, categories, bonus, measure):
    """Rows of one list, each in turn that which adds most to those before it."""
    left, order = list(range(len(gain))), []
    while left:
        before = [sum(categories[row] == categories[done] for done in order) for row in left]
        adds = [
            gain[row] + (bonus * (many == 0) if measure == "coverage" else -bonus * 2 / 9 * many)
            for row, many in zip(left, before, strict=True)
        ]
        order.append(left.pop(int(np.argmax(np.float32(adds)))))
    return order


@pytest.mark.parametrize("measure", ["coverage", "distinct_pairs"])
@settings(deadline=None, max_examples=60)
@given(data=rows())
def test_the_order_is_the_greedy_one(measure, data):
    gain, lists, categories = data
    # A bonus between the gains, so that no two rows add the same.
    scales = SCALES / 1.0371
    scores = add_variety(gain, WEIGHTS, scales, varied(measure, categories), lists)
    for one in np.unique(lists):
        own = np.flatnonzero(lists == one)
        order = own[np.argsort(-scores[own], kind="stable")]
        bonus = WEIGHTS[1] / scales[1]
        expected = own[greedily(gain[own], categories[own], bonus, measure)]
        np.testing.assert_array_equal(order, expected)


def test_where_variety_is_all_every_category_comes_first():
    categories = np.repeat([0, 1, 2, 3], [20, 5, 3, 2])
    gain = np.random.default_rng(0).random(30)
    of = varied("coverage", categories)
    scores = add_variety(gain * 1e-6, np.array([0.0, 1.0]), SCALES, of)
    assert set(categories[np.argsort(-scores)[:4]]) == {0, 1, 2, 3}


def test_metrics_of_lists_have_the_measure_in_the_place_of_ndcg():
    generator = np.random.default_rng(1)
    groups, categories = np.repeat(np.arange(6), 5), generator.integers(0, 3, 30)
    scores, labels = generator.random((2, 30)), generator.integers(0, 2, (2, 30))
    plain = list_metrics(scores, labels, groups, 3, ("ndcg", "map"))
    found = with_variety(plain, scores, groups, 3, varied("coverage", categories))
    expected = list_goals.coverage(list_goals.top_rows(scores, groups, 3), categories)
    np.testing.assert_array_equal(found.values["ndcg"][:, 1], expected)
    np.testing.assert_array_equal(found.values["ndcg"][:, 0], plain.values["ndcg"][:, 0])
    assert np.isnan(found.values["map"][:, 1]).all()
    assert with_variety(plain, scores, groups, 3, []) is plain


def test_the_scale_is_the_chance_to_stand_for_a_category():
    assert category_rate(np.array([7, 7, 7, 7, 9]), np.array([0, 0, 0, 1, 0])) == 3 / 5


def test_lists_are_ordered_by_their_variety_where_it_is_a_goal():
    plain = Schema("", (), (), ("buy",))
    assert list_fusion(schema(of="shelf"), None) == "marginal_gain"
    assert list_fusion(plain, None) == "expected_gain"
    free = unfitted_scorer(("buy",), [0.1], fusion="log_odds")
    assert list_fusion(plain, ListScorer.from_dict(free.to_dict())) == "log_odds"
    assert list_fusion(schema(of="shelf"), None, "product") == "product"
    with pytest.raises(UserError, match="no goal is of kind variety; take expected_gain"):
        list_fusion(plain, None, "marginal_gain")
    with pytest.raises(UserError, match=r"fusion 'sum': there are .*marginal_gain"):
        list_fusion(plain, None, "sum")
    with pytest.raises(UserError, match="of: no categorical field 'shelv'"):
        variety_goals(schema(of="shelv"))


def test_binary_kinds_are_those_of_the_goals():
    of_class = {k for k, g in GOALS.items() if isinstance(g, type) and issubclass(g, Binary)}
    assert of_class == set(BINARY_KINDS)
