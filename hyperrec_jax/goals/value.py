"""Goals that are amounts with many zeros: revenue, watch time, customer value."""

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
from hyperrec_jax.goals.binary import entropy, log_odds
from hyperrec_jax.goals.kinds import GOALS
from hyperrec_jax.goals.statistics import Statistics

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike

NARROWEST = 1e-3
"""Smallest standard deviation of the standardised log amount."""
LARGEST_LOG = 80.0
"""Predictions end at `exp` of this, so that they are finite in float32."""
HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))


@GOALS.register("value")
@dataclass(frozen=True, kw_only=True)
class Value(RowGoal):
    """Zero-inflated log-normal amount (Wang, Liu and Miao 2019, arXiv 1912.07753).

    An amount is 0 or, with probability `p`, log-normal. The outputs are the log-odds of `p`, and
    mean and spread (before a softplus) of the standardised log amount `(log y - location) / scale`.
    The loss is the negative log-likelihood of the label, with the density of a positive amount
    taken over its standardised logarithm. It differs from the paper's by `log(scale * y)` for
    positive labels, which no output changes; so it does not depend on the currency, and that of the
    best constant is positive.

    Attributes:
      location: Mean of `log y` over the positive training labels; from the statistics by default.
      scale: Its standard deviation, above 0; likewise.
    """

    location: float | None = None
    scale: float | None = None

    kind = "value"
    outputs = 3
    label_rule = "an amount of at least 0"
    primary = "gini"

    def __post_init__(self) -> None:
        if self.location is not None:
            self._check_number("location", -np.inf, np.inf, "a number")
        if self.scale is not None:
            self._check_number("scale", 0, np.inf, "a number above 0")

    def fitted(self, statistics: Statistics) -> Self:
        """With location and scale of the log amounts filled in; see `Goal.fitted`."""
        statistics.require_rows(self.name)
        if not statistics.logs.weight:
            raise UserError(f"goal '{self.name}' has no label above 0: leave the goal out")
        deviation = float(np.sqrt(statistics.logs.variance))
        if self.scale is None and not deviation > 0:
            raise UserError(
                f"goal '{self.name}': all its labels above 0 are the same: make it a binary goal"
            )
        return replace(
            self,
            location=statistics.logs.mean if self.location is None else self.location,
            scale=deviation if self.scale is None else self.scale,
        )

    def loss(self, outputs: jax.Array, labels: ArrayLike) -> jax.Array:
        """Negative log-likelihood in nats; see `RowGoal.loss`."""
        import jax
        import jax.numpy as jnp
        import optax  # here and not at the top: serving predicts without it

        location, scale = self._place()
        values, amounts = outputs.astype(jnp.float32), jnp.asarray(labels, jnp.float32)
        positive = amounts > 0
        logs = jnp.log(jnp.where(positive, amounts, 1))
        spread = jax.nn.softplus(values[..., 2]) + NARROWEST
        distance = ((logs - location) / scale - values[..., 1]) / spread
        density = jnp.log(spread) + 0.5 * jnp.square(distance) + HALF_LOG_2PI
        some = optax.sigmoid_binary_cross_entropy(values[..., 0], positive.astype(jnp.float32))
        return some + jnp.where(positive, density, 0)

    def predict(self, outputs: Any) -> Any:
        """The expected amount: `p exp(mean + deviation^2 / 2)`, of the log amount."""
        location, scale = self._place()
        library, values = namespace(outputs)
        deviation = scale * (library.logaddexp(values[..., 2], 0.0) + NARROWEST)
        mean = location + scale * values[..., 1]
        log_probability = -library.logaddexp(-values[..., 0], 0.0)
        log_amount = log_probability + mean + 0.5 * library.square(deviation)
        return library.exp(library.minimum(log_amount, LARGEST_LOG))

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels are finite and at least 0."""
        values = np.asarray(labels)
        return np.isfinite(values) & (values >= 0)

    def prior(self, statistics: Statistics) -> NDArray[np.float64]:
        """Log-odds of any amount, and moments of the log amounts; see `RowGoal.prior`."""
        statistics.require_rows(self.name)
        mean, spread = self._constant(statistics)
        # The inverse of the softplus; the smallest number keeps it finite.
        raw = np.log(np.expm1(max(spread - NARROWEST, 1e-6)))
        return np.array([log_odds(statistics.positive_rate), mean, raw])

    def constant_loss(self, statistics: Statistics) -> float:
        """Loss of one log-normal for all rows; see `RowGoal.constant_loss`."""
        statistics.require_rows(self.name)
        rate = statistics.positive_rate
        _, spread = self._constant(statistics)
        variance = statistics.logs.variance / self._place()[1] ** 2
        density = float(np.log(spread)) + 0.5 * variance / spread**2 + HALF_LOG_2PI
        return entropy(rate) + rate * density

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Metrics of order, of the total, and AUC of any amount."""

        def total_error(
            labels: NDArray[Any], out: NDArray[Any], mass: NDArray[np.float64] | None
        ) -> float:
            return abs(metrics.total_ratio(labels, self.predict(out), mass) - 1)

        return {
            "gini": Metric(
                lambda labels, out, mass: metrics.gini(labels, self.predict(out), mass), "higher"
            ),
            "xauc": Metric(
                lambda labels, out, mass: metrics.xauc(labels, self.predict(out), mass), "higher"
            ),
            "auc_any": Metric(
                lambda labels, out, mass: metrics.auc(labels, out[:, 0], mass), "higher"
            ),
            "total_error": Metric(total_error, "lower"),
        }

    def _constant(self, statistics: Statistics) -> tuple[float, float]:
        """Mean and spread of the standardised log amounts; of no amounts, those of training."""
        location, scale = self._place()
        if not statistics.logs.weight:
            return 0.0, 1.0
        spread = float(np.sqrt(statistics.logs.variance)) / scale
        return (statistics.logs.mean - location) / scale, max(spread, NARROWEST)

    def _place(self) -> tuple[float, float]:
        if self.location is None or self.scale is None:
            raise ValueError(f"goal '{self.name}' needs fitted(statistics) first")
        return self.location, self.scale
