"""List losses against loops in NumPy, scikit-learn, and the definitions of their papers."""

import itertools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from hyperrec_jax.preference import list_losses
from hyperrec_jax.preference.list_losses import (
    approx_ndcg,
    has_positive,
    lambda_ndcg,
    list_softmax,
    mean_over_lists,
    soft_ranks,
    to_lists,
)
from tests.conftest import ROOT
from tests.support.compiled import compiled as compiled_call

LISTS, ITEMS, GOALS, PREFERENCES = 5, 7, 2, 3
LOSSES = {"softmax": list_softmax, "lambda": lambda_ndcg, "approx": approx_ndcg}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
quick = settings(deadline=None, max_examples=25)
# One shape and one program for all examples: compiling is what takes long.
compiled = {name: jax.jit(loss) for name, loss in LOSSES.items()}
compiled_lambda = jax.jit(lambda_ndcg, static_argnames="k")


@st.composite
def padded(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores (with ties), gains for each goal (binary, graded or real), mask, preferences."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (LISTS, ITEMS, GOALS)
    kind = draw(st.sampled_from(["binary", "graded", "real", "none"]))
    gains = {
        "binary": rng.random(shape) < 0.3,
        "graded": rng.integers(0, 4, shape),
        "real": np.log1p(rng.exponential(20, shape)) * (rng.random(shape) < 0.4),
        "none": np.zeros(shape),
    }[kind].astype(np.float32)
    mask = np.arange(ITEMS) < rng.integers(0, ITEMS + 1, LISTS)[:, None]
    scores = rng.normal(size=(PREFERENCES, LISTS, ITEMS)).astype(np.float32)
    if draw(st.booleans()):
        scores = np.round(scores)
    preferences = rng.dirichlet([0.5] * GOALS, PREFERENCES).astype(np.float32)
    return scores, gains, mask, preferences


def best_dcg(gains: np.ndarray, k: int) -> float:
    return sum(g / np.log2(r + 2) for r, g in enumerate(sorted(gains, reverse=True)[:k]))


def relative(gains: np.ndarray, preference: np.ndarray, best) -> np.ndarray:
    """Mixed gains [item] of a list [item, goal], by the definition."""
    mixed = np.zeros(len(gains))
    for goal, weight in enumerate(preference):
        scale = best(gains[:, goal])
        if scale > 0:
            mixed += weight * gains[:, goal] / scale
    return mixed


def softmax_by_hand(scores: np.ndarray, gains: np.ndarray, preference: np.ndarray) -> float:
    target = relative(gains, preference, np.sum)
    if not len(scores):
        return 0.0
    log_probability = scores - np.log(np.sum(np.exp(scores.astype(float))))
    return -float(np.sum(target * log_probability))


def lambda_by_hand(
    scores: np.ndarray, gains: np.ndarray, preference: np.ndarray, k: int = 10
) -> float:
    mixed = relative(gains, preference, lambda g: best_dcg(g, k))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], mixed[i]))
    rank = {item: place for place, item in enumerate(order)}
    discount = [1 / np.log2(rank[i] + 2) if rank[i] < k else 0 for i in range(len(scores))]
    total = 0.0
    for i, j in itertools.permutations(range(len(scores)), 2):
        if mixed[i] > mixed[j]:
            change = (mixed[i] - mixed[j]) * abs(discount[i] - discount[j])
            total += change * np.log1p(np.exp(-(float(scores[i]) - float(scores[j]))))
    return total


def approx_by_hand(
    scores: np.ndarray, gains: np.ndarray, preference: np.ndarray, temperature: float = 0.1
) -> float:
    mixed = relative(gains, preference, lambda g: best_dcg(g, len(g)))
    loss = sum(w for goal, w in enumerate(preference) if np.any(gains[:, goal] > 0))
    for i in range(len(scores)):
        rank = 1 + sum(
            1 / (1 + np.exp((float(scores[i]) - float(scores[j])) / temperature))
            for j in range(len(scores))
            if j != i
        )
        loss -= mixed[i] / np.log2(1 + rank)
    return float(loss)


BY_HAND = {"softmax": softmax_by_hand, "lambda": lambda_by_hand, "approx": approx_by_hand}


@pytest.mark.parametrize("name", LOSSES)
@quick
@given(data=padded())
def test_mixed_losses_follow_their_definition(name, data):
    scores, gains, mask, preferences = data
    losses = compiled[name](scores, gains, mask, preferences)
    assert losses.shape == (PREFERENCES, LISTS)
    for p, one in itertools.product(range(PREFERENCES), range(LISTS)):
        here = mask[one]
        expected = BY_HAND[name](scores[p, one, here], gains[one, here], preferences[p])
        assert losses[p, one] == pytest.approx(expected, rel=2e-4, abs=2e-5)


