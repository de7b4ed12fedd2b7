"""Fairness goals against their definitions, written out in NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Rows, create_goal
from hyperrec_jax.goals.fairness import Fairness

GENERATOR = np.random.default_rng(0)
OUTPUTS = (GENERATOR.normal(size=(3, 200, 1)) * 2).astype(np.float32)
LABELS = (GENERATOR.random(200) < 0.4).astype(np.uint8)
GROUPS = (GENERATOR.random(200) < 0.3).astype(np.uint8)
MASK = GENERATOR.random(200) < 0.8


def goal(**options: object) -> Fairness:
    made = create_goal("fairness", "equal", of="income", group="sex", **options)
    assert isinstance(made, Fairness)
    return made


def rate_difference(
    yes: np.ndarray, labels: np.ndarray, groups: np.ndarray, measure: str, mass: np.ndarray
) -> float:
    counted = mass * (labels == 1) if measure == "deo" else mass
    rates = [np.average(yes[groups == g], weights=counted[groups == g]) for g in (0, 1)]
    return abs(rates[0] - rates[1])


@pytest.mark.parametrize("measure", ["deo", "ddp"])
def test_tanh_surrogate_is_cosmos(measure: str) -> None:
    logits, labels = torch.from_numpy(OUTPUTS[0, :, 0]), torch.from_numpy(LABELS)
    member = torch.from_numpy(GROUPS).bool()
    chances = torch.tanh(torch.sigmoid(logits))
    counted = labels == 1 if measure == "deo" else torch.ones(200, dtype=torch.bool)
    sums = [chances[part & counted].sum() for part in (member, ~member)]
    expected = (sums[0] - sums[1]).abs() / 200
    loss = goal(measure=measure, surrogate="tanh").batch_loss(
        jnp.asarray(OUTPUTS[0]), Rows(LABELS, groups=GROUPS)
    )
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("measure", ["deo", "ddp"])
def test_sigmoid_surrogate_is_a_difference_of_rates(measure: str) -> None:
    weights = GENERATOR.uniform(0, 2, 200)
    made = goal(measure=measure, temperature=0.5, threshold=0.2)
    loss = jax.jit(made.batch_loss)(OUTPUTS, Rows(LABELS, MASK, weights, GROUPS))
    assert loss.shape == (3,)
    for outputs, value in zip(OUTPUTS[..., 0].astype(float), loss, strict=True):
        yes = 1 / (1 + np.exp(-(outputs - np.log(0.2 / 0.8)) / 0.5))
        expected = rate_difference(yes[MASK], LABELS[MASK], GROUPS[MASK], measure, weights[MASK])
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("measure", ["deo", "ddp"])
def test_cold_surrogate_is_the_hard_measure(measure: str) -> None:
    made = goal(measure=measure, temperature=1e-5, threshold=0.3)
    loss = made.batch_loss(jnp.asarray(OUTPUTS[0]), Rows(LABELS, groups=GROUPS))
    hard = made.metrics["rate_difference"](LABELS, OUTPUTS[0], groups=GROUPS)
    assert loss == pytest.approx(hard, abs=1e-5)
    yes = (OUTPUTS[0, :, 0] > np.log(0.3 / 0.7)).astype(float)
    assert hard == pytest.approx(rate_difference(yes, LABELS, GROUPS, measure, np.ones(200)))


def test_count_difference_is_cosmos_score() -> None:
    yes = OUTPUTS[0, :, 0] > 0
    counts = [(yes & (LABELS == 1) & (group == GROUPS)).sum() for group in (0, 1)]
    metric = goal().metrics["count_difference"]
    value = metric(LABELS, OUTPUTS[0], groups=GROUPS)
    assert value == pytest.approx(abs(int(counts[0]) - int(counts[1])) / 200)
    weighted = metric(LABELS, OUTPUTS[0], MASK.astype(float), GROUPS)
    assert weighted == pytest.approx(metric(LABELS[MASK], OUTPUTS[0][MASK], groups=GROUPS[MASK]))


@pytest.mark.parametrize("surrogate", ["tanh", "sigmoid"])
def test_gradients_are_finite(surrogate: str) -> None:
    made = goal(surrogate=surrogate)
    function = jax.jit(jax.value_and_grad(lambda out, rows: made.batch_loss(out, rows).sum()))
    labels = np.where(MASK, LABELS, np.nan)
    for outputs in (OUTPUTS, OUTPUTS * 1e4, OUTPUTS * 0):
        gradient = function(outputs, Rows(labels, MASK, groups=GROUPS))[1]
        assert jnp.isfinite(gradient).all()
        assert not gradient[:, ~MASK].any()
    for groups, mask in ((GROUPS * 0, MASK), (GROUPS, np.zeros(200, bool))):
        loss, gradient = function(OUTPUTS, Rows(labels, mask, groups=groups))
        assert jnp.isfinite(loss)
        assert jnp.isfinite(gradient).all()
        if surrogate == "sigmoid":  # a group without rows has no rate to differ from
            assert loss == 0
            assert not gradient.any()


def test_descent_makes_groups_alike() -> None:
    made, rows = goal(), Rows(LABELS, groups=GROUPS)
    shift = jnp.asarray(GROUPS * 2.0 - 1)[:, None]
    function = jax.jit(
        jax.value_and_grad(lambda step: made.batch_loss(OUTPUTS[0] + step * shift, rows))
    )
    step = jnp.float32(1)
    first = function(step)[0]
    for _ in range(100):
        step -= 0.2 * function(step)[1]
    last = made.metrics["rate_difference"](LABELS, OUTPUTS[0] + step * shift, groups=GROUPS)
    assert first > 0.2
    assert last < 0.05


def test_a_constant_is_fair() -> None:
    made, rows = goal(), Rows(LABELS, groups=GROUPS)
    assert made.batch_loss(jnp.full((200, 1), 0.7), rows) == pytest.approx(0, abs=1e-6)
    assert made.metrics["rate_difference"](LABELS, np.ones((200, 1)), groups=GROUPS) == 0
    one_group = made.metrics["rate_difference"](LABELS, OUTPUTS[0], groups=GROUPS * 0)
    assert np.isnan(one_group)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="goal 'equal' needs the groups"):
        goal().batch_loss(jnp.asarray(OUTPUTS), Rows(LABELS))
    with pytest.raises(ValueError, match="must be 0 or 1"):
        goal().metrics["rate_difference"](LABELS, OUTPUTS[0], groups=GROUPS + 1)
    for options, message in (
        ({"measure": "eo"}, "measure = 'eo' must be one of deo, ddp"),
        ({"surrogate": "relu"}, "surrogate = 'relu' must be one of sigmoid, tanh"),
        ({"temperature": 0.0}, "temperature = 0.0 must be a number above 0"),
        ({"threshold": 1.0}, "threshold = 1.0 must be between 0 and 1"),
    ):
        with pytest.raises(UserError, match=message):
            goal(**options)
    with pytest.raises(UserError, match="the option 'group' is missing"):
        create_goal("fairness", "equal", of="income")
    with pytest.raises(UserError, match="of = '' must be a name"):
        create_goal("fairness", "equal", of="", group="sex")
