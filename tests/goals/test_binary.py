"""Binary goals against optax, PyTorch and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Rows, Statistics, create_goal
from hyperrec_jax.goals.binary import Binary

GENERATOR = np.random.default_rng(0)
LOGITS = (GENERATOR.normal(size=(4, 300, 1)) * 5).astype(np.float32)
LABELS = (GENERATOR.random(300) < 0.3).astype(np.uint8)


def test_loss_is_optaxs_bit_for_bit() -> None:
    goal = Binary("click")
    logits = LOGITS[..., 0]
    expected = optax.sigmoid_binary_cross_entropy(jnp.asarray(logits), LABELS.astype(np.float32))
    assert (goal.loss(jnp.asarray(LOGITS), LABELS) == expected).all()
    batch = goal.batch_loss(jnp.asarray(LOGITS), Rows(LABELS))
    assert (batch == expected.mean(axis=-1)).all()


def test_loss_is_pytorchs() -> None:
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(LOGITS[0, :, 0]), torch.from_numpy(LABELS).float(), reduction="none"
    )
    loss = Binary("click").loss(jnp.asarray(LOGITS[0]), LABELS)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


def test_constant_loss_is_the_entropy_of_the_base_rate() -> None:
    rate = LABELS.mean()
    entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
    statistics = Statistics.of(LABELS)
    assert Binary("click").constant_loss(statistics) == pytest.approx(entropy, rel=1e-14)
    assert Binary("click").prior(statistics) == pytest.approx(np.log(rate / (1 - rate)))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_loss_0_and_a_finite_prior(label: int) -> None:
    statistics = Statistics.of(np.full(5, label))
    goal = Binary("click")
    assert goal.constant_loss(statistics) == 0
    assert goal.prior(statistics) == pytest.approx((2 * label - 1) * 13.8155, abs=1e-3)
    assert np.isnan(goal.metrics["auc"](np.full(5, label), np.zeros((5, 1))))


def test_metrics_are_scikit_learns() -> None:
    goal, weights = Binary("click"), GENERATOR.uniform(0, 2, 300)
    outputs, probabilities = LOGITS[0], goal.predict(LOGITS[0])
    measured = {name: m(LABELS, outputs, weights) for name, m in goal.metrics.items()}
    assert measured["auc"] == pytest.approx(
        oracle.roc_auc_score(LABELS, outputs[:, 0], sample_weight=weights)
    )
    assert measured["log_loss"] == pytest.approx(
        oracle.log_loss(LABELS, probabilities, sample_weight=weights)
    )
    assert measured["calibration"] == pytest.approx((probabilities @ weights) / (LABELS @ weights))


def test_log_loss_of_huge_logits_is_finite() -> None:
    metric = Binary("click").metrics["log_loss"]
    assert metric([0, 1], [[1000.0], [-3000.0]]) == 2000
    assert metric([1, 0], [[np.inf], [-np.inf]]) == 0


def test_sampling_rate_undoes_the_thinning_of_the_negatives() -> None:
    # The best probabilities of a log whose negatives were kept one in ten.
    generator = np.random.default_rng(1)
    chances = generator.uniform(0.01, 0.3, 200_000)
    labels = generator.random(len(chances)) < chances
    kept = labels | (generator.random(len(chances)) < 0.1)
    sampled = chances / (chances + (1 - chances) * 0.1)
    logits = np.log(sampled / (1 - sampled))[kept, None]
    goal = create_goal("binary", "click", sampling_rate=0.1)
    np.testing.assert_allclose(goal.predict(logits), chances[kept], rtol=1e-10)
    assert goal.metrics["calibration"](labels[kept], logits) == pytest.approx(1, abs=0.03)
    plain = create_goal("binary", "click")
    assert plain.metrics["calibration"](labels[kept], logits) == pytest.approx(1, abs=0.03)
    for name in ("auc", "log_loss"):
        both = [g.metrics[name](labels[kept], logits) for g in (goal, plain)]
        assert both[0] == both[1]


@pytest.mark.parametrize("rate", [0, -1, 1.5, "0.1", True, float("nan")])
def test_sampling_rate_out_of_range(rate: object) -> None:
    with pytest.raises(UserError, match=r"goal 'click' \(binary\): sampling_rate = .* at most 1"):
        create_goal("binary", "click", sampling_rate=rate)


def test_accepts_0_and_1_alone() -> None:
    assert Binary("click").accepts([0, 1, 2, -1, 0.5]).tolist() == [True, True, *[False] * 3]
    assert Binary("click").accepts([True, False]).all()
