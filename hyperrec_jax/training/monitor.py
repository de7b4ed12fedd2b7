"""Holds a trained model's fresh rows against the test rows of its training."""

from collections.abc import Sequence

import numpy as np

from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.drift import (
    Drift,
    DriftLimits,
    calibration_checks,
    front_checks,
    guard_checks,
    unseen_checks,
)
from hyperrec_jax.evaluation.guards import Guard
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training.guarded import CONFIDENCE, RESAMPLES, check_numbers
from hyperrec_jax.training.measured import Measurer
from hyperrec_jax.training.trained import Trained

PREFERENCES = 5


def monitor(
    trained: Trained,
    reference: Store,
    fresh: Store,
    *,
    guards: Sequence[str] = (),
    preference: np.ndarray | None = None,
    baseline: np.ndarray | None = None,
    limits: DriftLimits | None = None,
    confidence: float = CONFIDENCE,
    resample_by: str | None = None,
    resamples: int = RESAMPLES,
) -> Drift:
    """What has changed on fresh rows, beyond noise: the front, calibration, guards, unseen values.

    Args:
      trained: The model.
      reference: Its data, whose test rows are compared with.
      fresh: Fresh rows, as the test split of a store (`training.fresh`).
      guards: What the preference was to keep, such as `click>=-1%`; see `evaluation.guards`.
      preference: The preference in use, `[goal]`, which guards need; the front is looked at there
        and at five preferences of the grid.
      baseline: What guards compare with, `[goal]`; None for equal weights.
      limits: From where on a change is an alarm; None for the defaults.
      confidence: Level of the bounds, for all checks of a kind at once, at least 0.5 and below 1.
      resample_by: A categorical field whose rows are drawn together; None for lists, or rows.
      resamples: Number of resamples, at least 100.

    Raises:
      UserError: a guard or number is malformed, or the reference has no test rows.
    """
    check_numbers(confidence, resamples)
    limits = limits or DriftLimits()
    if guards and preference is None:
        raise UserError("--guard: name the preference in use, which is to keep it, by --preference")

    def opened(store: Store, seed: int) -> Measurer:
        return Measurer(
            trained, store, "test", resample_by=resample_by, resamples=resamples, seed=seed
        )

    # Other rows, so other draws: the same would pair units that have nothing in common.
    before, now = opened(reference, 1), opened(fresh, 2)
    # Lists of the fresh rows may not be possible, where labels are missing.
    known = min(before.known, now.known, key=len)
    number = trained.schema.num_tasks
    grid = evaluation_grid(number, PREFERENCES)
    if preference is not None:
        grid = np.concatenate([np.asarray(preference, np.float64)[None], grid])
    mains = [known[goal] for goal in trained.schema.tasks]
    if not trained.network.conditioned and not any(measure.of_lists for measure in mains):
        grid = grid[:1]
    calibrations = [
        known[f"calibration/{goal}"]
        for goal in trained.schema.tasks
        if f"calibration/{goal}" in known
    ]
    measures = [*mains, *calibrations]
    old, new = (measurer.measure(grid, measures) for measurer in (before, now))
    parts = [slice(0, len(mains)), slice(len(mains), None)]
    (old_front, old_ratio), (new_front, new_ratio) = (
        [found.columns(part) for part in parts] for found in (old, new)
    )
    checks = front_checks(mains, grid, old_front, new_front, limits.drop, confidence)
    if calibrations:
        checks += calibration_checks(
            calibrations, grid, old_ratio, new_ratio, limits.calibration, confidence
        )
    if guards:
        parsed = [Guard.parse(text, known) for text in guards]
        start = np.full(number, 1 / number) if baseline is None else np.asarray(baseline)
        pair = np.stack([grid[0], start])
        guarded = [guard.measure for guard in parsed]
        held, holds = (measurer.measure(pair, guarded) for measurer in (before, now))
        checks += guard_checks(parsed, range(len(parsed)), grid[0], held, holds, confidence)
    were, are = (
        [unseen / max(len(rows), 1) for unseen in rows.unseen]
        for rows in (reference.split("test"), fresh.split("test"))
    )
    fields = [field.name for field in trained.schema.categorical]
    checks += unseen_checks(fields, were, are, limits.unseen)
    return Drift(
        rows=len(fresh.split("test")),
        reference_rows=len(reference.split("test")),
        confidence=confidence,
        checks=tuple(checks),
    )
