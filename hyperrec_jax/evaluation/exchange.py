"""Exchange rates: what one goal's gain costs another's at a preference, the slope of the front."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.guards import Measure
from hyperrec_jax.evaluation.paired import Measured

Floats = NDArray[np.float64]

STEP = 0.05
"""Weight that is moved from one goal to the other, on either side, to take the slope."""


class ExchangeRate(NamedTuple):
    """What a point of one goal costs in points of another, as weight moves from one to the other.

    Attributes:
      gained: The measure that improves.
      paid: The measure that is given up.
      rate: Merit of `paid` lost for one unit of merit of `gained`; NaN where the gain is within
        the noise, so that there is no rate.
      low, high: Its interval.
      confidence: Level of the interval.
    """

    gained: str
    paid: str
    rate: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        if np.isnan(self.rate):
            return (
                f"{self.gained} does not move beyond noise as weight goes to it from {self.paid}: "
                "no rate"
            )
        word, sign = ("costs", 1) if self.rate >= 0 else ("also brings", -1)
        low, high = sorted((sign * self.low, sign * self.high))
        return (
            f"one more point of {self.gained} {word} {sign * self.rate:.2f} [{low:.2f}, "
            f"{high:.2f}] of {self.paid}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {name: None if value != value else value for name, value in self._asdict().items()}


def steps_around(preference: Floats) -> tuple[list[tuple[int, int]], Floats]:
    """The preferences whose metrics give the slopes at one.

    Args:
      preference: `[goal]`.

    Returns:
      Pairs of goals `(first, second)`, and for each of them two preferences one after the other:
      with weight moved to the first, and with weight moved to the second; `[2 * pair, goal]`.
    """
    pairs, asked = [], []
    for first in range(len(preference)):
        for second in range(first + 1, len(preference)):
            ends = []
            for taker, giver in ((first, second), (second, first)):
                moved = min(STEP, preference[giver])
                one = preference.copy()
                one[giver] -= moved
                one[taker] += moved
                ends.append(one)
            if np.abs(ends[0] - ends[1]).max() > 1e-6:
                pairs.append((first, second))
                asked += ends
    return pairs, np.array(asked).reshape(-1, len(preference))


def exchange_rates(
    pairs: Sequence[tuple[int, int]],
    measured: Measured,
    mains: Sequence[Measure],
    columns: Sequence[int],
    confidence: float,
) -> tuple[ExchangeRate, ...]:
    """The rates between the main measures of pairs of goals.

    Args:
      pairs: From `steps_around`.
      measured: Measures of the preferences from there.
      mains: The main measure of each goal.
      columns: Its place among those measured, by goal.
      confidence: Level of the intervals, in (0, 1).

    Returns:
      For each pair the price of the first goal in the second. There is no rate where the interval
      of the first goal's gain holds 0.
    """
    rates = []
    for number, (first, second) in enumerate(pairs):
        to_first, to_second = 2 * number, 2 * number + 1

        def moved(goal: int, *, ends: tuple[int, int] = (to_first, to_second)) -> list[Floats]:
            merit, place = mains[goal].merit, columns[goal]
            return [
                merit(table[..., ends[0], place]) - merit(table[..., ends[1], place])
                for table in (measured.values, measured.samples)
            ]

        (gain, gains), (lost, losses) = moved(first), moved(second)
        fine = np.isfinite(gains) & np.isfinite(losses)
        low = interval(gains[fine], confidence)[0]
        names = (mains[first].name, mains[second].name)
        if not low > 0:
            rates.append(ExchangeRate(*names, np.nan, np.nan, np.nan, confidence))
            continue
        # Where the gain is clearly above 0 its resamples are, but for a few that say nothing.
        drawn = -losses[fine & (gains > 0)] / gains[fine & (gains > 0)]
        ends = interval(drawn, confidence)
        rates.append(
            ExchangeRate(*names, float(-lost / gain), float(ends[0]), float(ends[1]), confidence)
        )
    return tuple(rates)
