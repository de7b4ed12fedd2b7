"""Objectives against their formulas, other implementations and each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperrec_jax.errors import UserError
from hyperrec_jax.preference import weighting
from hyperrec_jax.preference.famo import FamoState
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.preference.objectives import (
    OBJECTIVES,
    create_objective,
)
from hyperrec_jax.preference.penalties import coverage_penalty, order_penalty

quick = settings(deadline=None, max_examples=40)
BASELINES = {"uniform", "mgda", "pcgrad", "nash", "famo"}
GRADIENTS = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
GRAM = jnp.asarray(GRADIENTS @ GRADIENTS.T)


@functools.cache
def compiled(name: str, **options: object):
    return jax.jit(create_objective(name, **options).loss)


def evaluate(name: str, losses, preferences, gram=None, **options: object) -> float:
    losses, preferences = (jnp.asarray(values, jnp.float32) for values in (losses, preferences))
    state = create_objective(name, **options).init(losses.shape[-1])
    return float(compiled(name, **options)(losses, preferences, gram, state))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_values_and_gradients_are_finite_everywhere(name: str) -> None:
    objective = create_objective(name)
    state = objective.init(3)
    value_and_grad = jax.jit(
        jax.value_and_grad(
            lambda losses, preferences, gram: objective.loss(losses, preferences, gram, state)
        )
    )
    corners = jnp.eye(3)
    even = jnp.full((3, 3), 1 / 3)
    equal, mixed = jnp.ones((3, 3)), jnp.asarray(np.random.default_rng(1).random((3, 3)))
    for losses in (jnp.zeros((3, 3)), equal, mixed, mixed.at[:, 0].set(0.0), 1e4 * mixed):
        for preferences in (corners, even):
            for gram in (GRAM, jnp.zeros((3, 3)), jnp.ones((3, 3))):
                value, slopes = value_and_grad(losses, preferences, gram)
                assert np.isfinite(value)
                assert np.isfinite(slopes).all()


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_several_preferences_are_their_mean(name: str) -> None:
    generator = np.random.default_rng(2)
    losses = generator.random((4, 2)).astype(np.float32)
    preferences = generator.dirichlet(np.ones(2), 4).astype(np.float32)
    objective = create_objective(name)
    state = objective.init(2)
    loss = jax.jit(
        lambda losses, preferences: objective.loss(losses, preferences, GRAM[:2, :2], state)
    )
    alone = [float(loss(*pair)) for pair in zip(losses, preferences, strict=True)]
    assert float(loss(losses[:1], preferences[:1])) == pytest.approx(alone[0], rel=1e-5)
    if name in BASELINES:
        assert not objective.conditioned
        assert loss(losses, preferences) == pytest.approx(
            float(loss(losses.mean(axis=0), preferences[0]))
        )
    else:
        assert objective.conditioned
        if name != "hypervolume":  # whose preferences see each other
            assert loss(losses, preferences) == pytest.approx(np.mean(alone), rel=1e-5)


@quick
@given(seed=st.integers(0, 2**32 - 1), tasks=st.sampled_from([1, 2, 4]))
def test_scalarisations_are_their_formulas(seed: int, tasks: int) -> None:
    generator = np.random.default_rng(seed)
    losses = generator.exponential(0.3, tasks).astype(np.float32)
    preference = generator.dirichlet(np.ones(tasks)).astype(np.float32)
    weighted = (preference * losses).astype(np.float64)

    def torch_cosine(target: np.ndarray) -> float:
        pair = (torch.from_numpy(x) for x in (losses, target.astype(np.float32)))
        return float(torch.nn.functional.cosine_similarity(*pair, dim=0))

    formulas = {
        "linear": weighted.sum(),
        "cosine": weighted.sum() - 0.01 * torch_cosine(preference),
        "cosine_original": weighted.sum() - 0.05 * torch_cosine(1 - preference),
        "chebyshev": weighted.max(),
        "smooth_chebyshev": 0.01 * np.log(np.exp(weighted / 0.01 - weighted.max() / 0.01).sum())
        + weighted.max(),
    }
    for name, expected in formulas.items():
        assert evaluate(name, losses, preference) == pytest.approx(expected, rel=1e-4, abs=1e-5), (
            name
        )


def test_smooth_chebyshev_tends_to_chebyshev() -> None:
    losses, preference = [0.5, 0.3, 0.9], [0.3, 0.5, 0.2]
    exact = evaluate("chebyshev", losses, preference)
    gaps = [
        evaluate("smooth_chebyshev", losses, preference, temperature=t) - exact
        for t in (0.1, 0.01, 1e-3)
    ]
    assert gaps[0] > gaps[1] > gaps[2] >= 0
    assert gaps[0] <= 0.1 * np.log(3)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mgda", lambda losses, preference, gram: weighting.min_norm(gram)),
        ("nash", lambda losses, preference, gram: weighting.nash(gram)),
        ("epo", weighting.epo),
        (
            "pareto_mtl",
            lambda losses, preference, gram: weighting.pareto_mtl(
                losses, preference, gram, jnp.asarray(evaluation_grid(2, 5))
            ),
        ),
    ],
)
def test_weights_are_constant_to_the_gradient(name: str, weights) -> None:
    losses, preference, gram = jnp.array([0.3, 0.1]), jnp.array([0.2, 0.8]), GRAM[:2, :2]
    objective = create_objective(name)
    assert objective.needs_gram
    slopes = jax.jit(jax.grad(lambda x: objective.loss(x, preference, gram, ())))(losses)
    np.testing.assert_allclose(slopes, jax.jit(weights)(losses, preference, gram), rtol=1e-5)


def test_pcgrad_draws_a_new_order_each_step() -> None:
    gradients = np.array([[1.0, 0, 0], [-0.9, 1, 0], [-0.5, -0.8, 1]], np.float32)
    objective = create_objective("pcgrad")
    gram, losses = jnp.asarray(gradients @ gradients.T), jnp.ones(3)
    state, values = objective.init(3), set()
    for _ in range(8):
        values.add(round(float(objective.loss(losses, losses, gram, state)), 4))
        state = objective.update(state, losses)
    assert len(values) > 1


def test_hypervolume_spreads_preferences_to_their_sides() -> None:
    # Gradient descent on points of the front (x^2, (1 - x)^2) itself, one per preference.
    preferences = jnp.asarray(evaluation_grid(2, 8), jnp.float32)
    objective = create_objective("hypervolume")

    def losses(x: jax.Array) -> jax.Array:
        return jnp.stack([x**2, (1 - x) ** 2], axis=1)

    slope = jax.grad(lambda x: objective.loss(losses(x), preferences, None, ()))
    x = jax.lax.fori_loop(0, 1500, lambda _, x: x - 0.02 * slope(x), jnp.full(8, 0.4))
    assert (np.diff(x) > 0).all()  # the first preference favours the first task
    assert np.ptp(x) > 0.6


def official_famo(losses: np.ndarray, rate: float, decay: float) -> np.ndarray:
    """Weights a step, by the authors' algorithm in PyTorch."""
    logits = torch.zeros(losses.shape[1], requires_grad=True)
    adam = torch.optim.Adam([logits], lr=rate, weight_decay=decay)
    weights = []
    for step, now in enumerate(torch.from_numpy(losses)):
        if step:
            before = torch.from_numpy(losses[step - 1])
            change = before.log() - now.log()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(
                    torch.softmax(logits, -1), logits, grad_outputs=change
                )
            adam.zero_grad()
            logits.grad = gradient
            adam.step()
        inverse = torch.softmax(logits, -1).detach() / now
        weights.append((inverse / inverse.sum()).numpy())
    return np.array(weights)


