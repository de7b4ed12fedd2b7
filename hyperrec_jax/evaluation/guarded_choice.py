"""Picks a preference that improves a goal while bounds on the guards hold.

    max:purchase                   the main metric of purchase
    max:purchase+0.3*discovery     a weighted sum: one unit of purchase is worth 0.3 of discovery
    min:log_loss/click             of metrics of which less is better

The grid is refined where it matters: each round asks for the neighbours of the best preference so
far at half the former distance, so that a handful of passes over the rows find it to a few
thousandths.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.guards import Checked, Guard, Measure, check, measure_named, written
from hyperrec_jax.evaluation.paired import Measured

Floats = NDArray[np.float64]
Ask = Callable[[Floats], Measured]
"""From preferences `[preference, goal]` to metrics of them."""

ROUNDS = 4
"""How often the distance between neighbours is halved."""
KINDS = ("max", "min")


class Objective(NamedTuple):
    """A weighted sum of measures that is to be as high, or as low, as possible.

    Attributes:
      text: As it was written.
      terms: Weight and measure of each term.
      sign: 1 for a maximum, -1 for a minimum.
    """

    text: str
    terms: tuple[tuple[float, Measure], ...]
    sign: float

    @classmethod
    def parse(cls, text: str, known: Mapping[str, Measure]) -> "Objective":
        """Reads a goal such as `max:purchase+0.3*discovery`.

        Raises:
          UserError: it is not of that form, or names nothing that there is.
        """
        option = f"--goal {text}"
        kind, _, rest = text.partition(":")
        terms = []
        for term in rest.split("+"):
            before, star, name = term.rpartition("*")
            try:
                weight = float(before) if star else 1.0
            except ValueError:
                weight = math.nan
            if not 0 < weight < math.inf:
                raise UserError(f"{option}: {before!r} is not a weight above 0")
            measure = measure_named(name.strip(), known, option)
            if measure.better != ("higher" if kind == "max" else "lower"):
                other = {"higher": "max", "lower": "min"}.get(measure.better)
                raise UserError(
                    f"{option}: {measure.name} is "
                    + (f"for a goal that begins with {other}:" if other else "best at 1: guard it")
                )
            terms.append((weight, measure))
        return cls(text, tuple(terms), 1.0 if kind == "max" else -1.0)

    def of(self, values: Floats, names: Sequence[str]) -> Floats:
        """The sum, from values `[..., metric]` of measures of some names."""
        return sum(
            (weight * values[..., names.index(measure.name)] for weight, measure in self.terms),
            np.zeros(values.shape[:-1]),
        )


class Search(NamedTuple):
    """All that was asked for on the way to a choice.

    Attributes:
      preferences: `[preference, goal]`.
      measured: Measures of them.
      checked: Their guards.
      chosen: Position of the choice.
      by_estimate: Position of the choice by estimates alone; None where none seems to do.
    """

    preferences: Floats
    measured: Measured
    checked: Checked
    chosen: int
    by_estimate: int | None


def search(
    ask: Ask,
    grid: Floats,
    baseline: Measured,
    objective: Objective,
    guards: Sequence[Guard],
    names: Sequence[str],
    confidence: float,
    rounds: int = ROUNDS,
) -> Search:
    """Looks for the preference whose guards hold and whose goal is best.

    Args:
      ask: Measures preferences.
      grid: Where to begin, `[preference, goal]`.
      baseline: The baseline's measures, one row.
      objective: The goal.
      guards: The guards.
      names: Names of the measures that `ask` gives.
      confidence: In (0, 1).
      rounds: How often the grid is refined.

    Raises:
      UserError: no preference meets the guards, or a metric is undefined on these rows.
    """
    preferences, measured = grid, ask(grid)
    for place, name in enumerate(names):
        if not np.isfinite([*measured.values[:, place], baseline.values[0, place]]).all():
            raise UserError(
                f"{name} is undefined on these rows (no label, or one value only): choose another "
                "metric, or prepare the data with more rows"
            )
    columns = [names.index(guard.measure.name) for guard in guards]
    step = _spacing(grid)
    for done in range(rounds + 1):
        checked = check(guards, columns, measured, baseline, confidence)
        value = objective.sign * objective.of(measured.values, names)
        if checked.meets.any():
            best = int(np.argmax(np.where(checked.meets, value, -math.inf)))
        else:
            best = int(np.argmin(checked.shortfall))
        step /= 2
        around = _neighbours(preferences[best], step, preferences)
        if done == rounds or not len(around):
            break
        more = ask(around)
        preferences = np.concatenate([preferences, around])
        measured = Measured(
            np.concatenate([measured.values, more.values]),
            np.concatenate([measured.samples, more.samples], axis=1),
        )
    if not checked.meets.any():
        raise UserError(_none_meets(preferences[best], guards, checked, best, confidence))
    estimate = None
    if checked.seems_to.any():
        estimate = int(np.argmax(np.where(checked.seems_to, value, -math.inf)))
    return Search(preferences, measured, checked, best, estimate)


def _spacing(grid: Floats) -> float:
    """The median distance of a preference of a grid to the nearest other one."""
    if len(grid) < 2:
        return 0.5
    apart = np.abs(grid[:, None] - grid).max(axis=-1)
    np.fill_diagonal(apart, np.inf)
    apart[apart < 1e-6] = np.inf
    nearest = apart.min(axis=1)
    return float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 0.5


def _neighbours(centre: Floats, step: float, known: Floats) -> Floats:
    """Preferences that move a weight of `step` from one goal to another, `[preference, goal]`."""
    found: list[Floats] = []
    for giver in range(len(centre)):
        for taker in range(len(centre)):
            moved = min(step, centre[giver])
            if giver == taker or moved < 1e-6:
                continue
            one = centre.copy()
            one[giver] -= moved
            one[taker] += moved
            if np.abs(np.concatenate([known, *(f[None] for f in found)]) - one).max(
                axis=1
            ).min() > (1e-6):
                found.append(one)
    return np.array(found).reshape(-1, len(centre))


def _none_meets(
    preference: Floats, guards: Sequence[Guard], checked: Checked, place: int, confidence: float
) -> str:
    lacking = [
        f"{guard.text}: {guard.shown(change)}, and only {guard.shown(bound)} is sure"
        for guard, change, bound, limit in zip(
            guards, checked.change[place], checked.bound[place], checked.limit, strict=True
        )
        if bound < limit
    ]
    return (
        f"no preference meets the guards with confidence {confidence:g}; the nearest is "
        f"{written(preference)} ({'; '.join(lacking)}); allow more, or ask for less confidence"
    )
