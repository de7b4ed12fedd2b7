"""Goals of whole lists against their definitions, in loops over lists."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_goals import (
    coverage,
    distinct_pairs,
    exposure_gap,
    exposure_share,
    novelty,
    top_rows,
)
from hyperrec_jax.evaluation.list_metrics import bootstrap, mean_over_lists

quick = settings(deadline=None, max_examples=60)


@st.composite
def sessions(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = rng.integers(1, 9, draw(st.integers(1, 6)))
    groups = rng.permutation(np.repeat(rng.permutation(50)[: len(lengths)] - 9, lengths))
    rows = len(groups)
    return {
        "scores": rng.permuted(np.tile(np.arange(rows, dtype=float), (2, 1)), axis=1),
        "groups": groups,
        "categories": rng.choice(["tea", "milk", "beer", "rice"], rows),
        "members": rng.random(rows) < 0.5,
        "popularity": rng.uniform(0.01, 1, rows),
    }


@quick
@given(data=sessions(), k=st.sampled_from([1, 3, 5, 20]))
def test_values_follow_their_definitions(data, k):
    top = top_rows(data["scores"], data["groups"], k)
    results = {
        "coverage": coverage(top, data["categories"]),
        "pairs": distinct_pairs(top, data["categories"]),
        "exposure": exposure_share(top, data["members"]),
        "novelty": novelty(top, data["popularity"]),
    }
    np.testing.assert_array_equal(top.groups, np.unique(data["groups"]))
    for p, (one, group) in itertools.product(range(2), enumerate(top.groups)):
        members = np.flatnonzero(data["groups"] == group)
        first = members[np.argsort(-data["scores"][p, members])][:k]
        shown = data["categories"][first]
        np.testing.assert_array_equal(top.rows[p, one, : len(first)], first)
        assert np.all(top.rows[p, one, len(first) :] == -1)
        best = min(k, len(set(data["categories"][members])))
        couples = [a != b for a, b in itertools.combinations(shown, 2)]
        exposure = 1 / np.log2(np.arange(len(first)) + 2)
        expected = {
            "coverage": len(set(shown)) / best,
            "pairs": np.mean(couples) if couples else np.nan,
            "exposure": exposure[data["members"][first]].sum() / exposure.sum(),
            "novelty": -np.log2(data["popularity"][first]).mean(),
        }
        for name, value in expected.items():
            assert results[name][p, one] == pytest.approx(value, nan_ok=True), name


def test_ties_favour_no_row_for_its_place():
    # Of 20 equal rows the first 5 are members, as positives that come first in a log.
    groups = np.repeat(np.arange(2000), 20)
    members = np.tile(np.arange(20) < 5, 2000)
    top = top_rows(np.zeros((2, 40_000)), groups, k=5)
    assert exposure_share(top, members).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(top.rows[0], top.rows[1])
    again = top_rows(np.zeros((1, 40_000)), groups, k=5)
    np.testing.assert_array_equal(again.rows[0], top.rows[0])


def test_exposure_gap():
    share = np.array([[0.2, 0.4], [0.9, 0.5]])
    np.testing.assert_allclose(exposure_gap(share, 0.5), [0.2, 0.2])
    np.testing.assert_allclose(exposure_gap(share, [0.2, 0.4]), [0, 0.4])


def test_they_go_to_the_bootstrap():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 6)
    top = top_rows(rng.normal(size=(3, 300)), groups, k=3)
    categories = rng.integers(0, 3, 300)
    values = np.stack([coverage(top, categories), distinct_pairs(top, categories)], axis=1)
    samples = bootstrap(values, resamples=400)
    np.testing.assert_allclose(samples.mean(0), mean_over_lists(values), atol=0.01)


def test_unusable_input_is_refused():
    with pytest.raises(UserError, match="1 of 2 scores are NaN"):
        top_rows([[0, np.nan]], [1, 1])
    with pytest.raises(ValueError, match=r"groups \(3,\) \[row\]"):
        top_rows(np.zeros((1, 2)), [1, 1, 1])
    with pytest.raises(ValueError, match="at least one rank"):
        top_rows(np.zeros((1, 2)), [1, 1], k=0)
    top = top_rows(np.zeros((1, 2)), [1, 1])
    with pytest.raises(ValueError, match="one per row"):
        coverage(top, [1, 2, 3])
    for bad in (0, 1.5, np.nan):
        with pytest.raises(ValueError, match="popularity"):
            novelty(top, [0.5, bad])
