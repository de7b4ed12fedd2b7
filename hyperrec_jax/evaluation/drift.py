"""What has changed between the rows of training's test split and fresh ones, beyond noise."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.guards import Guard, Measure, lower_bounds, written
from hyperrec_jax.evaluation.paired import Measured

Floats = NDArray[np.float64]

FINE, UNSURE, ALARM = "fine", "not sure", "ALARM"


@dataclasses.dataclass(frozen=True)
class DriftLimits:
    """From where on a change is an alarm.

    Attributes:
      drop: Part of a metric's former value that is lost, at least 0.
      calibration: Distance of predicted over observed from 1, at least 0.
      unseen: Rise of the share of a field's values that training never saw, at least 0.

    Raises:
      UserError: one of them is below 0 or no number.
    """

    drop: float = 0.02
    calibration: float = 0.1
    unseen: float = 0.05

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise UserError(f"--max-{field.name} {value:g}: give 0 or more")


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
      kind: `front`, `calibration`, `guard` or `unseen`.
      name: The metric or field.
      preference: The preference, as `0.3,0.7`; None for a field.
      before: Its value on the test rows of training; of a guard the change against the baseline.
      now: The same on the fresh rows.
      low, high: Bounds of what is held against the limit: the part gained or lost, the distance
        from 1 (negative), the guard's change; NaN for a field.
      limit: What that may not be below.
      state: `fine`, `not sure` (of a guard that may be broken), or `ALARM` (beyond noise).
    """

    kind: str
    name: str
    preference: str | None
    before: float
    now: float
    low: float
    high: float
    limit: float
    state: str

    def __str__(self) -> str:
        where = f" at {self.preference}" if self.preference else ""
        head = f"{self.kind:<11} {self.name}{where}: "
        if self.kind == "unseen":
            return f"{head}{self.before:.2%} -> {self.now:.2%}: {self.state}"
        shown = f"{self.before:.4f} -> {self.now:.4f}"
        if self.kind == "guard":
            shown = f"change {self.before:+.4f} -> {self.now:+.4f}"
        ends = f"[{self.low:+.4f}, {self.high:+.4f}]"
        return f"{head}{shown}, {ends} may not be below {self.limit:g}: {self.state}"

    @property
    def margin(self) -> float:
        """How far from an alarm it is: what is least is worst."""
        return self.limit - self.now if self.kind == "unseen" else self.high - self.limit


@dataclasses.dataclass(frozen=True)
class Drift:
    """What a look at fresh rows gave.

    Attributes:
      rows: Number of fresh rows.
      reference_rows: Number of the test rows of training.
      confidence: Level of the bounds, over all checks of a kind at once.
      checks: All that was looked at.
    """

    rows: int
    reference_rows: int
    confidence: float
    checks: tuple[Check, ...]

    @property
    def alarms(self) -> tuple[Check, ...]:
        """What has changed for the worse, beyond its limit and beyond noise."""
        return tuple(check for check in self.checks if check.state == ALARM)

    def __str__(self) -> str:
        lines = [
            f"{self.rows:,} fresh rows against the {self.reference_rows:,} test rows of training, "
            f"confidence {self.confidence:g}; the worst preference of each metric:"
        ]
        shown: dict[tuple[str, str], Check] = {}
        for check in self.checks:
            key = (check.kind, check.name)
            if key not in shown or check.margin < shown[key].margin:
                shown[key] = check
        fields = sorted((c for c in shown.values() if c.kind == "unseen"), key=lambda c: c.margin)
        lines += [f"  {check}" for check in shown.values() if check.kind != "unseen"]
        lines += [f"  {check}" for check in fields if check.state == ALARM or check in fields[:3]]
        number = len(self.alarms)
        lines.append(f"{number} of {len(self.checks)} checks raise an alarm")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "confidence": self.confidence,
            "alarms": len(self.alarms),
            "checks": [check._asdict() for check in self.checks],
        }