def test_famo_is_the_authors_algorithm() -> None:
    losses = np.random.default_rng(0).uniform(0.1, 1, (20, 3)).astype(np.float32)
    expected = official_famo(losses, 0.025, 0.001)
    objective = create_objective("famo")
    state = objective.init(3)
    # The authors' optimizer first steps after the second losses are known.
    state = FamoState(state.logits, jnp.log(losses[0]), state.steps + 1, state.optimizer)
    slopes = jax.jit(jax.grad(lambda x, state: objective.loss(x, x, None, state)))
    update = jax.jit(objective.update)
    for now, weights in zip(losses[1:], expected[1:], strict=True):
        state = update(state, jnp.asarray(now))
        np.testing.assert_allclose(slopes(jnp.asarray(now), state), weights, rtol=1e-3)
    assert np.ptp(state.logits) > 0.01


def test_order_penalty_is_zero_only_in_order() -> None:
    preferences = jnp.asarray(evaluation_grid(2, 5))
    x = jnp.linspace(0, 1, 5)
    obeying = jnp.stack([x, 1 - x], axis=1)
    assert order_penalty(obeying, preferences) == 0
    shuffled = jnp.array([3, 0, 4, 1, 2])
    assert order_penalty(obeying[shuffled], preferences[shuffled]) == 0
    assert order_penalty(obeying[::-1], preferences) == pytest.approx(2 * 0.25, rel=1e-5)
    swapped = obeying[jnp.array([0, 2, 1, 3, 4])]
    expected = 2 * np.log((3 + np.exp(10 * 0.25)) / 4) / 10
    assert order_penalty(swapped, preferences) == pytest.approx(expected, rel=1e-5)


