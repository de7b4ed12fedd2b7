"""Guards: what a metric may lose against a baseline, and bounds on what it does lose.

    click>=-1%              the main metric of click falls by at most 1 % of the baseline's
    auc/click>=-0.002       the AUC of click falls by at most .002
    log_loss/click<=+0.5%   the log loss of click rises by at most half a per cent
    calibration/click<=+0.01  predicted over observed clicks gets at most .01 farther from 1

The bounds hold for all preferences and guards at once (the studentised maximum of a bootstrap,
Romano and Wolf 2005, doi 10.1111/j.1468-0262.2005.00615.x): whichever preference is then chosen
among them, its guards hold with the confidence asked for.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.evaluation.paired import Measured
from hyperrec_jax.goals import RowGoal

Floats = NDArray[np.float64]

LIST_RANKS = 10
LIST_MEASURES = {
    f"ndcg@{LIST_RANKS}": "ndcg",
    "map": "map",
    "mrr": "mrr",
    f"recall@{LIST_RANKS}": "recall",
    "grouped_auc": "auc",
}
"""Metrics of lists by the names that `lists.csv` has, with those of `evaluation.list_metrics`."""


class Measure(NamedTuple):
    """A metric of a goal, of its predictions or of the lists.

    Attributes:
      name: Such as `auc/click` or `ndcg@10/click`.
      goal: Position of the goal.
      metric: Name of the metric among the goal's, `loss`, or a value of `LIST_MEASURES`.
      of_lists: Whether it is of lists.
      better: Whether 'higher', 'lower' or nearer to 'one' is better.
    """

    name: str
    goal: int
    metric: str
    of_lists: bool
    better: str

    def merit(self, values: ArrayLike) -> Floats:
        """Values in a form in which higher is better."""
        array = np.asarray(values, np.float64)
        if self.better == "higher":
            return array
        return -np.abs(array - 1) if self.better == "one" else -array


def measures_of(goals: Sequence[RowGoal], lists: bool) -> dict[str, Measure]:
    """All that can be maximised or guarded, by name.

    A goal's name alone stands for NDCG@10 of the lists where there are lists (for the measure of a
    goal of whole lists), else for the main
    metric of its predictions.

    Args:
      goals: The goals.
      lists: Whether the rows make lists.
    """
    found: dict[str, Measure] = {}
    for place, goal in enumerate(goals):
        names = {name: metric.better for name, metric in goal.metrics.items()} | {"loss": "lower"}
        for name, better in names.items():
            found[f"{name}/{goal.name}"] = Measure(
                f"{name}/{goal.name}", place, name, False, better
            )
        for name, metric in list_measures(goal).items() if lists else ():
            found[f"{name}/{goal.name}"] = Measure(
                f"{name}/{goal.name}", place, metric, True, "higher"
            )
    for goal in goals:
        main = f"{goal.list_measure}@{LIST_RANKS}" if lists else goal.primary
        found.setdefault(goal.name, found[f"{main}/{goal.name}"])
    return found


def list_measures(goal: RowGoal) -> Mapping[str, str]:
    """Metrics of lists for a goal, by name, with those of `evaluation.list_metrics`."""
    if goal.list_measure == "ndcg":
        return LIST_MEASURES
    return {f"{goal.list_measure}@{LIST_RANKS}": "ndcg"}


def measure_named(name: str, known: Mapping[str, Measure], option: str) -> Measure:
    """The measure of a name.

    Raises:
      UserError: there is none.
    """
    if name not in known:
        raise UserError(f"{option}: no goal or metric {name!r}; {suggestion(name, known)}")
    return known[name]


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a measure may lose against the baseline.

    Attributes:
      text: As it was written.
      measure: What is guarded.
      limit: The least change of its merit (see `Measure.merit`): at most 0 where a loss is allowed.
      relative: Whether the limit is a part of the baseline's value.
    """

    text: str
    measure: Measure
    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str, known: Mapping[str, Measure]) -> "Guard":
        """Reads a guard such as `click>=-1%`.

        Args:
          text: The guard.
          known: From `measures_of`.

        Raises:
          UserError: it is not of that form, names nothing that there is, or guards against a
            change for the better.
        """
        option = f"--guard {text!r}"
        match = re.fullmatch(r"(.+?)\s*(>=|<=)\s*([+-]?)([0-9.eE]+(?:[+-]\d+)?)\s*(%?)", text)
        if match is None:
            raise UserError(
                f"{option}: is not of the form 'click>=-1%' or 'log_loss/click<=+0.002'"
            )
        name, sign_of_bound, sign, number, percent = match.groups()
        measure = measure_named(name, known, option)
        wanted = ">=" if measure.better == "higher" else "<="
        if sign_of_bound != wanted:
            better = {"higher": "higher", "lower": "lower", "one": "nearer to 1"}[measure.better]
            raise UserError(
                f"{option}: {better} is better in {measure.name}, so that a guard says "
                f"'{name}{wanted}{'-' if wanted == '>=' else '+'}{number}{percent}'"
            )
        if not sign:
            raise UserError(
                f"{option}: a guard is a change against the baseline, with its sign: "
                f"'{name}{wanted}-{number}{percent}' or '{name}{wanted}+{number}{percent}'"
            )
        if percent and measure.better == "one":
            raise UserError(
                f"{option}: what is guarded is the distance of {measure.name} from 1; give it "
                f"without %, such as '{name}<=+0.01'"
            )
        try:
            change = float(sign + number)
        except ValueError:
            change = math.nan
        if not math.isfinite(change):
            raise UserError(f"{option}: {sign + number} is not a number")
        limit = change if measure.better == "higher" else -change
        return cls(text, measure, limit / 100 if percent else limit, bool(percent))

    def change(self, values: ArrayLike, baseline: ArrayLike) -> Floats:
        """The change of merit against the baseline, in the unit of the limit.

        Args:
          values: Values of the measure, `[...]`.
          baseline: Its values under the baseline, in a form that broadcasts to them.
        """
        against = np.asarray(baseline, np.float64)
        change = self.measure.merit(values) - self.measure.merit(against)
        return change / np.abs(against) if self.relative else change

    def shown(self, change: float) -> str:
        """A change of merit as the measure's own change, such as `-0.52 %`."""
        own = change if self.measure.better == "higher" else -change
        return f"{100 * own:+.2f} %" if self.relative else f"{own:+.4f}"


