"""Smooth goals of lists against the hard metrics of the same names, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.evaluation import list_goals as hard
from hyperrec_jax.preference import list_goals as soft

LISTS, ITEMS, K = 4, 8, 3
NAMES = ("coverage", "distinct_pairs", "exposure_share", "novelty")
quick = settings(deadline=None, max_examples=25)


@st.composite
def padded(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (LISTS, ITEMS)
    return {
        "scores": rng.permuted(np.tile(np.arange(8.0), (2, LISTS, 1)), axis=-1).astype(np.float32),
        "mask": np.arange(ITEMS) < rng.integers(0, ITEMS + 1, LISTS)[:, None],
        "coverage": rng.integers(0, 4, shape),
        "distinct_pairs": rng.integers(0, 3, shape),
        "exposure_share": (rng.random(shape) < 0.5).astype(np.float32),
        "novelty": rng.uniform(0.01, 1, shape).astype(np.float32),
    }


def _function(name: str, temperature: float):
    function = getattr(soft, name)
    return lambda scores, column, mask: function(scores, column, mask, k=K, temperature=temperature)


sharp = {name: jax.jit(_function(name, 0.02)) for name in NAMES}
smooth = {name: jax.jit(_function(name, 0.5)) for name in NAMES}
gradients = {
    name: jax.jit(jax.grad(lambda s, c, m, name=name: _function(name, 0.5)(s, c, m).sum()))
    for name in NAMES
}


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=padded())
def test_sharp_ones_are_the_hard_metric(name, data):
    values = sharp[name](data["scores"], data[name], data["mask"])
    assert values.shape == (2, LISTS)
    lists, items = np.nonzero(data["mask"])
    filled = np.flatnonzero(data["mask"].any(1))
    if len(filled):
        top = hard.top_rows(data["scores"][:, lists, items], lists, K)
        expected = getattr(hard, name)(top, data[name][lists, items])
        # Pairs of a list of one item have no share, and no gradient.
        expected = np.nan_to_num(expected, nan=0.0)
        np.testing.assert_allclose(values[:, filled], expected, rtol=1e-4, atol=1e-5)
    empty = np.setdiff1d(np.arange(LISTS), filled)
    np.testing.assert_array_equal(np.asarray(values)[:, empty], 0)


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=padded())
def test_padding_changes_nothing_and_gradients_are_finite(name, data):
    mask = data["mask"]
    rubbish = np.where(mask, data["scores"], np.nan)
    values = smooth[name](data["scores"], data[name], mask)
    other = np.where(mask, data[name], 2).astype(data[name].dtype)
    np.testing.assert_array_equal(smooth[name](rubbish, other, mask), values)
    slope = np.asarray(gradients[name](rubbish, data[name], mask))
    assert np.isfinite(slope).all()
    assert np.all(slope[:, ~mask] == 0)
    # All scores alike are no trap either.
    assert np.isfinite(gradients[name](0 * data["scores"], data[name], mask)).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_climb(name):
    rng = np.random.default_rng(0)
    scores = jnp.asarray(0.1 * rng.normal(size=(1, LISTS, ITEMS)), jnp.float32)
    # The worst list is on top at first: items 0 to 2 are alike, no members, and popular.
    scores = scores + jnp.where(jnp.arange(ITEMS) < 3, 0.5, 0)
    column = {
        "coverage": np.array([0, 0, 0, 1, 2, 0, 0, 0]),
        "distinct_pairs": np.array([0, 0, 0, 1, 2, 0, 0, 0]),
        "exposure_share": np.array([0, 0, 0, 1, 1, 1, 0, 0], np.float32),
        "novelty": np.array([0.9, 0.9, 0.9, 0.01, 0.01, 0.01, 0.9, 0.9], np.float32),
    }[name]
    column = jnp.asarray(np.tile(column, (LISTS, 1)))
    mask = jnp.ones((LISTS, ITEMS), bool)

    @jax.jit
    def climb(scores):
        def step(_, s):
            return s + 0.1 * gradients[name](s, column, mask)

        return jax.lax.fori_loop(0, 600, step, scores)

    groups = np.repeat(np.arange(LISTS), ITEMS)

    def measured(scores):
        top = hard.top_rows(np.asarray(scores).reshape(1, -1), groups, K)
        return getattr(hard, name)(top, np.asarray(column).ravel())

    best = -np.log2(0.01) if name == "novelty" else 1
    assert measured(scores).max() < 0.5 * best
    np.testing.assert_allclose(measured(climb(scores)), best, rtol=1e-5)


def test_exposure_gap():
    share = jnp.array([[0.2, 0.4, 0], [0.9, 0.5, 0]])
    counted = jnp.array([True, True, False])
    np.testing.assert_allclose(soft.exposure_gap(share, 0.5, counted), [0.2, 0.2], rtol=1e-5)
    targets = jnp.array([0.2, 0.4, 0.7])
    np.testing.assert_allclose(soft.exposure_gap(share, targets, counted), [0, 0.4], atol=1e-6)
    assert soft.exposure_gap(share, 0.5, jnp.zeros(3)).tolist() == [0, 0]


def test_limits_are_checked():
    scores, categories, mask = jnp.zeros((1, 3)), jnp.zeros((1, 3), int), jnp.ones((1, 3))
    with pytest.raises(ValueError, match="at least one rank"):
        soft.coverage(scores, categories, mask, k=0)
    with pytest.raises(ValueError, match="at least two ranks"):
        soft.distinct_pairs(scores, categories, mask, k=1)
