"""Fairness goals against their definitions, written out in NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Rows, Statistics, create_goal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.fairness import Fairness
from hyperrec_jax.goals.losses import batch_losses, output_slices, predict_all

GENERATOR = np.random.default_rng(0)
OUTPUTS = (GENERATOR.normal(size=(3, 200, 1)) * 2).astype(np.float32)
LABELS = (GENERATOR.random(200) < 0.4).astype(np.uint8)
GROUPS = (GENERATOR.random(200) < 0.3).astype(np.uint8)
MASK = GENERATOR.random(200) < 0.8


def goal(**options: object) -> Fairness:
    made = create_goal("fairness", "equal", of="income", **options)
    assert isinstance(made, Fairness)
    return made


def rate_difference(yes: np.ndarray, groups: np.ndarray, mass: np.ndarray) -> float:
    rates = [np.average(yes[groups == g], weights=mass[groups == g]) for g in (0, 1)]
    return float(abs(rates[0] - rates[1]))


@pytest.mark.parametrize("measure", ["deo", "ddp"])
def test_tanh_surrogate_is_cosmos(measure: str) -> None:
    logits, labels = torch.from_numpy(OUTPUTS[0, :, 0]), torch.from_numpy(LABELS)
    member = torch.from_numpy(GROUPS).bool()
    chances = torch.tanh(torch.sigmoid(logits))
    counted = labels == 1 if measure == "deo" else torch.ones(200, dtype=torch.bool)
    sums = [chances[part & counted].sum() for part in (member, ~member)]
    expected = (sums[0] - sums[1]).abs() / 200
    loss = goal(measure=measure, surrogate="tanh").batch_loss(
        jnp.asarray(OUTPUTS[0]), Rows(GROUPS, counted.numpy())
    )
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_sigmoid_surrogate_is_a_difference_of_rates_with_its_gradient() -> None:
    weights = GENERATOR.uniform(0, 2, 200)
    made = goal(temperature=0.5, threshold=0.2)
    loss, slope = jax.jit(
        jax.value_and_grad(lambda out: made.batch_loss(out, Rows(GROUPS, MASK, weights)).sum())
    )(OUTPUTS)
    logits = torch.tensor(OUTPUTS[..., 0], dtype=torch.float64, requires_grad=True)
    yes = torch.sigmoid((logits - np.log(0.2 / 0.8)) / 0.5)
    mass = [torch.tensor(weights * MASK * (group == GROUPS)) for group in (0, 1)]
    rates = [(yes * m).sum(-1) / m.sum() for m in mass]
    expected = (rates[0] - rates[1]).abs()
    expected.sum().backward()
    assert loss == pytest.approx(expected.sum().item(), rel=1e-4)
    np.testing.assert_allclose(slope[..., 0], logits.grad, atol=1e-6)
    np.testing.assert_allclose(
        made.batch_loss(jnp.asarray(OUTPUTS), Rows(GROUPS, MASK, weights)),
        expected.detach(), rtol=1e-4,
    )  # fmt: skip


def test_shares_of_rows_are_their_influence() -> None:
    """How the difference moves with the weight of a row, by finite differences."""
    made, outputs = goal(temperature=1.0), jnp.asarray(OUTPUTS[0])
    shares = np.asarray(made.row_losses(outputs, Rows(GROUPS, MASK)), np.float64)
    value = float(made.batch_loss(outputs, Rows(GROUPS, MASK)))
    assert shares[MASK].mean() == pytest.approx(value, rel=1e-5)
    for row in np.flatnonzero(MASK)[:5]:
        weights = np.ones(200)
        weights[row] = 1.5
        moved = float(made.batch_loss(outputs, Rows(GROUPS, MASK, weights)))
        expected = 0.5 * (shares[row] - value) / (MASK.sum() + 0.5)
        assert moved - value == pytest.approx(expected, rel=0.1, abs=2e-6)


def test_cold_surrogate_is_the_hard_measure() -> None:
    made = goal(temperature=1e-5, threshold=0.3)
    loss = made.batch_loss(jnp.asarray(OUTPUTS[0]), Rows(GROUPS))
    hard = made.metrics["rate_difference"](GROUPS, OUTPUTS[0])
    assert loss == pytest.approx(hard, abs=1e-5)
    yes = (OUTPUTS[0, :, 0] > np.log(0.3 / 0.7)).astype(float)
    assert hard == pytest.approx(rate_difference(yes, GROUPS, np.ones(200)))


@pytest.mark.parametrize("surrogate", ["tanh", "sigmoid"])
def test_gradients_are_finite(surrogate: str) -> None:
    made = goal(surrogate=surrogate)
    function = jax.jit(jax.value_and_grad(lambda out, rows: made.batch_loss(out, rows).sum()))
    groups = np.where(MASK, GROUPS, np.nan)
    for outputs in (OUTPUTS, OUTPUTS * 1e4, OUTPUTS * 0):
        gradient = function(outputs, Rows(groups, MASK))[1]
        assert jnp.isfinite(gradient).all()
        assert not gradient[:, ~MASK].any()
    for known, mask in ((GROUPS * 0.0, MASK), (groups, np.zeros(200, bool))):
        loss, gradient = function(OUTPUTS, Rows(known, mask))
        assert jnp.isfinite(loss)
        assert jnp.isfinite(gradient).all()
        if surrogate == "sigmoid":  # a group without rows has no rate to differ from
            assert loss == 0
            assert not gradient.any()


def test_descent_makes_groups_alike() -> None:
    made, rows = goal(), Rows(GROUPS, LABELS == 1)
    shift = jnp.asarray(GROUPS * 2.0 - 1)[:, None]
    function = jax.jit(
        jax.value_and_grad(lambda step: made.batch_loss(OUTPUTS[0] + step * shift, rows))
    )
    step = jnp.float32(1)
    first = function(step)[0]
    for _ in range(100):
        step -= 0.2 * function(step)[1]
    there = LABELS == 1
    last = made.metrics["rate_difference"](GROUPS[there], (OUTPUTS[0] + step * shift)[there])
    assert first > 0.2
    assert last < 0.05


def test_a_constant_is_fair() -> None:
    made = goal()
    constant = jnp.full((200, 1), 0.7)
    assert made.batch_loss(constant, Rows(GROUPS)) == pytest.approx(0, abs=1e-6)
    assert made.metrics["rate_difference"](GROUPS, np.ones((200, 1))) == 0
    assert np.isnan(made.metrics["rate_difference"](GROUPS * 0, OUTPUTS[0]))
    assert made.constant_loss(Statistics.of(GROUPS)) == 1


def test_all_goals_of_a_batch_at_once() -> None:
    """The outputs of the goal that it reads, and the weights of the rows, reach it."""
    goals = [Binary("click"), Binary("income"), goal()]
    outputs = jnp.asarray(np.concatenate([OUTPUTS[..., :] * 0 + 1, OUTPUTS], axis=-1))
    assert output_slices(goals) == [slice(0, 1), slice(1, 2), slice(1, 2)]
    weights = GENERATOR.uniform(0, 2, 200).astype(np.float32)
    labels = np.stack([LABELS, LABELS, np.where(LABELS == 1, GROUPS, np.nan)], axis=1)
    losses = batch_losses(goals, outputs, jnp.asarray(labels, jnp.float32), weights)
    expected = goals[2].batch_loss(jnp.asarray(OUTPUTS), Rows(GROUPS, LABELS == 1, weights))
    np.testing.assert_allclose(losses[:, 2], expected, rtol=1e-5)
    decided = predict_all(goals, np.asarray(outputs))[..., 2]
    np.testing.assert_array_equal(decided, OUTPUTS[..., 0] > 0)


def test_refusals() -> None:
    for options, message in (
        ({"measure": "eo"}, "measure = 'eo' must be one of deo, ddp"),
        ({"surrogate": "relu"}, "surrogate = 'relu' must be one of sigmoid, tanh"),
        ({"temperature": 0.0}, "temperature = 0.0 must be a number above 0"),
        ({"threshold": 1.0}, "threshold = 1.0 must be between 0 and 1"),
        ({"value": 1}, "value = 1 must be text"),
    ):
        with pytest.raises(UserError, match=message):
            goal(**options)
    with pytest.raises(UserError, match="the option 'of' is missing"):
        create_goal("fairness", "equal")
    with pytest.raises(UserError, match="of = '' must be a name"):
        create_goal("fairness", "equal", of="")
    with pytest.raises(UserError, match="all training rows that count are of one group"):
        goal().fitted(Statistics.of(GROUPS * 0))