def lower_bounds(change: ArrayLike, samples: ArrayLike, confidence: float) -> Floats:
    """Bounds that all true values exceed at once, with the confidence given.

    Args:
      change: Estimates, `[candidate, guard]`.
      samples: The same on each resample, `[resample, candidate, guard]`.
      confidence: In (0, 1).

    Returns:
      `[candidate, guard]`; the estimate itself where resamples never differ from it, as of the
      baseline against itself.
    """
    estimate, drawn = np.asarray(change, np.float64), np.asarray(samples, np.float64)
    errors = drawn - estimate
    scale = errors.std(axis=0)
    moves = scale > 1e-12
    if not moves.any():
        return estimate.copy()
    greatest = (errors[:, moves] / scale[moves]).max(axis=1)
    return estimate - np.quantile(greatest, confidence) * scale


class Checked(NamedTuple):
    """Guards of some preferences.

    Attributes:
      change: Estimated changes of merit against the baseline, `[preference, guard]`.
      bound: What they exceed with the confidence asked for, all at once, `[preference, guard]`.
      limit: `[guard]`.
    """

    change: Floats
    bound: Floats
    limit: Floats

    @property
    def meets(self) -> NDArray[np.bool_]:
        """Whether the bounds keep all limits, `[preference]`."""
        return np.all(self.bound >= self.limit - 1e-12, axis=1)

    @property
    def seems_to(self) -> NDArray[np.bool_]:
        """Whether the estimates keep all limits, `[preference]`."""
        return np.all(self.change >= self.limit - 1e-12, axis=1)

    @property
    def shortfall(self) -> Floats:
        """What the bounds lack of the limits, over the distance of bound and estimate, at worst,
        `[preference]`."""
        lack = self.limit - self.bound
        return (lack / np.maximum(self.change - self.bound, 1e-9)).max(axis=1)


def check(
    guards: Sequence[Guard],
    places: Sequence[int],
    measured: Measured,
    baseline: Measured,
    confidence: float,
) -> Checked:
    """Holds guards against some preferences.

    Args:
      guards: The guards.
      places: The column of each guard's measure.
      measured: Measures of the preferences.
      baseline: Measures of the one baseline, on the same resamples.
      confidence: In (0, 1).
    """
    change = np.zeros((len(measured.values), len(guards)))
    samples = np.zeros((len(measured.samples), *change.shape))
    for index, (guard, place) in enumerate(zip(guards, places, strict=True)):
        change[:, index] = guard.change(measured.values[:, place], baseline.values[0, place])
        samples[..., index] = guard.change(
            measured.samples[..., place], baseline.samples[..., place]
        )
    whole = np.isfinite(samples).all(axis=(1, 2))  # else a resample misses all that count
    limit = np.array([guard.limit for guard in guards])
    return Checked(change, lower_bounds(change, samples[whole], confidence), limit)


def written(preference: Floats) -> str:
    """A preference as options take it, such as `0.3,0.7`."""
    return ",".join(f"{weight:.4g}" for weight in preference)
