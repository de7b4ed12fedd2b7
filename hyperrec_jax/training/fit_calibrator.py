"""The calibrator of a run's predictions: fitted on validation rows, kept in the run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.calibration import Calibrator, Floats, features_of, platt
from hyperrec_jax.evaluation.measures import labelled
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.prediction_calibrator import PredictionCalibrator
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.losses import output_slices
from hyperrec_jax.goals.metrics import log_loss
from hyperrec_jax.training.kept import kept_fit

if TYPE_CHECKING:
    from hyperrec_jax.training.trained import Trained

CALIBRATOR = "calibrator.json"

MOST_ROWS = 200_000
"""Rows that a fit takes, evenly from the split: two numbers for each feature need no more."""

TRUST = (0.2, 0.05)
"""What is thought likely of a trained model before its validation rows are seen: a slope of 1 give
or take .2, log-odds that are right on the whole give or take .05. With a hundred positives among
the validation rows their own rate is known to 10 % only, and the model's level is the better guess;
with ten thousand they decide."""


def kept_calibrator(workdir: Path, step: int | None) -> PredictionCalibrator | None:
    """The calibrator in a run's folder; None where there is none of the state of that step.

    Raises:
      UserError: the file is damaged.
    """
    return kept_fit(PredictionCalibrator.load, workdir / CALIBRATOR, step)


def fit_calibrator(
    trained: "Trained", store: Store, scored: tuple[Scores, np.ndarray]
) -> PredictionCalibrator:
    """Fits the calibrator of a model.

    Args:
      trained: The model.
      store: Its data.
      scored: From `score_validation`.
    """
    rows = store.split("validation")
    groups = rows.groups(0, len(rows)) if trained.schema.group else None
    step = trained.progress.best_step or 0
    return calibrate(create_goals(trained.schema), *scored, groups, step)


def calibrate(
    goals: Sequence[RowGoal],
    scores: Scores,
    preferences: np.ndarray,
    groups: np.ndarray | None,
    step: int = 0,
) -> PredictionCalibrator:
    """Fits the calibrator, goal by goal.

    A goal is calibrated where a fit on one half of the rows lowers the log loss of the other half,
    both ways taken together, and where its slope is positive under every preference, so that the
    order of rows never turns.

    Args:
      goals: The goals.
      scores: Outputs for the validation rows; of a model that takes no preference, under one.
      preferences: Those of the scores, `[preference, goal]`.
      groups: The list of each row, `[row]`, which stays in one half; None for rows alone.
      step: Training step of the model.
    """
    num_goals = preferences.shape[1]
    degree = 2 if len(scores.logits) >= num_goals * (num_goals + 1) // 2 else 1
    features = features_of(preferences, degree)
    # Fewer preferences than features can't tell one slope for each: one then serves for all.
    enough = len(scores.logits) >= features.shape[1]
    parts = features if enough else np.ones((len(scores.logits), 1))
    shape = (features.shape[1], sum(goal.outputs for goal in goals))
    calibrator = Calibrator(np.ones(shape), np.zeros(shape))
    gains = {}
    every = -(-scores.labels.shape[1] // MOST_ROWS)
    units = np.arange(scores.labels.shape[1]) if groups is None else groups
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        if not isinstance(goal, Binary):
            continue
        rows = labelled(scores, index)
        target = rows.labels[::every] > 0
        logits = np.stack([rows.of(one[place])[::every, 0] for one in scores.logits])
        mass = None if rows.weights is None else rows.weights[::every].astype(np.float64)
        of_row = units if rows.present is None else units[rows.present]
        second = (of_row[::every] // every) % 2 == 1
        gain = _held_out(target, logits.astype(np.float64), parts, mass, second)
        if gain is None or not gain[1] < gain[0]:
            continue
        slope, intercept = platt(target, logits.astype(np.float64), parts, mass, TRUST)
        if (slope > 0).all():
            calibrator.slope[:, place.start], calibrator.intercept[:, place.start] = (
                slope,
                intercept,
            )
            gains[goal.name] = gain
    return PredictionCalibrator(calibrator, gains, step)


def _held_out(
    target: np.ndarray, logits: Floats, parts: Floats, mass: Floats | None, second: np.ndarray
) -> tuple[float, float] | None:
    """Log loss of each half of the rows, raw and by the fit on the other half; the means.

    None where a half has labels of one class only.
    """
    halves = (second, ~second)
    if any(target[half].all() or not target[half].any() for half in halves):
        return None
    old, new = [], []
    for half in halves:
        weights = None if mass is None else mass[half]
        fitted_mass = None if mass is None else mass[~half]
        slope, intercept = platt(target[~half], logits[:, ~half], parts, fitted_mass, TRUST)
        for values, features in zip(logits[:, half], parts, strict=True):
            old.append(log_loss(target[half], values, weights))
            fitted = values * (features @ slope) + features @ intercept
            new.append(log_loss(target[half], fitted, weights))
    return float(np.mean(old)), float(np.mean(new))
