"""Measures of a front: points `[point, goal]` that are to be small in every goal.

A point dominates another if it is nowhere larger and somewhere smaller. Preferences follow
the convention of the project: a high weight `r_i` asks for a low loss of goal `i`. Every function
raises ValueError on shapes that do not fit and on NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


EXACT_GOALS = 5
"""Goals up to which the hypervolume is exact; the exact algorithms need minutes for 12."""

_SAMPLES = 200_000
"""Directions of the approximation: a quarter of a second, errors below a thousandth."""


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume between the points and a reference point.

    By moocore: exact up to `EXACT_GOALS` goals (Fonseca, Paquete and Lopez-Ibanez 2006), beyond by
    a deterministic approximation over directions (Deng and Zhang 2019), whose time is bounded.

    Args:
      points: `[point, goal]`; what is not below the reference in every goal adds nothing.
      reference: `[goal]`, or one number for all goals.

    Returns:
      At least 0.
    """
    values = _points(points)
    corner = np.broadcast_to(np.asarray(reference, np.float64), values.shape[1:])
    inside = values[(values < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    if values.shape[1] > EXACT_GOALS:
        return float(moocore.hv_approx(inside, ref=corner, nsamples=_SAMPLES, method="Rphi-FWE+"))
    return float(moocore.hypervolume(inside, ref=corner))


def hypervolume_method(num_goals: int) -> str:
    """How `hypervolume` is computed for so many goals, in words."""
    return "exact" if num_goals <= EXACT_GOALS else "approximate (moocore Rphi-FWE+)"


def non_dominated(points: ArrayLike) -> Mask:
    """Whether no other point dominates the point; equal points do not dominate each other.

    Args:
      points: `[point, goal]`.

    Returns:
      `[point]`.
    """
    return np.asarray(moocore.is_nondominated(_points(points), keep_weakly=True), bool)


def dominated_beyond_noise(samples: ArrayLike, level: float = 0.95) -> Mask:
    """Whether one and the same other point dominates the point in most of paired samples.

    Args:
      samples: The points on the resamples of `bootstrap`, `[resample, point, goal]`.
      level: Part of the resamples that it takes, in (0, 1].

    Returns:
      `[point]`; not True means that its being dominated, if it is, may be noise.
    """
    values = np.asarray(samples, np.float64)
    if values.ndim != 3 or np.isnan(values).any():
        raise ValueError(f"samples {values.shape} must be [resample, point, goal] without NaN")
    wins = np.zeros((values.shape[1],) * 2)
    for sample in values:  # one resample at a time keeps memory at [point, point, goal]
        no_worse = (sample[:, None] <= sample).all(axis=-1)
        better = (sample[:, None] < sample).any(axis=-1)
        wins += no_worse & better
    return np.asarray((wins >= level * len(values)).any(axis=0), bool)


def non_dominated_fraction(
    points: ArrayLike, samples: ArrayLike | None = None, level: float = 0.95
) -> float:
    """Part of the points that no other dominates.

    Args:
      points: `[point, goal]`.
      samples: As for `dominated_beyond_noise`; if given, a point counts as dominated only where it
        is so beyond noise.
      level: As for `dominated_beyond_noise`.

    Returns:
      In [0, 1].
    """
    on_front = non_dominated(points)
    if samples is not None:
        on_front |= ~dominated_beyond_noise(samples, level)
    return float(on_front.mean())


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation, ties at their average rank (Spearman 1904).

    Args:
      x: `[point]`.
      y: `[point]`.

    Returns:
      In [-1, 1]; NaN where x or y is constant.
    """
    left, right = (np.asarray(values, np.float64) for values in (x, y))
    if left.ndim != 1 or left.shape != right.shape or np.isnan(left + right).any():
        raise ValueError(f"{left.shape} and {right.shape} must be [point] alike, without NaN")
    ranks = [_average_ranks(values) for values in (left, right)]
    deviations = [values - values.mean() for values in ranks]
    scale = np.sqrt(np.prod([values @ values for values in deviations]))
    return float(deviations[0] @ deviations[1] / scale) if scale > 0 else float("nan")


def preference_correlation(preferences: ArrayLike, losses: ArrayLike) -> Floats:
    """Spearman correlation of each goal's loss with its weight; -1 obeys the preference.

    Args:
      preferences: `[preference, goal]`.
      losses: `[preference, goal]`.

    Returns:
      `[goal]`, in [-1, 1]; NaN where weight or loss is constant.
    """
    weights, values = _weights_and_losses(preferences, losses)
    return np.array([spearman(*columns) for columns in zip(weights.T, values.T, strict=True)])


def spacing(points: ArrayLike) -> float:
    """Standard deviation of the city-block distance to the nearest other point (Schott 1995).

    Args:
      points: `[point, goal]`.

    Returns:
      At least 0, where 0 is an even front; NaN with fewer than three points.
    """
    values = _points(points)
    if len(values) < 3:
        return float("nan")
    distances = np.abs(values[:, None] - values).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).std(ddof=1))


def span(points: ArrayLike) -> float:
    """The smallest, over goals, of the range of the points.

    Args:
      points: `[point, goal]`.
    """
    return float(np.ptp(_points(points), axis=0).min())


def range_covered(points: ArrayLike, ends: ArrayLike) -> Floats:
    """Part of the way between the single-task ends that the points cover.

    Args:
      points: `[point, goal]`.
      ends: Losses of the single-task optima: row `i` is best in goal `i`, `[goal, goal]`.

    Returns:
      `[goal]`, in [0, 1]; NaN where the ends do not differ in the goal.
    """
    values, best, worst = _points_and_ends(points, ends)
    inside = np.clip(values, best, np.maximum(best, worst))
    way = worst - best
    return np.divide(np.ptp(inside, axis=0), way, out=np.full(way.shape, np.nan), where=way > 0)


def angle_to_preference(preferences: ArrayLike, losses: ArrayLike) -> Floats:
    """Angle between the losses and the direction `1 / r`, on which all `r_i l_i` are equal.

    This is where the weighted Chebyshev and the exact Pareto optimal solutions lie.

    Args:
      preferences: `[preference, goal]`.
      losses: Normalised so that the best is near 0 in every goal, `[preference, goal]`.

    Returns:
      `[preference]`, radians in [0, pi]; NaN where all losses are zero.
    """
    weights, values = _weights_and_losses(preferences, losses)
    target = 1 / np.maximum(weights, 1e-9)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (values * target).sum(axis=1) / length
    return np.arccos(np.clip(cosine, -1, 1))


def inverted_generational_distance(points: ArrayLike, front: ArrayLike) -> float:
    """Mean distance from the points of the true front to the nearest point.

    By moocore (Coello Coello and Reyes-Sierra 2004, with the exponent 1).

    Args:
      points: `[point, goal]`.
      front: Points of the true front, `[point, goal]`.
    """
    return float(moocore.igd(_points(points), ref=_points(front)))


class Conflict(NamedTuple):
    """Whether there is a trade-off to be learned.

    Attributes:
      span: Range of each goal's loss along the oracle's front, `[goal]`.
      deviation: Standard deviation over seeds, `[goal]`.
      found: Whether the span exceeds the given multiple of the deviation in every goal.
    """

    span: Floats
    deviation: Floats
    found: bool


def conflict_test(oracle: ArrayLike, multiple: float = 3.0) -> Conflict:
    """Tests whether the oracle's front is more than noise of training.

    The front is the non-dominated part of the losses averaged over seeds, since a model that is
    worse in all goals is no trade-off.

    Args:
      oracle: Losses of models trained apart, one for each preference and seed,
        `[seed, preference, goal]`; at least two seeds.
      multiple: Standard deviations over seeds that the span must exceed.
    """
    values = np.asarray(oracle, np.float64)
    if values.ndim != 3 or len(values) < 2 or np.isnan(values).any():
        raise ValueError(f"oracle {values.shape} must be [seed, preference, goal], 2 seeds or more")
    mean = values.mean(axis=0)
    spans = np.ptp(mean[non_dominated(mean)], axis=0)
    deviation = np.sqrt(values.var(axis=0, ddof=1).mean(axis=0))
    return Conflict(spans, deviation, bool((spans > multiple * deviation).all()))


class TradeOff(NamedTuple):
    """What a grid of preferences buys each goal.

    Attributes:
      gain: Loss of a goal under the preference that weights it least minus that under the one that
        weights it most, `[goal]`; positive where weight helps.
      deviation: Standard deviation of the gain over resamples of the rows, `[goal]`.
      traded: Whether the gain exceeds the given multiple of its deviation, `[goal]`.
    """

    gain: Floats
    deviation: Floats
    traded: NDArray[np.bool_]

    @property
    def found(self) -> bool:
        """Whether at least two goals gain by their weight: one alone has nothing to trade with, and
        one that competes with none of the others takes nothing from their front."""
        return bool(self.traded.sum() > 1)

    def verdict(self, goals: Sequence[str]) -> str:
        """In words, with the goals that trade where these are not all."""
        if not self.found:
            return "no trade-off beyond noise"
        if self.traded.all():
            return "the preference trades off"
        named = [goal for goal, traded in zip(goals, self.traded, strict=True) if traded]
        return f"the preference trades off {', '.join(named)}"


def trade_off(preferences: ArrayLike, samples: ArrayLike, multiple: float = 3.0) -> TradeOff:
    """Tells a front from noise: does a goal's loss fall from its least to its greatest weight?

    Args:
      preferences: `[preference, goal]`.
      samples: Losses on the paired resamples of `bootstrap`, `[resample, preference, goal]`.
      multiple: Standard deviations that a gain must exceed.
    """
    weights, values = _points(preferences), np.asarray(samples, np.float64)
    if values.shape[1:] != weights.shape or np.isnan(values).any():
        raise ValueError(f"samples {values.shape} must be [resample, preference, goal] without NaN")
    tasks = np.arange(weights.shape[1])
    least, most = weights.argmin(axis=0), weights.argmax(axis=0)
    gains = values[:, least, tasks] - values[:, most, tasks]
    gain, deviation = gains.mean(axis=0), gains.std(axis=0, ddof=1)
    return TradeOff(gain, deviation, gain > multiple * deviation)


def _points(points: ArrayLike) -> Floats:
    values = np.asarray(points, np.float64)
    if values.ndim != 2 or 0 in values.shape or np.isnan(values).any():
        raise ValueError(f"points {values.shape} must be [point, goal], not empty, without NaN")
    return values


def _weights_and_losses(preferences: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    weights, values = _points(preferences), _points(losses)
    if weights.shape != values.shape:
        raise ValueError(
            f"preferences {weights.shape} and losses {values.shape} must be alike, "
            "[preference, goal]"
        )
    return weights, values


def _points_and_ends(points: ArrayLike, ends: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Points, and for each goal its loss at its own end and the worst over the ends."""
    values, corners = _points(points), _points(ends)
    if corners.shape != (values.shape[1],) * 2:
        raise ValueError(f"ends {corners.shape} must be [goal, goal], as points {values.shape}")
    return values, np.diagonal(corners).copy(), corners.max(axis=0)


def _average_ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
