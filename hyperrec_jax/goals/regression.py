"""Goals whose label is any number: a rating, a delay, a watch time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import metrics
from hyperrec_jax.goals.base import Metric, RowGoal, namespace
from hyperrec_jax.goals.kinds import GOALS
from hyperrec_jax.goals.statistics import Moments, Statistics

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike

LARGEST_LOG = 80.0
"""Predictions end at `exp` of this, so that they are finite in float32."""


@GOALS.register("regression")
@dataclass(frozen=True, kw_only=True)
class Regression(RowGoal):
    """A number; the one output is its transformed value, the target of the loss.

    Attributes:
      error: 'squared' for `(output - target)^2`, whose best prediction is the mean of the target;
        'huber' (Huber 1964) for half of that up to `delta`, and linear beyond, for labels with
        outliers.
      target: What the loss compares with: the label ('identity'), `log(1 + label)` ('log1p', for
        labels of at least 0; a prediction is then nearer to the median than to the mean), or
        `(label - location) / scale` ('standardised').
      delta: Where the Huber loss becomes linear, above 0, in units of the target.
      location: Mean of the training labels, for 'standardised'; from the statistics by default.
      scale: Standard deviation of the training labels, above 0, likewise.
    """

    error: str = "squared"
    target: str = "standardised"
    delta: float = 1.0
    location: float | None = None
    scale: float | None = None

    kind = "regression"
    primary = "rmse"

    def __post_init__(self) -> None:
        self._check_choice("error", ("squared", "huber"))
        self._check_choice("target", ("identity", "log1p", "standardised"))
        self._check_number("delta", 0, np.inf, "a number above 0")
        for option, low in (("location", -np.inf), ("scale", 0.0)):
            if getattr(self, option) is not None:
                if self.target != "standardised":
                    raise self._bad_option(option, "left out unless target is 'standardised'")
                rule = "a number" if option == "location" else "a number above 0"
                self._check_number(option, low, np.inf, rule)

    @property
    def label_rule(self) -> str:  # type: ignore[override]
        """Which labels it accepts."""
        return "a number of at least 0" if self.target == "log1p" else "a number"

    def fitted(self, statistics: Statistics) -> Self:
        """With the location and scale of the labels filled in; see `Goal.fitted`."""
        if self.target != "standardised":
            return self
        statistics.require_rows(self.name)
        location, variance = statistics.values.mean, statistics.values.variance
        if not variance > 0 and self.scale is None:
            raise UserError(
                f"goal '{self.name}': all its labels are {location:g}, which leaves nothing to "
                "learn: leave the goal out"
            )
        return replace(
            self,
            location=location if self.location is None else self.location,
            scale=float(np.sqrt(variance)) if self.scale is None else self.scale,
        )

    def loss(self, outputs: jax.Array, labels: ArrayLike) -> jax.Array:
        """Squared or Huber error of the target; see `RowGoal.loss`."""
        import jax.numpy as jnp
        import optax  # here and not at the top: serving predicts without it

        values = outputs[..., 0].astype(jnp.float32)
        targets = self._targets(jnp, jnp.asarray(labels, jnp.float32))
        if self.error == "squared":
            return jnp.square(values - targets)
        return optax.huber_loss(values, targets, delta=self.delta)

    def predict(self, outputs: Any) -> Any:
        """The expected label: the output with the target's transformation undone."""
        library, values = namespace(outputs)
        if self.target == "log1p":
            return library.expm1(library.minimum(values[..., 0], LARGEST_LOG))
        location, scale = self._place()
        return location + scale * values[..., 0]

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels are finite, and at least 0 where the target is their logarithm."""
        values = np.asarray(labels)
        return np.isfinite(values) & ((values >= 0) | (self.target != "log1p"))

    def prior(self, statistics: Statistics) -> NDArray[np.float64]:
        """Mean of the target, or its Huber centre; see `RowGoal.prior`."""
        statistics.require_rows(self.name)
        if self.error == "squared":
            return np.array([self._target_moments(statistics).mean])
        from scipy.optimize import brentq  # here: slow to import, and few goals need it

        points = self._targets(np, statistics.points)
        weights = statistics.point_weights

        def pull(centre: float) -> float:
            return float(weights @ np.clip(points - centre, -self.delta, self.delta))

        low, high = float(points.min()), float(points.max())
        return np.array([low if low == high else brentq(pull, low, high, xtol=1e-12)])

    def constant_loss(self, statistics: Statistics) -> float:
        """Variance of the target, or its mean Huber loss; see `RowGoal.constant_loss`."""
        statistics.require_rows(self.name)
        if self.error == "squared":
            return self._target_moments(statistics).variance
        distances = np.abs(self._targets(np, statistics.points) - self.prior(statistics)[0])
        near = np.minimum(distances, self.delta)
        losses = near * (distances - near / 2)
        return float(np.average(losses, weights=statistics.point_weights))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Errors in the unit of the label, and metrics of order."""
        functions = {
            "rmse": metrics.root_mean_squared_error,
            "mae": metrics.mean_absolute_error,
            "r2": metrics.r2,
            "xauc": metrics.xauc,
            "spearman": metrics.spearman,
        }
        return {
            name: Metric(
                lambda labels, out, mass, f=function: f(labels, self.predict(out), mass),
                "lower" if name in ("rmse", "mae") else "higher",
            )
            for name, function in functions.items()
        }

    def _targets(self, library: Any, labels: Any) -> Any:
        if self.target == "identity":
            return labels
        if self.target == "log1p":
            return library.log1p(labels)
        location, scale = self._place()
        return (labels - location) / scale

    def _target_moments(self, statistics: Statistics) -> Moments:
        if self.target == "log1p":
            return statistics.logs1p
        location, scale = self._place()
        weight, mean, squares = statistics.values
        return Moments(weight, (mean - location) / scale, squares / scale**2)

    def _place(self) -> tuple[float, float]:
        if self.target == "identity":
            return 0.0, 1.0
        if self.location is None or self.scale is None:
            raise ValueError(f"goal '{self.name}' needs fitted(statistics) first")
        return self.location, self.scale
