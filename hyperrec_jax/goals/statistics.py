"""What one pass over a column of labels has to remember, and the mean of losses over labelled rows.

A goal's best constant prediction follows from a few sums over its labels. `Statistics` holds them
for every kind of goal, so that whoever prepares the data needs to know none of them: make one from
each chunk of a log and `merge` them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike

Floats = NDArray[np.float64]


class Moments(NamedTuple):
    """Weighted mean and spread of some values.

    Attributes:
      weight: Sum of the weights.
      mean: Weighted mean; 0 without values.
      squares: Weighted sum of squared deviations from the mean.
    """

    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Floats, weights: Floats) -> Self:
        """The moments of values `[row]` with weights `[row]`."""
        weight = float(weights.sum())
        if weight == 0:
            return cls()
        mean = float(weights @ values) / weight
        return cls(weight, mean, float(weights @ np.square(values - mean)))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of values together (Chan, Golub and LeVeque 1983).

        Sums of squares would lose every digit of the variance where the mean is large.
        """
        weight = self.weight + other.weight
        if weight == 0:
            return self
        step = other.mean - self.mean
        return Moments(
            weight,
            self.mean + step * other.weight / weight,
            self.squares + other.squares + step**2 * self.weight * other.weight / weight,
        )

    @property
    def variance(self) -> float:
        """Weighted mean of the squared deviations; 0 without values."""
        return self.squares / self.weight if self.weight else 0.0


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the labels of one goal, of the rows that have a label.

    Attributes:
      count: Number of rows.
      values: Moments of the labels.
      logs1p: Moments of `log(1 + label)`, over labels above -1.
      logs: Moments of `log(label)`, over positive labels: their weight is that of the positives.
      label_log_label: Weighted sum of `label * log(label)` over positive labels.
      points: Distribution of the labels as ascending values `[point]`.
      point_weights: Weights of the points, `[point]`.
    """

    count: int
    values: Moments
    logs1p: Moments
    logs: Moments
    label_log_label: float
    points: Floats
    point_weights: Floats

    @classmethod
    def of(
        cls, labels: NumpyLike, weights: NumpyLike | None = None, *, max_points: int | None = 512
    ) -> Self:
        """The statistics of some labels.

        Args:
          labels: `[row]`, finite: leave out the rows without a label.
          weights: `[row]`, at least 0; 1 each by default.
          max_points: Distinct labels beyond this number share points, by quantiles. With None every
            distinct label is kept, and everything that follows from the statistics is exact.

        Raises:
          ValueError: Shapes that differ, labels that are not finite, or weights that are negative.
        """
        values = np.asarray(labels, np.float64)
        mass = np.ones(values.shape) if weights is None else np.asarray(weights, np.float64)
        if values.ndim != 1 or values.shape != mass.shape:
            raise ValueError(f"labels {values.shape} and weights {mass.shape} must be [row] alike")
        if not (np.isfinite(values).all() and np.isfinite(mass).all() and (mass >= 0).all()):
            raise ValueError("labels must be finite, and weights finite and not negative")
        above, positive = values > -1, values > 0
        logs = np.log(values[positive])
        return cls(
            count=len(values),
            values=Moments.of(values, mass),
            logs1p=Moments.of(np.log1p(values[above]), mass[above]),
            logs=Moments.of(logs, mass[positive]),
            label_log_label=float((mass[positive] * values[positive]) @ logs),
            **_points(values, mass, max_points),
        )

    def merge(self, other: Statistics, *, max_points: int | None = 512) -> Statistics:
        """The statistics of both sets of rows together.

        Args:
          other: Statistics of other rows of the same goal.
          max_points: As for `of`.
        """
        return Statistics(
            self.count + other.count,
            self.values.merge(other.values),
            self.logs1p.merge(other.logs1p),
            self.logs.merge(other.logs),
            self.label_log_label + other.label_log_label,
            **_points(
                np.concatenate([self.points, other.points]),
                np.concatenate([self.point_weights, other.point_weights]),
                max_points,
            ),
        )

    @property
    def positive_rate(self) -> float:
        """Weighted share of positive labels, in [0, 1]."""
        return min(1.0, self.logs.weight / self.values.weight) if self.values.weight else 0.0

    def to_json(self) -> dict[str, Any]:
        """As numbers and lists, for a JSON file."""
        return {
            "count": self.count,
            "values": list(self.values),
            "logs1p": list(self.logs1p),
            "logs": list(self.logs),
            "label_log_label": self.label_log_label,
            "points": self.points.tolist(),
            "point_weights": self.point_weights.tolist(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The statistics that `to_json` wrote."""
        return cls(
            int(record["count"]),
            Moments(*record["values"]),
            Moments(*record["logs1p"]),
            Moments(*record["logs"]),
            float(record["label_log_label"]),
            np.asarray(record["points"], np.float64),
            np.asarray(record["point_weights"], np.float64),
        )

    def require_rows(self, goal: str) -> None:
        """Refuses a goal that no row has a label of.

        Args:
          goal: The goal's name.

        Raises:
          UserError: The statistics are of no row, or all weights are 0.
        """
        if not self.values.weight:
            raise UserError(
                f"goal '{goal}' has no row with a label and a weight above 0: leave the goal out "
                "or give rows that have it"
            )


def masked_mean(
    losses: jax.Array, mask: ArrayLike | None = None, weights: ArrayLike | None = None
) -> jax.Array:
    """Weighted mean of losses over the rows that count.

    Losses of rows that do not count reach neither the mean nor its gradient, even where they are
    infinite or NaN.

    Args:
      losses: `[..., row]`.
      mask: Which rows count, bool `[row]` or `[..., row]`; all of them by default.
      weights: `[row]` or `[..., row]`, at least 0; 1 each by default. May hold anything where the
        mask is False.

    Returns:
      `[...]`; 0 where no row counts. Without mask and weights exactly `losses.mean(axis=-1)`.
    """
    import jax.numpy as jnp

    if mask is None and weights is None:
        return losses.mean(axis=-1)
    shares = jnp.asarray(1 if weights is None else weights, losses.dtype)
    if mask is not None:
        shares = jnp.where(jnp.asarray(mask, bool), shares, 0)
    total = shares.sum(axis=-1)
    weighted = (jnp.where(shares > 0, losses, 0) * shares).sum(axis=-1)
    return jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1), 0)


def _points(values: Floats, weights: Floats, max_points: int | None) -> dict[str, Floats]:
    """The distribution of some values as points and their weights, for the fields of that name."""
    points, point_of_value = np.unique(values, return_inverse=True)
    mass = np.bincount(point_of_value, weights=weights, minlength=len(points)).astype(np.float64)
    points, mass = points[mass > 0], mass[mass > 0]
    if max_points is not None and len(points) > max_points:
        # Bins of equal weight; a bin's point is its mean, so that the mean of all is kept.
        middle = np.cumsum(mass) - mass / 2
        wanted = np.minimum((middle / mass.sum() * max_points).astype(np.int64), max_points - 1)
        bin_of_point = np.unique(wanted, return_inverse=True)[1]
        binned = np.bincount(bin_of_point, weights=mass).astype(np.float64)
        points = np.bincount(bin_of_point, weights=mass * points) / binned
        mass = binned
    return {"points": points, "point_weights": mass}