@pytest.mark.parametrize("name", LOSSES)
@quick
@given(data=padded())
def test_one_goal_is_a_preference_for_it(name, data):
    scores, gains, mask, _ = data
    sure = np.zeros((PREFERENCES, GOALS), np.float32)
    sure[:, 1] = 1
    np.testing.assert_allclose(
        compiled[name](scores, gains[..., 1], mask),
        compiled[name](scores, gains, mask, sure),
        rtol=1e-5,
        atol=1e-6,
    )


@quick
@given(data=padded())
def test_softmax_of_mixed_gains_is_the_weighted_sum_of_the_goals_losses(data):
    scores, gains, mask, preferences = data
    mixed = compiled["softmax"](scores, gains, mask, preferences)
    each = np.stack([compiled["softmax"](scores, gains[..., i], mask) for i in range(GOALS)], -1)
    np.testing.assert_allclose(mixed, (each * preferences[:, None]).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@quick
@given(data=padded())
def test_preferences_may_differ_from_list_to_list(name, data):
    scores, gains, mask, preferences = data
    of_list = np.arange(LISTS) % PREFERENCES
    whole = compiled[name](scores, gains, mask, preferences)
    own = compiled[name](scores[of_list, np.arange(LISTS)], gains, mask, preferences[of_list])
    np.testing.assert_allclose(own, whole[of_list, np.arange(LISTS)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@quick
@given(data=padded())
def test_padding_changes_nothing_and_gradients_are_finite(name, data):
    scores, gains, mask, preferences = data
    rubbish = np.where(mask, scores, np.nan)
    rubbish_gains = np.where(mask[..., None], gains, np.float32(7))
    loss = compiled[name](scores, gains, mask, preferences)
    np.testing.assert_array_equal(compiled[name](rubbish, rubbish_gains, mask, preferences), loss)
    empty = ~np.asarray(has_positive(gains, mask)).any(-1)
    assert np.all(np.asarray(loss)[:, empty] == 0)
    by_scores, by_preferences = _gradients[name](rubbish, gains, mask, preferences)
    assert np.isfinite(by_scores).all()
    assert np.isfinite(by_preferences).all()
    assert np.all(np.asarray(by_scores)[:, ~mask] == 0)
    assert np.all(np.asarray(by_scores)[:, empty] == 0)


_gradients = {
    name: jax.jit(jax.grad(lambda s, g, m, r, loss=loss: loss(s, g, m, r).sum(), argnums=(0, 3)))
    for name, loss in LOSSES.items()
}


@pytest.mark.parametrize("name", LOSSES)
@quick
@given(data=padded())
def test_the_order_of_the_rows_does_not_matter(name, data):
    scores, gains, mask, preferences = data
    turned = slice(None, None, -1)
    np.testing.assert_allclose(
        compiled[name](
            scores[..., turned],
            gains[:, turned],
            np.ascontiguousarray(mask[:, turned]),
            preferences,
        ),
        compiled[name](scores, gains, mask, preferences),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("k", [1, 2, 20])
@quick
@given(data=padded())
def test_lambda_with_a_cutoff(k, data):
    scores, gains, mask, preferences = data
    losses = compiled_lambda(scores, gains, mask, preferences, k=k)
    for p, one in itertools.product(range(PREFERENCES), range(LISTS)):
        here = mask[one]
        expected = lambda_by_hand(scores[p, one, here], gains[one, here], preferences[p], k)
        assert losses[p, one] == pytest.approx(expected, rel=2e-4, abs=2e-5)


def test_lambda_weights_are_scikit_learns_changes_of_ndcg():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=8).astype(np.float32)
    gains = rng.integers(0, 4, 8).astype(np.float32)
    (gradient,) = compiled_call(
        jax.grad(lambda s: lambda_ndcg(s, gains[None], np.ones((1, 8)), k=3).sum()), scores[None]
    )
    expected = np.zeros(8)
    before = ndcg_score([gains], [scores], k=3)
    for i, j in itertools.combinations(range(8), 2):
        swapped = scores.copy()
        swapped[[i, j]] = scores[[j, i]]
        change = abs(ndcg_score([gains], [swapped], k=3) - before)
        high, low = (i, j) if gains[i] > gains[j] else (j, i)
        force = change / (1 + np.exp(scores[high] - scores[low]))
        expected[high] -= force
        expected[low] += force
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_lambda_of_equal_scores_still_orders_the_items():
    gains = jnp.array([[1.0, 0, 0, 0], [0, 0, 0, 1]])
    gradient = np.asarray(
        compiled_call(
            jax.grad(lambda s: lambda_ndcg(s, gains, jnp.ones((2, 4)), k=2).sum()), np.zeros((2, 4))
        )
    )
    assert gradient[0, 0] < 0 < gradient[0, 1]
    # The positive is taken as the last of its equals, wherever its row is.
    assert gradient[0, 0] == pytest.approx(gradient[1, 3])


@pytest.mark.parametrize("k", [None, 3])
def test_approx_ndcg_becomes_ndcg(k):
    rng = np.random.default_rng(5)
    scores, gains = (
        rng.permuted(np.arange(16.0).reshape(2, 8), axis=1),
        rng.exponential(size=(2, 8)),
    )
    loss = compiled_call(approx_ndcg, scores, gains, np.ones((2, 8)), temperature=0.01, k=k)
    expected = [1 - ndcg_score(gains[i : i + 1], scores[i : i + 1], k=k) for i in range(2)]
    np.testing.assert_allclose(loss, expected, atol=1e-5)


def test_soft_ranks_become_ranks():
    ranks = soft_ranks(jnp.array([[3.0, 1, 2, 9]]), jnp.array([[1, 1, 1, 0]]), 0.01)
    np.testing.assert_allclose(ranks, [[1, 3, 2, 1]], atol=1e-6)


@every_loss
def test_training_by_a_loss_orders_the_list(loss):
    gains = jnp.asarray(np.random.default_rng(0).permuted(np.tile(np.arange(6.0), (3, 1)), axis=1))
    mask = jnp.ones((3, 6))

    @jax.jit
    def descend(scores):
        step = jax.grad(lambda s: loss(s, gains, mask).sum())
        return jax.lax.fori_loop(0, 400, lambda _, s: s - 0.3 * step(s), scores)

    scores = descend(jnp.asarray(0.1 * np.random.default_rng(1).normal(size=(3, 6))))
    assert ndcg_score(gains, scores) > 0.99


@every_loss
def test_half_precision_scores_are_summed_in_single(loss):
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.bfloat16)
    gains, mask = jnp.eye(6)[:2], jnp.ones((2, 6))
    losses = compiled_call(loss, scores, gains, mask)
    assert losses.dtype == jnp.float32
    single = compiled_call(loss, scores.astype(jnp.float32), gains, mask)
    np.testing.assert_array_equal(losses, single)


@every_loss
def test_nothing_on_the_way_is_nan(loss):
    # An empty list, a list without a positive gain, and one with padding.
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    gains = jnp.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    mask = jnp.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    with jax.debug_nans(True):
        losses, slope = jax.value_and_grad(lambda s: loss(s, gains, mask).sum())(scores)
    assert losses > 0
    assert jnp.all(slope[:2] == 0)


def test_lists_that_count():
    gains = jnp.array([[0.0, 1], [1, 0], [0, 0]])
    mask = jnp.array([[1, 1], [0, 1], [1, 1]])
    np.testing.assert_array_equal(has_positive(gains, mask), [True, False, False])
    goals = jnp.stack([gains, 1 - gains], -1)
    np.testing.assert_array_equal(
        has_positive(goals, mask), [[True, True], [False, True], [False, True]]
    )
    losses = jnp.array([[2.0, 5, 7], [4, 5, 7]])
    np.testing.assert_array_equal(mean_over_lists(losses, has_positive(gains, mask)), [2, 4])
    np.testing.assert_array_equal(mean_over_lists(losses, jnp.array([1.0, 0, 3])), [5.75, 6.25])
    nothing = mean_over_lists(losses, jnp.zeros(3))
    np.testing.assert_array_equal(nothing, [0, 0])


def test_rows_go_to_their_place_and_gradients_come_back():
    values = jnp.arange(10.0).reshape(2, 5)
    list_index, position = jnp.array([1, 0, 1, 2, 2]), jnp.array([0, 0, 2, 0, 1])
    grid = to_lists(values, list_index, position, num_lists=2, max_items=3, fill=-1)
    np.testing.assert_array_equal(grid[0], [[1, -1, -1], [0, -1, 2]])
    np.testing.assert_array_equal(grid[1], [[6, -1, -1], [5, -1, 7]])
    weights = jnp.arange(6.0).reshape(2, 3)
    gradient = jax.grad(lambda v: (to_lists(v, list_index, position, 2, 3) * weights).sum())(values)
    np.testing.assert_array_equal(gradient, [[3, 0, 5, 0, 0]] * 2)


@pytest.mark.slow
def test_lists_across_devices_have_the_same_loss():
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    }
    command = [sys.executable, "-m", "tests.preference.run_list_mesh"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (one, slope), (four, slope_of_four) = json.loads(run.stdout.splitlines()[-1])
    assert one > 1
    assert four == pytest.approx(one, rel=1e-5)
    np.testing.assert_allclose(slope_of_four, slope, atol=1e-6)
    assert np.abs(slope).max() > 0.01


def test_preferences_that_do_not_fit_are_refused():
    scores, gains = jnp.zeros((3, 2, 4)), jnp.zeros((2, 4, 2))
    with pytest.raises(ValueError, match=r"preferences \(2,\) fit scores"):
        list_losses.list_softmax(scores, gains, jnp.ones((2, 4)), jnp.ones(2))
    with pytest.raises(ValueError, match="at least one rank"):
        lambda_ndcg(scores, gains[..., 0], jnp.ones((2, 4)), k=0)
