"""Regression goals against PyTorch and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Statistics, create_goal
from hyperrec_jax.goals.regression import Regression

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.lognormal(1, 1.5, 400).astype(np.float32)
OUTPUTS = GENERATOR.normal(2, 3, (400, 1)).astype(np.float32)
TARGETS = {
    "identity": LABELS,
    "log1p": np.log1p(LABELS),
    "standardised": (LABELS - LABELS.mean(dtype=np.float64)) / LABELS.std(dtype=np.float64),
}


def goal(**options: object) -> Regression:
    made = create_goal("regression", "time", **options)
    assert isinstance(made, Regression)
    return made.fitted(Statistics.of(LABELS))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("delta", [0.2, 1.0, 5])
def test_losses_are_pytorchs(target: str, delta: float) -> None:
    values = torch.from_numpy(OUTPUTS[:, 0])
    targets = torch.from_numpy(TARGETS[target].astype(np.float32))
    huber = torch.nn.functional.huber_loss(values, targets, delta=delta, reduction="none")
    ours = goal(error="huber", target=target, delta=delta).loss(jnp.asarray(OUTPUTS), LABELS)
    np.testing.assert_allclose(ours, huber, rtol=2e-5, atol=1e-5)
    squared = torch.nn.functional.mse_loss(values, targets, reduction="none")
    ours = goal(error="squared", target=target).loss(jnp.asarray(OUTPUTS), LABELS)
    np.testing.assert_allclose(ours, squared, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_predictions_undo_the_target(target: str) -> None:
    outputs = TARGETS[target].astype(np.float64)[:, None]
    np.testing.assert_allclose(goal(target=target).predict(outputs), LABELS, rtol=1e-6)


def test_standardised_goal_fits_the_training_labels() -> None:
    statistics = Statistics.of(LABELS)
    fitted = goal()
    assert fitted.location == pytest.approx(LABELS.mean(), rel=1e-5)
    assert fitted.scale == pytest.approx(LABELS.std(), rel=1e-5)
    assert fitted.prior(statistics) == pytest.approx(0, abs=1e-6)
    assert fitted.constant_loss(statistics) == pytest.approx(1)
    given = create_goal("regression", "time", location=3.0, scale=2.0).fitted(statistics)
    assert (given.location, given.scale) == (3, 2)
    with pytest.raises(ValueError, match="goal 'time' needs fitted"):
        create_goal("regression", "time").predict(OUTPUTS)


def test_equal_labels_leave_nothing_to_learn() -> None:
    with pytest.raises(UserError, match="goal 'time': all its labels are 3"):
        create_goal("regression", "time").fitted(Statistics.of([3, 3, 3]))
    huber = create_goal("regression", "time", error="huber", target="identity")
    assert huber.prior(Statistics.of([3, 3])) == 3
    assert huber.constant_loss(Statistics.of([3, 3])) == 0


def test_metrics_are_of_the_label_not_the_target() -> None:
    made = goal(target="log1p")
    predictions, weights = np.expm1(OUTPUTS[:, 0].astype(float)), GENERATOR.uniform(0, 2, 400)
    measured = {name: m(LABELS, OUTPUTS, weights) for name, m in made.metrics.items()}
    mse = oracle.mean_squared_error(LABELS, predictions, sample_weight=weights)
    assert measured["rmse"] == pytest.approx(np.sqrt(mse))
    assert measured["mae"] == pytest.approx(
        oracle.mean_absolute_error(LABELS, predictions, sample_weight=weights)
    )
    assert measured["r2"] == pytest.approx(
        oracle.r2_score(LABELS, predictions, sample_weight=weights)
    )
    plain = {name: m(LABELS, OUTPUTS) for name, m in made.metrics.items()}
    assert plain["spearman"] == pytest.approx(stats.spearmanr(LABELS, predictions).statistic)
    assert {name: m.better for name, m in made.metrics.items()} == {
        "rmse": "lower",
        "mae": "lower",
        "r2": "higher",
        "xauc": "higher",
        "spearman": "higher",
    }


def test_accepts_what_the_target_can_hold() -> None:
    assert goal(target="log1p").accepts([0, 2.5, -0.5]).tolist() == [True, True, False]
    assert goal().accepts([-3.0]).all()
    assert goal(target="log1p").label_rule == "a number of at least 0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error": "cubic"}, "error = 'cubic' must be one of squared, huber"),
        ({"target": "log"}, "target = 'log' must be one of identity, log1p, standardised"),
        ({"delta": 0}, "delta = 0 must be a number above 0"),
        ({"delta": float("inf")}, "delta = inf must be a number above 0"),
        ({"scale": -1.0}, "scale = -1.0 must be a number above 0"),
        ({"target": "log1p", "scale": 2.0}, "scale = 2.0 must be left out unless"),
        ({"target": "identity", "location": 2.0}, "location = 2.0 must be left out unless"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_goal("regression", "time", **options)
