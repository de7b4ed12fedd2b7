"""Goals that count: items in a basket, visits in a week."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.goals import metrics
from hyperrec_jax.goals.base import Metric, RowGoal, namespace
from hyperrec_jax.goals.kinds import GOALS
from hyperrec_jax.goals.statistics import Statistics

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike

RAREST = 1e-6
"""Training starts from no lower rate than this, whose logarithm must be finite."""
STEEPEST = 30.0
"""Where a rate is above `exp` of this times the label the loss goes on as a straight line."""
LARGEST_LOG = 80.0
"""Predictions end at `exp` of this, so that they are finite in float32."""


@GOALS.register("count")
@dataclass(frozen=True, kw_only=True)
class Count(RowGoal):
    """A rate of events, by Poisson regression; the one output is the rate's logarithm.

    The loss is half the deviance, `y log(y / rate) - y + rate`: the Poisson likelihood but for a
    term of the label alone, so that it is 0 for a perfect prediction and never negative. A model's
    loss over that of the best constant is `1 - D2`.
    """

    kind = "count"
    label_rule = "a whole number of at least 0"
    primary = "deviance"

    def loss(self, outputs: jax.Array, labels: ArrayLike) -> jax.Array:
        """Half the deviance; see `RowGoal.loss`."""
        import jax.numpy as jnp

        log_rates = outputs[..., 0].astype(jnp.float32)
        counts = jnp.asarray(labels, jnp.float32)
        any_event = counts > 0
        # With d = log(rate / y) it is y (e^d - 1 - d), which keeps its digits for large counts.
        difference = log_rates - jnp.log(jnp.where(any_event, counts, 1))
        excess = jnp.expm1(jnp.minimum(difference, STEEPEST))
        excess += np.exp(STEEPEST) * jnp.maximum(difference - STEEPEST, 0)
        return jnp.where(any_event, counts * (excess - difference), excess + 1)

    def predict(self, outputs: Any) -> Any:
        """The expected count."""
        library, values = namespace(outputs)
        return library.exp(library.minimum(values[..., 0], LARGEST_LOG))

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels are whole numbers of at least 0."""
        values = np.asarray(labels)
        return np.isfinite(values) & (values >= 0) & (values == np.floor(values))

    def prior(self, statistics: Statistics) -> NDArray[np.float64]:
        """Logarithm of the mean count; see `RowGoal.prior`."""
        statistics.require_rows(self.name)
        return np.array([np.log(max(statistics.values.mean, RAREST))])

    def constant_loss(self, statistics: Statistics) -> float:
        """Half the deviance of the mean count; see `RowGoal.constant_loss`."""
        statistics.require_rows(self.name)
        weight, mean, _ = statistics.values
        if not mean > 0:
            return 0.0
        return max(0.0, statistics.label_log_label / weight - mean * float(np.log(mean)))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Deviance and its explained share D2, AUC of any event, predicted over observed events."""
        return {
            "deviance": Metric(
                lambda labels, out, mass: metrics.poisson_deviance(labels, out[:, 0], mass), "lower"
            ),
            "d2": Metric(self._explained, "higher"),
            "auc_any": Metric(
                lambda labels, out, mass: metrics.auc(labels, out[:, 0], mass), "higher"
            ),
            "calibration": Metric(
                lambda labels, out, mass: metrics.total_ratio(labels, self.predict(out), mass),
                "one",
            ),
        }

    def _explained(
        self, labels: NDArray[Any], outputs: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> float:
        if not len(labels):
            return float("nan")
        constant = 2 * self.constant_loss(Statistics.of(labels, weights))
        deviance = metrics.poisson_deviance(labels, outputs[:, 0], weights)
        return 1 - deviance / constant if constant > 0 else float("nan")
