"""Graded goals: any list loss, and NDCG."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Rows, create_goal
from hyperrec_jax.goals.graded import Graded, ListLoss
from hyperrec_jax.preference.list_losses import approx_ndcg, lambda_ndcg, list_softmax

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 5, (6, 8)).astype(np.float32)
LABELS[2] = 0
OUTPUTS = GENERATOR.normal(size=(3, 6, 8, 1)).astype(np.float32)
MASK = np.arange(8) < np.array([8, 5, 3, 2, 8, 4])[:, None]


def goal(**options: object) -> Graded:
    made = create_goal("graded", "relevance", **{"list_loss": list_softmax, **options})
    assert isinstance(made, Graded)
    return made


def test_batch_loss_is_the_mean_over_lists_with_a_gain() -> None:
    labels = np.where(MASK, LABELS, np.nan)
    weights = GENERATOR.uniform(0.5, 2, (6, 8)).astype(np.float32)
    loss = jax.jit(goal(gain="exponential").batch_loss)(OUTPUTS, Rows(labels, MASK, weights))
    expected, total = np.zeros(3), 0.0
    for index in range(6):
        here = MASK[index]
        gains = 2.0 ** LABELS[index, here] - 1
        if not gains.any():
            continue
        scores = OUTPUTS[:, index, here, 0].astype(float)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        share = weights[index, here].mean()
        expected -= share * logs @ (gains / gains.sum())
        total += share
    np.testing.assert_allclose(loss, expected / total, rtol=1e-5)


@pytest.mark.parametrize("list_loss", [list_softmax, lambda_ndcg, approx_ndcg])
def test_gradients_of_every_list_loss_reach_the_items(list_loss: ListLoss) -> None:
    rows = Rows(np.where(MASK, LABELS, np.nan), MASK)
    made = goal(list_loss=list_loss)
    gradient = jax.jit(jax.grad(lambda out: made.batch_loss(out, rows).sum()))(OUTPUTS)
    assert gradient.any(axis=(1, 2, 3)).all()
    assert jnp.isfinite(gradient).all()
    assert not gradient[:, ~MASK].any()
    assert not gradient[:, 2].any()
    assert goal().batch_loss(OUTPUTS[0], Rows(np.zeros((6, 8)))) == 0


def test_equal_scores_are_the_best_constant() -> None:
    rows = Rows(LABELS, MASK)
    counted = (LABELS * MASK).any(axis=1)
    loss = goal().batch_loss(jnp.zeros((6, 8, 1)), rows)
    assert loss == pytest.approx(np.log(MASK.sum(axis=1)[counted]).mean(), rel=1e-6)
    shifted = goal().batch_loss(jnp.full((6, 8, 1), 3.7), rows)
    assert shifted == pytest.approx(float(loss), rel=1e-5)


def test_ndcg_is_scikit_learns() -> None:
    lists = np.repeat(np.arange(6), 8)
    metric = goal(gain="exponential", k=5).metrics["ndcg"]
    value = metric(LABELS.ravel(), OUTPUTS[0].reshape(-1, 1), groups=lists)
    kept = np.arange(6) != 2
    expected = oracle.ndcg_score(2 ** LABELS[kept] - 1, OUTPUTS[0, kept, :, 0], k=5)
    assert value == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs the groups"):
        metric(LABELS.ravel(), OUTPUTS[0].reshape(-1, 1))


def test_options_and_labels() -> None:
    assert goal().accepts([0, 3.5, -1, 1e6]).tolist() == [True, True, False, True]
    assert goal(gain="exponential").accepts([0, 30, 31]).tolist() == [True, True, False]
    assert goal(gain="exponential").label_rule == "a grade from 0 to 30"
    assert (goal().predict(OUTPUTS) == OUTPUTS[..., 0]).all()
    for options, message in (
        ({"k": 0}, "k = 0 must be a whole number of at least 1"),
        ({"k": 2.5}, "k = 2.5 must be a whole number"),
        ({"gain": "log"}, "gain = 'log' must be one of linear, exponential"),
    ):
        with pytest.raises(UserError, match=message):
            goal(**options)
    with pytest.raises(UserError, match=r"goal 'r' \(graded\): the option 'list_loss' is missing"):
        create_goal("graded", "r")
    with pytest.raises(UserError, match="list_loss = 'softmax' must be a function"):
        create_goal("graded", "r", list_loss="softmax")