def front_checks(
    measures: Sequence[Measure],
    preferences: Floats,
    before: Measured,
    now: Measured,
    limit: float,
    confidence: float,
) -> list[Check]:
    """Whether metrics have fallen by more than a part of their former values.

    Args:
      measures: The main measures.
      preferences: `[preference, goal]`.
      before: Measures of the test rows of training.
      now: Measures of the fresh rows, on other resamples: the two are independent.
      limit: The part.
      confidence: That all bounds hold at once.
    """

    def change(ours: Floats, theirs: Floats) -> Floats:
        parts = [
            (one.merit(ours[..., place]) - one.merit(theirs[..., place]))
            / np.abs(theirs[..., place])
            for place, one in enumerate(measures)
        ]
        return np.stack(parts, axis=-1)

    values = change(now.values, before.values)
    low, high = _bounds(values, change(now.samples, before.samples), confidence)
    return _checks("front", measures, preferences, before, now, values, (low, high), limit)


def _checks(
    kind: str,
    measures: Sequence[Measure],
    preferences: Floats,
    before: Measured,
    now: Measured,
    change: Floats,
    bounds: tuple[Floats, Floats],
    limit: float,
) -> list[Check]:
    """One check for each measure and preference: an alarm where all of an interval is too low.

    Args:
      change: `[preference, measure]`, higher is better; NaN where there is nothing to check.
      bounds: Its interval's ends.
      limit: Loss that is allowed.
    """
    low, high = bounds
    return [
        Check(
            kind,
            measure.name,
            written(preferences[row]),
            float(before.values[row, place]),
            float(now.values[row, place]),
            float(low[row, place]),
            float(high[row, place]),
            -limit,
            ALARM if high[row, place] < -limit else FINE,
        )
        for place, measure in enumerate(measures)
        for row in range(len(preferences))
        if math.isfinite(change[row, place])
    ]


def calibration_checks(
    measures: Sequence[Measure],
    preferences: Floats,
    before: Measured,
    now: Measured,
    limit: float,
    confidence: float,
) -> list[Check]:
    """Whether predicted over observed is farther from 1 than a limit; see `front_checks`."""
    merit = -np.abs(now.values - 1)
    low, high = _bounds(merit, -np.abs(now.samples - 1), confidence)
    return _checks("calibration", measures, preferences, before, now, merit, (low, high), limit)


def guard_checks(
    guards: Sequence[Guard],
    columns: Sequence[int],
    preference: Floats,
    before: Measured,
    now: Measured,
    confidence: float,
) -> list[Check]:
    """Whether a preference still keeps its guards.

    Args:
      guards: The guards.
      columns: The place of each guard's measure.
      preference: `[goal]`.
      before: Measures of the preference and the baseline, two rows, on the test rows of training.
      now: The same on the fresh rows.
      confidence: That all bounds hold at once.
    """

    def change(table: Floats) -> Floats:
        parts = [
            guard.change(table[..., 0, place], table[..., 1, place])
            for guard, place in zip(guards, columns, strict=True)
        ]
        return np.stack(parts, axis=-1)

    values = change(now.values)
    low, high = _bounds(values, change(now.samples), confidence)
    checks = []
    for place, guard in enumerate(guards):
        state = FINE if low[place] >= guard.limit else UNSURE
        state = ALARM if high[place] < guard.limit else state
        checks.append(
            Check(
                "guard",
                guard.text,
                written(preference),
                float(change(before.values)[place]),
                float(values[place]),
                float(low[place]),
                float(high[place]),
                guard.limit,
                state,
            )
        )
    return checks


def unseen_checks(
    fields: Sequence[str], before: Sequence[float], now: Sequence[float], limit: float
) -> list[Check]:
    """Whether more values of a field are new to the model than were.

    Args:
      fields: Names of the fields.
      before: The share in the test rows of training, by field.
      now: The share in the fresh rows.
      limit: By how much it may rise.
    """
    return [
        Check(
            "unseen",
            name,
            None,
            was,
            share,
            math.nan,
            math.nan,
            was + limit,
            ALARM if share > was + limit else FINE,
        )
        for name, was, share in zip(fields, before, now, strict=True)
    ]


def _bounds(values: Floats, samples: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Lower bounds, and upper bounds, that each hold for all at once."""
    flat = samples.reshape(len(samples), -1)
    known = np.isfinite(values).ravel()
    low, high = np.full((2, known.size), math.nan)
    whole = np.isfinite(flat[:, known]).all(axis=1)
    estimate, drawn = values.ravel()[known], flat[whole][:, known]
    low[known] = lower_bounds(estimate, drawn, confidence)
    high[known] = -lower_bounds(-estimate, -drawn, confidence)
    return low.reshape(values.shape), high.reshape(values.shape)
