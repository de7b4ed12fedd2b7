"""Goals that treat two groups of people alike, by the prediction of another goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals.base import Metric, RowGoal, Rows, namespace
from hyperrec_jax.goals.binary import log_odds
from hyperrec_jax.goals.kinds import GOALS
from hyperrec_jax.goals.statistics import Statistics

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike


@GOALS.register("fairness")
@dataclass(frozen=True, kw_only=True)
class Fairness(RowGoal):
    """Difference between two groups in how often a binary goal's prediction says yes.

    Its label is the group of a row: 1 for its members, 0 for all others. 'ddp', the difference of
    demographic parity, counts all rows; 'deo', the difference of equality of opportunity (Hardt et
    al. 2016, arXiv 1610.02413), those where the goal `of` is positive, which are the only ones with
    a label then. Training has a smooth stand-in: 'sigmoid' is `|mean_a s - mean_b s|`,
    `s = sigmoid((logit - threshold's) / temperature)`, the difference of rates itself as the
    temperature falls; 'tanh' is that of COSMOS (Ruchte and Grabocka 2021, arXiv 2103.13392),
    `|sum_a tanh(p) - sum_b tanh(p)| / rows`, with the probability `p`, over all rows of a batch.

    It has no outputs of its own: it reads the log-odds of the goal `of`. A constant prediction is
    perfectly fair, so no loss of a constant exists to divide by; all values are in [0, 1] already.

    Attributes:
      of: Name of the binary goal whose predictions are to be fair.
      measure: 'deo' or 'ddp'.
      surrogate: 'sigmoid' or 'tanh'.
      temperature: Temperature of 'sigmoid', above 0, in units of the logit.
      threshold: Probability from which the prediction says yes, in (0, 1); 'tanh' has none.
      value: What the column says of a member of the first group, such as 'female'; by default the
        column has 0 and 1.
    """

    of: str
    measure: str = "deo"
    surrogate: str = "sigmoid"
    temperature: float = 0.1
    threshold: float = 0.5
    value: str | None = None

    kind = "fairness"
    outputs = 0
    label_rule = "0 or 1"
    primary = "rate_difference"

    def __post_init__(self) -> None:
        if not (isinstance(self.of, str) and self.of):
            raise self._bad_option("of", "a name")
        if self.value is not None and not isinstance(self.value, str):
            raise self._bad_option("value", "text")
        self._check_choice("measure", ("deo", "ddp"))
        self._check_choice("surrogate", ("sigmoid", "tanh"))
        self._check_number("temperature", 0, np.inf, "a number above 0")
        self._check_number("threshold", 0, np.nextafter(1, 0), "between 0 and 1")

    def fitted(self, statistics: Statistics) -> Fairness:
        """The goal itself; see `Goal.fitted`.

        Raises:
          UserError: All rows are of one group.
        """
        if not 0 < statistics.positive_rate < 1:
            group = "" if self.value is None else f" (the column says {self.value!r} of one)"
            raise UserError(
                f"goal '{self.name}' (fairness): all training rows that count are of one group"
                f"{group}; name a column of two groups"
            )
        return self

    def loss(self, outputs: jax.Array, labels: ArrayLike) -> jax.Array:
        """What each row adds to the difference; see `row_losses`."""
        return self.row_losses(outputs, Rows(labels))

    def row_losses(self, outputs: jax.Array, rows: Rows) -> jax.Array:
        """What each row adds to the smooth difference of the batch, whose mean is the difference.

        A row's share is its influence: how the difference changes with its weight. So resamples of
        the rows may reweight the shares, to first order.

        Args:
          outputs: Those of the goal `of`, `[..., row, 1]`.
          rows: The group of each row as labels, and weights, by which the mean is to be taken.

        Returns:
          `[..., row]`, float32; 0 for rows without a group, and where a group has no row.
        """
        import jax
        import jax.numpy as jnp

        logits = outputs[..., 0].astype(jnp.float32)
        labels = jnp.asarray(rows.labels)
        mass = jnp.asarray(1 if rows.weights is None else rows.weights, jnp.float32)
        mass = jnp.broadcast_to(mass, labels.shape)
        total = mass.sum(axis=-1)
        mask = jnp.ones(labels.shape, bool) if rows.mask is None else jnp.asarray(rows.mask, bool)
        mass = jnp.where(mask, mass, 0)
        counted = mass.sum(axis=-1)
        member = mask & (labels == 1)
        sizes = [jnp.where(part, mass, 0).sum(axis=-1) for part in (member, ~member)]
        if self.surrogate == "tanh":
            signed = jnp.tanh(jax.nn.sigmoid(logits)) * jnp.where(member, 1, -1)
            share = signed * _over(counted, total)
            difference = (mass * signed).sum(axis=-1) * _over(1, total)
            return jnp.where(mask, jnp.sign(difference)[..., None] * share, 0)
        yes = jax.nn.sigmoid((logits - log_odds(self.threshold)) / self.temperature)
        rates = [
            (jnp.where(part, mass, 0) * yes).sum(axis=-1) * _over(1, size)
            for part, size in zip((member, ~member), sizes, strict=True)
        ]
        both = (sizes[0] > 0) & (sizes[1] > 0)
        difference = jnp.where(both, rates[0] - rates[1], 0)
        shares = [
            (yes - rate[..., None]) * _over(counted, size)
            for rate, size in zip(rates, sizes, strict=True)
        ]
        signed = difference[..., None] + jnp.where(member, shares[0], -shares[1])
        return jnp.where(mask & both, jnp.sign(difference)[..., None] * signed, 0)

    def prior(self, statistics: Statistics) -> NDArray[np.float64]:
        """Nothing: it has no outputs."""
        return np.zeros(0)

    def constant_loss(self, statistics: Statistics) -> float:
        """The largest difference that there is, 1, since that of a constant is 0."""
        return 1.0

    def predict(self, outputs: Any) -> Any:
        """Whether the prediction of the goal `of` says yes: 1 or 0."""
        library, values = namespace(outputs)
        return library.where(values[..., 0] > log_odds(self.threshold), 1.0, 0.0)

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels are 0 or 1."""
        values = np.asarray(labels)
        return (values == 0) | (values == 1)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The hard measure: the difference of the groups' rates, whatever the groups' sizes."""
        return {"rate_difference": Metric(self._rate_difference, "lower")}

    def _rate_difference(
        self, labels: NDArray[Any], outputs: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> float:
        mass = np.ones(len(labels)) if weights is None else weights
        yes = self.predict(outputs)
        parts = [mass * (labels == group) for group in (0, 1)]
        if not all(part.sum() > 0 for part in parts):
            return float("nan")
        rates = [np.average(yes, weights=part) for part in parts]
        return float(abs(rates[0] - rates[1]))


def _over(above: ArrayLike, below: jax.Array) -> jax.Array:
    """`above / below`, 0 where that is not defined."""
    import jax.numpy as jnp

    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)
