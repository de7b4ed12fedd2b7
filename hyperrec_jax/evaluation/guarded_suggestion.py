"""What a choice under guards comes to, in words and for JSON."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.exchange import ExchangeRate
from hyperrec_jax.evaluation.guarded_choice import Objective
from hyperrec_jax.evaluation.guards import Guard, written
from hyperrec_jax.evaluation.paired import Measured

Floats = NDArray[np.float64]


class Row(NamedTuple):
    """What becomes of one measure.

    Attributes:
      name: The measure, or the goal's sum.
      baseline: Its value under the baseline.
      value: Its value under the preference.
      guard: The guard that it is held to; None for the goal.
      change: Change of merit in the unit of the guard; of the goal the difference.
      low, high: Bounds of a guard, where one chose: what the change exceeds with the confidence
        asked for, and infinity. Else ends of an interval of that confidence.
    """

    name: str
    baseline: float
    value: float
    guard: Guard | None
    change: float
    low: float
    high: float

    def __str__(self) -> str:
        head = f"{self.name} {self.value:.4f}, baseline {self.baseline:.4f}"
        if self.guard is None:
            return f"{head}: {self.change:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"
        shown, limit = self.guard.shown, f"the guard is {self.guard.text}"
        if math.isinf(self.high):
            side = "at least" if self.guard.measure.better == "higher" else "at most"
            return f"{head}: {shown(self.change)}, {side} {shown(self.low)}; {limit}"
        ends = sorted((self.low, self.high), key=lambda end: float(shown(end).rstrip(" %")))
        kept = "kept" if self.change >= self.guard.limit else "broken"
        return f"{head}: {shown(self.change)} [{', '.join(map(shown, ends))}]; {limit}: {kept}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; changes are of merit, higher is better."""
        return {
            "measure": self.name,
            "baseline": self.baseline,
            "value": self.value,
            "guard": self.guard and self.guard.text,
            "limit": self.guard and self.guard.limit,
            "relative": self.guard is not None and self.guard.relative,
            "change": self.change,
            "low": self.low,
            "high": None if math.isinf(self.high) else self.high,
        }


@dataclasses.dataclass(frozen=True)
class GuardedSuggestion:
    """A preference that improves a goal, with bounds on what it gives up.

    Attributes:
      tasks: Names of the goals.
      preference: Weight of each goal, `[goal]`.
      split: The rows that it was chosen on.
      against: The baseline, in words.
      confidence: With which all guards hold at once.
      drawn: What was drawn again, in words.
      asked: Number of preferences that were asked for.
      rows: The goal, then each guard, on those rows.
      by_estimate: What the estimates alone would choose, `[goal]`; None where that is the same.
      tested: The same rows on the test split, which the choice has not seen; empty without any.
      rates: What a goal costs the others here.
    """

    tasks: tuple[str, ...]
    preference: Floats
    split: str
    against: str
    confidence: float
    drawn: str
    asked: int
    rows: tuple[Row, ...]
    by_estimate: Floats | None
    tested: tuple[Row, ...] = ()
    rates: tuple[ExchangeRate, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"--preference {written(self.preference)}",
            f"chosen on the {self.split} rows from {self.asked} preferences, against "
            f"{self.against}; confidence {self.confidence:g}, {self.drawn}",
            *(f"  {row}" for row in self.rows),
        ]
        if self.by_estimate is not None:
            lines.append(f"  estimates without bounds would choose {written(self.by_estimate)}")
        if self.tested:
            lines.append("on the test rows, which the choice has not seen")
            lines += [f"  {row}" for row in self.tested]
        if self.rates:
            lines.append("exchange rates here")
            lines += [f"  {rate}" for rate in self.rates]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "goals": list(self.tasks),
            "preference": self.preference.tolist(),
            "split": self.split,
            "against": self.against,
            "confidence": self.confidence,
            "resampling": self.drawn,
            "preferences_asked": self.asked,
            "rows": [row.to_dict() for row in self.rows],
            "by_estimate": None if self.by_estimate is None else self.by_estimate.tolist(),
            "test": [row.to_dict() for row in self.tested],
            "exchange_rates": [rate.to_dict() for rate in self.rates],
        }


def rows_of(
    objective: Objective,
    guards: Sequence[Guard],
    names: Sequence[str],
    one: Measured,
    baseline: Measured,
    confidence: float,
    bounds: Floats | None = None,
) -> tuple[Row, ...]:
    """The goal and the guards under one preference.

    Args:
      objective: The goal.
      guards: The guards.
      names: Names of the measures.
      one: Measures of the preference, one row.
      baseline: Measures of the baseline, one row, on the same resamples.
      confidence: Level of the intervals, in (0, 1).
      bounds: What each guard's change exceeds, `[guard]`; an interval by itself where None.
    """
    value, before = (float(objective.of(m.values, names)[0]) for m in (one, baseline))
    gained = (objective.of(one.samples, names) - objective.of(baseline.samples, names))[:, 0]
    low, high = interval(gained[np.isfinite(gained)], confidence)
    text = objective.text.partition(":")[2]
    name = objective.terms[0][1].name if text == objective.terms[0][1].name else text
    if len(objective.terms) == 1:
        name = objective.terms[0][1].name
    rows = [Row(name, before, value, None, value - before, float(low), float(high))]
    for index, guard in enumerate(guards):
        place = names.index(guard.measure.name)
        change = float(guard.change(one.values[0, place], baseline.values[0, place]))
        if bounds is not None:
            ends = (float(bounds[index]), math.inf)
        else:
            drawn = guard.change(one.samples[:, 0, place], baseline.samples[:, 0, place])
            least, most = interval(drawn[np.isfinite(drawn)], confidence)
            ends = (float(least), float(most))
        before, value = float(baseline.values[0, place]), float(one.values[0, place])
        rows.append(Row(guard.measure.name, before, value, guard, change, *ends))
    return tuple(rows)
