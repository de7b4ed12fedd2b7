"""Goals with labels of 0 and 1: a click, a purchase."""

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

RARE = 1e-6
"""Rates of positives nearer to 0 or 1 than this start from here, since log-odds must be finite."""


@GOALS.register("binary")
@dataclass(frozen=True, kw_only=True)
class Binary(RowGoal):
    """Cross-entropy of a probability; the one output is its log-odds.

    Attributes:
      sampling_rate: Share of the negatives that the log kept, in (0, 1]. Training, log loss and AUC
        are those of the log as it is; predictions and calibration are those of the log before the
        negatives were thinned out: `p / (p + (1 - p) / sampling_rate)` (He et al. 2014, "Practical
        lessons from predicting clicks on ads at Facebook").
    """

    sampling_rate: float = 1.0

    kind = "binary"
    label_rule = "0 or 1"
    primary = "auc"

    def __post_init__(self) -> None:
        self._check_number("sampling_rate", 0, 1, "above 0 and at most 1")

    def loss(self, outputs: jax.Array, labels: ArrayLike) -> jax.Array:
        """Cross-entropy in nats; see `RowGoal.loss`."""
        import jax.numpy as jnp
        import optax  # here and not at the top: serving predicts without it

        logits = outputs[..., 0].astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, jnp.asarray(labels, jnp.float32))

    def predict(self, outputs: Any) -> Any:
        """Probability of a positive among all rows, the negatives that were not kept included."""
        library, values = namespace(outputs)
        logits = values[..., 0] + np.log(self.sampling_rate)
        # Two branches, so that neither a large nor a small logit overflows.
        small = library.exp(-library.abs(logits))
        return library.where(logits < 0, small, 1) / (1 + small)

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels are 0 or 1."""
        values = np.asarray(labels)
        return (values == 0) | (values == 1)

    def prior(self, statistics: Statistics) -> NDArray[np.float64]:
        """Log-odds of the base rate (Lin et al. 2017, arXiv 1708.02002); see `RowGoal.prior`."""
        statistics.require_rows(self.name)
        return np.array([log_odds(statistics.positive_rate)])

    def constant_loss(self, statistics: Statistics) -> float:
        """Entropy of the base rate, in nats; see `RowGoal.constant_loss`."""
        statistics.require_rows(self.name)
        return entropy(statistics.positive_rate)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """AUC, log loss, calibration (predicted over observed positives) and its error by bins."""
        return {
            "auc": Metric(lambda labels, out, mass: metrics.auc(labels, out[:, 0], mass), "higher"),
            "log_loss": Metric(
                lambda labels, out, mass: metrics.log_loss(labels, out[:, 0], mass), "lower"
            ),
            "calibration": Metric(self._calibration, "one"),
            "ece": Metric(self._calibration_error, "lower"),
        }

    def _calibration(
        self, labels: NDArray[Any], outputs: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> float:
        if weights is None and self.sampling_rate == 1:
            positives = (labels > 0).sum()
            predicted = metrics.probabilities(outputs[:, 0]).sum()
            return float(predicted / positives) if positives else float("nan")
        mass = self._before_sampling(labels, weights)
        return metrics.total_ratio(labels, self.predict(outputs), mass)

    def _calibration_error(
        self, labels: NDArray[Any], outputs: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> float:
        mass = self._before_sampling(labels, weights)
        return metrics.calibration_error(labels, self.predict(outputs), mass)

    def _before_sampling(
        self, labels: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        """Weights of the rows in the log before its negatives were thinned out."""
        if self.sampling_rate == 1:
            return weights
        # Each negative that was kept stands for 1 / sampling_rate of them.
        copies = np.where(labels > 0, 1, 1 / self.sampling_rate)
        return copies if weights is None else copies * weights


def log_odds(rate: float) -> float:
    """`log(p / (1 - p))` of a rate in [0, 1]; finite."""
    clipped = min(max(rate, RARE), 1 - RARE)
    return float(np.log(clipped) - np.log1p(-clipped))


def entropy(rate: float) -> float:
    """The log loss of a constant prediction: entropy of a rate in [0, 1], in nats."""
    if not 0 < rate < 1:
        return 0.0
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))
