"""Zero-inflated log-normal goals against SciPy, PyTorch and sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import special, stats

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Statistics, create_goal
from hyperrec_jax.goals.value import NARROWEST, Value

GENERATOR = np.random.default_rng(0)
LABELS = (GENERATOR.lognormal(3, 1.2, 400) * (GENERATOR.random(400) < 0.3)).astype(np.float32)
OUTPUTS = GENERATOR.normal(size=(400, 3)).astype(np.float32)
STATISTICS = Statistics.of(LABELS)


def goal(**options: float) -> Value:
    made = create_goal("value", "revenue", **options)
    assert isinstance(made, Value)
    return made.fitted(STATISTICS)


def test_loss_is_the_papers_likelihood() -> None:
    made = goal()
    probability = special.expit(OUTPUTS[:, 0].astype(float))
    mean = made.location + made.scale * OUTPUTS[:, 1].astype(float)
    deviation = made.scale * (np.log1p(np.exp(OUTPUTS[:, 2].astype(float))) + NARROWEST)
    positive = LABELS > 0
    safe = np.where(positive, LABELS, 1).astype(float)
    density = stats.lognorm.logpdf(safe, s=deviation, scale=np.exp(mean))
    paper = -np.where(positive, np.log(probability) + density, np.log1p(-probability))
    # The density over the standardised logarithm: a change of variables.
    expected = paper - np.where(positive, np.log(made.scale * safe), 0)
    np.testing.assert_allclose(made.loss(jnp.asarray(OUTPUTS), LABELS), expected, rtol=2e-5)


def test_gradients_are_those_of_pytorchs_distributions() -> None:
    made = goal()
    values = torch.from_numpy(OUTPUTS.astype(np.float64)).requires_grad_()
    labels = torch.from_numpy(LABELS.astype(np.float64))
    positive = labels > 0
    spread = torch.nn.functional.softplus(values[:, 2]) + NARROWEST
    amounts = torch.distributions.LogNormal(
        made.location + made.scale * values[:, 1], made.scale * spread
    ).log_prob(torch.where(positive, labels, 1.0))
    some = torch.distributions.Bernoulli(logits=values[:, 0]).log_prob(positive.double())
    (-(some + torch.where(positive, amounts, 0.0))).sum().backward()
    gradient = jax.jit(jax.grad(lambda out: made.loss(out, LABELS).sum()))(jnp.asarray(OUTPUTS))
    np.testing.assert_allclose(gradient, values.grad, rtol=1e-4, atol=1e-5)


def test_prediction_is_the_mean_of_the_distribution() -> None:
    made = goal()
    mean = made.location + made.scale * OUTPUTS[:, 1].astype(float)
    deviation = made.scale * (np.log1p(np.exp(OUTPUTS[:, 2].astype(float))) + NARROWEST)
    expected = special.expit(OUTPUTS[:, 0].astype(float)) * stats.lognorm.mean(
        s=deviation, scale=np.exp(mean)
    )
    np.testing.assert_allclose(made.predict(OUTPUTS), expected, rtol=1e-10)
    np.testing.assert_allclose(made.predict(jnp.asarray(OUTPUTS)), expected, rtol=1e-4)


def test_constant_loss_does_not_depend_on_the_currency() -> None:
    losses = []
    for rate in (1e-3, 1, 1e5):
        statistics = Statistics.of(LABELS.astype(float) * rate)
        made = create_goal("value", "revenue").fitted(statistics)
        assert isinstance(made, Value)
        np.testing.assert_allclose(made.prior(statistics)[1:], goal().prior(STATISTICS)[1:], 1e-6)
        losses.append(made.constant_loss(statistics))
    assert losses == pytest.approx([losses[0]] * 3)
    share = (LABELS > 0).mean()
    entropy = stats.entropy([share, 1 - share])
    assert losses[0] == pytest.approx(entropy + share * 0.5 * np.log(2 * np.pi * np.e))


def test_constants_of_labels_without_spread() -> None:
    made = goal()
    for labels in (np.zeros(5), np.array([0.0, 7, 7]), np.full(3, 7.0)):
        statistics = Statistics.of(labels)
        assert np.isfinite(made.prior(statistics)).all()
        assert np.isfinite(made.constant_loss(statistics))


def test_metrics() -> None:
    made = goal()
    outputs = np.stack([np.zeros(400), np.zeros(400), np.zeros(400)], axis=1)
    outputs[:, 1] = np.where(LABELS > 0, (np.log(np.maximum(LABELS, 1e-9)) - 3), -9)
    outputs[:, 0] = np.where(LABELS > 0, 4, -4)
    assert made.metrics["gini"](LABELS, outputs) == pytest.approx(1)
    assert made.metrics["xauc"](LABELS, outputs) == pytest.approx(1)
    assert made.metrics["auc_any"](LABELS, outputs) == 1
    total = made.predict(outputs).sum() / LABELS.sum(dtype=float)
    assert made.metrics["total_error"](LABELS, outputs) == pytest.approx(abs(total - 1))


def test_refusals() -> None:
    unfitted = create_goal("value", "revenue")
    with pytest.raises(UserError, match="goal 'revenue' has no label above 0"):
        unfitted.fitted(Statistics.of(np.zeros(3)))
    with pytest.raises(UserError, match="goal 'revenue': all its labels above 0 are the same"):
        unfitted.fitted(Statistics.of([0, 9, 9]))
    with pytest.raises(UserError, match="scale = 0 must be a number above 0"):
        create_goal("value", "revenue", scale=0)
    with pytest.raises(UserError, match="location = 'x' must be a number"):
        create_goal("value", "revenue", location="x")
    with pytest.raises(ValueError, match="needs fitted"):
        unfitted.predict(OUTPUTS)
    assert goal().accepts([0, 2.5, -1]).tolist() == [True, True, False]
    assert (goal(location=0.0, scale=1.0).location, goal(scale=2.0).scale) == (0, 2)
