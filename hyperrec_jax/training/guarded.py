"""Chooses a preference of a trained model under guards, and takes its exchange rates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.exchange import ExchangeRate, exchange_rates, steps_around
from hyperrec_jax.evaluation.guarded_choice import Objective, search
from hyperrec_jax.evaluation.guarded_suggestion import GuardedSuggestion, Row, rows_of
from hyperrec_jax.evaluation.guards import Guard, Measure, written
from hyperrec_jax.evaluation.paired import Measured
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training.measured import Measurer
from hyperrec_jax.training.trained import Trained

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1000
GRID = 25


def suggest_guarded(
    trained: Trained,
    store: Store,
    goal: str,
    guards: Sequence[str] = (),
    *,
    confidence: float = CONFIDENCE,
    baseline: np.ndarray | None = None,
    baseline_run: Trained | None = None,
    split: str = "validation",
    resample_by: str | None = None,
    resamples: int = RESAMPLES,
    grid: int = GRID,
) -> GuardedSuggestion:
    """The preference with the best goal among those whose guards hold.

    Args:
      trained: The model.
      store: Its data.
      goal: Such as `max:purchase`; see `evaluation.guarded_choice`.
      guards: Such as `click>=-1%`; see `evaluation.guards`.
      confidence: That all guards hold, in (0, 1).
      baseline: What guards compare with, `[goal]`; None for equal weights.
      baseline_run: The model that is asked under the baseline; None for this one.
      split: The rows to choose on. If they are not the test rows, these are reported, too.
      resample_by: A categorical field whose rows are drawn together; None for lists, or rows.
      resamples: Number of resamples, at least 100.
      grid: Number of preferences of the grid that the search begins with.

    Raises:
      UserError: a goal, guard or number is malformed, no preference meets the guards, or the model
        takes no preference.
    """
    check_numbers(confidence, resamples)
    opened = Measurer(trained, store, split, resample_by=resample_by, resamples=resamples)
    objective = Objective.parse(goal, opened.known)
    parsed = [Guard.parse(text, opened.known) for text in guards]
    measures = _distinct([m for _, m in objective.terms] + [guard.measure for guard in parsed])
    names = [measure.name for measure in measures]
    if not trained.network.conditioned and not any(measure.of_lists for measure in measures):
        raise UserError("the model takes no preference, so that there is nothing to choose")
    number = trained.schema.num_tasks
    start = np.full(number, 1 / number) if baseline is None else np.asarray(baseline, np.float64)

    def of_baseline(measurer: Measurer, part: str) -> Measured:
        if baseline_run is not None:
            measurer = Measurer(
                baseline_run, store, part, resample_by=resample_by, resamples=resamples
            )
            missing = [name for name in names if name not in measurer.known]
            if missing:
                raise UserError(f"--baseline-run {baseline_run.folder}: has no {missing[0]}")
        return measurer.measure(start[None], measures)

    first = of_baseline(opened, split)
    asked = np.concatenate([evaluation_grid(number, grid), start[None]])
    found = search(
        lambda preferences: opened.measure(preferences, measures),
        asked,
        first,
        objective,
        parsed,
        names,
        confidence,
    )
    chosen = found.preferences[found.chosen]
    rows = rows_of(
        objective,
        parsed,
        names,
        _one(found.measured, found.chosen),
        first,
        confidence,
        found.checked.bound[found.chosen],
    )
    tested: tuple[Row, ...] = ()
    if split != "test" and len(store.split("test")):
        held = Measurer(trained, store, "test", resample_by=resample_by, resamples=resamples)
        tested = rows_of(
            objective,
            parsed,
            names,
            held.measure(chosen[None], measures),
            of_baseline(held, "test"),
            confidence,
        )
    by_estimate = found.by_estimate
    return GuardedSuggestion(
        tasks=trained.schema.tasks,
        preference=chosen,
        split=split,
        against=written(start) + (f" of {baseline_run.folder}" if baseline_run else ""),
        confidence=confidence,
        drawn=opened.drawn,
        asked=len(found.preferences),
        rows=rows,
        by_estimate=(
            None
            if by_estimate in (None, found.chosen) or not parsed
            else found.preferences[by_estimate]
        ),
        tested=tested,
        rates=_rates(opened, chosen, confidence),
    )


def exchange(
    trained: Trained,
    store: Store,
    preference: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    split: str = "validation",
    resample_by: str | None = None,
    resamples: int = RESAMPLES,
) -> tuple[ExchangeRate, ...]:
    """What a point of one goal costs in points of each other at a preference.

    Args:
      trained: The model.
      store: Its data.
      preference: `[goal]`.
      confidence: Level of the intervals, in (0, 1).
      split: The rows to measure on.
      resample_by: As for `suggest_guarded`.
      resamples: Number of resamples, at least 100.

    Raises:
      UserError: the model takes no preference and has no lists, or a number is out of range.
    """
    check_numbers(confidence, resamples)
    opened = Measurer(trained, store, split, resample_by=resample_by, resamples=resamples)
    mains = [opened.main(goal) for goal in range(trained.schema.num_tasks)]
    if not trained.network.conditioned and not any(measure.of_lists for measure in mains):
        raise UserError("the model takes no preference, so that nothing is exchanged")
    return _rates(opened, np.asarray(preference, np.float64), confidence)


def _rates(opened: Measurer, preference: Floats, confidence: float) -> tuple[ExchangeRate, ...]:
    pairs, around = steps_around(preference)
    if not pairs:
        return ()
    mains = [opened.main(goal) for goal in range(len(preference))]
    measured = opened.measure(around, mains)
    if not np.isfinite(measured.values).all():
        return ()
    return exchange_rates(pairs, measured, mains, range(len(mains)), confidence)


def _one(measured: Measured, place: int) -> Measured:
    part = slice(place, place + 1)
    return Measured(measured.values[part], measured.samples[:, part])


def _distinct(measures: Sequence[Measure]) -> list[Measure]:
    return list({measure.name: measure for measure in measures}.values())


def check_numbers(confidence: float, resamples: int) -> None:
    """Refuses what bounds can't be made of.

    Raises:
      UserError: the confidence is not in [0.5, 1), or there are fewer than 100 resamples.
    """
    if not 0.5 <= confidence < 1:
        raise UserError(f"--confidence {confidence:g}: give at least 0.5 and less than 1")
    if resamples < 100:
        raise UserError(f"--resamples {resamples}: a bound needs at least 100")