def test_order_penalty_lets_equal_weights_be() -> None:
    preferences = jnp.array([[0.5, 0.5], [0.5, 0.5]])
    assert order_penalty(jnp.array([[0.1, 0.9], [0.9, 0.1]]), preferences) == 0


def test_coverage_penalty_is_a_divergence_of_shares() -> None:
    preference = np.array([0.2, 0.3, 0.5])
    assert coverage_penalty(jnp.asarray(1 / preference), jnp.asarray(preference)) == pytest.approx(
        0, abs=1e-6
    )
    losses = np.array([0.5, 0.2, 0.9])
    shares = preference * losses / (preference * losses).sum()
    softmax = np.exp(shares) / np.exp(shares).sum()
    assert coverage_penalty(jnp.asarray(losses), jnp.asarray(preference)) == pytest.approx(
        stats.entropy(np.full(3, 1 / 3), softmax), rel=1e-4
    )


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - BASELINES))
def test_penalties_add_to_any_conditioned_objective(name: str) -> None:
    preferences = np.array([[0.7, 0.3], [0.1, 0.9]])
    losses = np.array([[0.9, 0.2], [0.2, 0.4]])
    gram = GRAM[:2, :2]
    plain = evaluate(name, losses, preferences, gram)
    both = evaluate(name, losses, preferences, gram, order=2.0, coverage=3.0)
    pairs = zip(jnp.asarray(losses), jnp.asarray(preferences), strict=True)
    spread = np.mean([coverage_penalty(*pair) for pair in pairs])
    penalties = 2 * order_penalty(jnp.asarray(losses), jnp.asarray(preferences)) + 3 * spread
    assert both == pytest.approx(plain + float(penalties), rel=1e-4)


@pytest.mark.parametrize("penalty", ["order", "coverage"])
@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - BASELINES))
def test_penalties_keep_the_flags_but_linear_and_what_coverage_reads(
    name: str, penalty: str
) -> None:
    plain, both = create_objective(name), create_objective(name, **{penalty: 1.0})
    flags = [field.name for field in dataclasses.fields(plain) if field.type is bool]
    assert {"conditioned", "needs_gram", "linear", "directed"} == set(flags)
    expected = {flag: getattr(plain, flag) for flag in flags} | {"linear": False}
    if penalty == "coverage":  # the shares of the losses depend on where their origin is
        expected["directed"] = True
    assert {flag: getattr(both, flag) for flag in flags} == expected
    assert both.init is plain.init
    assert both.update is plain.update


def test_only_linear_objectives_say_so() -> None:
    linear = {name for name in OBJECTIVES if create_objective(name).linear}
    assert linear == {"linear", "uniform"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tchebycheff", {}, "no objective 'tchebycheff'; did you mean chebyshev"),
        ("linear", {"weight": 1.0}, "has no option 'weight'; there are none"),
        ("cosine", {"temperature": 1.0}, "there are weight"),
        ("uniform", {"order": 1.0}, "ignores the preference"),
        ("linear", {"coverage": -1.0}, "give a number of at least 0"),
    ],
)
def test_bad_objectives_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_objective(name, **options)


def test_order_needs_several_preferences() -> None:
    with pytest.raises(UserError, match="needs several per batch"):
        evaluate("linear", [0.1, 0.2], [0.5, 0.5], order=1.0)
