"""Count goals against PyTorch and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from hyperrec_jax.goals import Statistics
from hyperrec_jax.goals.count import Count

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.poisson(GENERATOR.lognormal(0, 1.5, 500)).astype(np.float32)
OUTPUTS = GENERATOR.normal(0, 2, (500, 1)).astype(np.float32)
GOAL = Count("items")


def test_loss_is_pytorchs_but_for_a_term_of_the_label() -> None:
    values = torch.from_numpy(OUTPUTS[:, 0]).requires_grad_()
    theirs = torch.nn.functional.poisson_nll_loss(
        values, torch.from_numpy(LABELS), log_input=True, full=False, reduction="none"
    )
    theirs.sum().backward()
    safe = np.where(LABELS > 0, LABELS, 1)
    constant = LABELS * np.log(safe) - LABELS
    ours = GOAL.loss(jnp.asarray(OUTPUTS), LABELS)
    np.testing.assert_allclose(ours, theirs.detach().numpy() + constant, rtol=1e-4, atol=1e-4)
    gradient = jax.jit(jax.grad(lambda out: GOAL.loss(out, LABELS).sum()))(jnp.asarray(OUTPUTS))
    np.testing.assert_allclose(gradient[:, 0], values.grad, rtol=1e-4, atol=1e-5)


def test_loss_is_half_the_deviance() -> None:
    deviance = oracle.mean_poisson_deviance(LABELS, np.exp(OUTPUTS[:, 0].astype(float)))
    loss = GOAL.loss(jnp.asarray(OUTPUTS), LABELS).mean()
    assert loss == pytest.approx(deviance / 2, rel=1e-5)
    statistics = Statistics.of(LABELS)
    constant = np.full(500, LABELS.mean(dtype=float))
    expected = oracle.mean_poisson_deviance(LABELS, constant) / 2
    assert GOAL.constant_loss(statistics) == pytest.approx(expected)
    assert GOAL.prior(statistics) == pytest.approx(np.log(LABELS.mean()))


def test_large_counts_keep_their_digits() -> None:
    labels = np.array([1e6, 1e7], np.float32)
    outputs = np.log(labels.astype(float) * 1.001)
    expected = labels * (1.001 - 1 - np.log(1.001))
    loss = GOAL.loss(jnp.asarray(outputs, jnp.float32)[:, None], labels)
    np.testing.assert_allclose(loss, expected, rtol=2e-3)


def test_loss_is_a_straight_line_far_above_the_label() -> None:
    outputs = jnp.array([[40.0], [41.0], [42.0]])
    losses = np.asarray(GOAL.loss(outputs, jnp.zeros(3)))
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-5)
    gradient = jax.grad(lambda out: GOAL.loss(out, jnp.zeros(3)).sum())(outputs)
    np.testing.assert_allclose(gradient, np.exp(30), rtol=1e-5)


def test_metrics_are_scikit_learns() -> None:
    weights, rates = GENERATOR.uniform(0, 2, 500), np.exp(OUTPUTS[:, 0].astype(float))
    measured = {name: m(LABELS, OUTPUTS, weights) for name, m in GOAL.metrics.items()}
    expected = {
        "deviance": oracle.mean_poisson_deviance(LABELS, rates, sample_weight=weights),
        "d2": oracle.d2_tweedie_score(LABELS, rates, sample_weight=weights, power=1),
        "auc_any": oracle.roc_auc_score(LABELS > 0, rates, sample_weight=weights),
        "calibration": (rates @ weights) / (LABELS @ weights),
    }
    assert measured == pytest.approx(expected)


def test_no_event_at_all() -> None:
    zeros = Statistics.of(np.zeros(4))
    assert GOAL.constant_loss(zeros) == 0
    assert np.isfinite(GOAL.prior(zeros)).all()
    assert np.isnan(GOAL.metrics["d2"](np.zeros(4), np.zeros((4, 1))))


def test_accepts_whole_numbers() -> None:
    assert GOAL.accepts([0, 3, 1.5, -1]).tolist() == [True, True, False, False]
