"""Goals that treat two groups of people alike, by the prediction of another goal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.goals.base import Goal, Metric, Rows, namespace
from hyperrec_jax.goals.binary import log_odds
from hyperrec_jax.goals.kinds import GOALS


@GOALS.register("fairness")
@dataclass(frozen=True, kw_only=True)
class Fairness(Goal):
    """Difference between two groups in how often a binary goal's prediction says yes.

    Among all rows (DDP, difference of demographic parity) or among those with a label of 1 (DEO,
    difference of equality of opportunity, Hardt et al. 2016). Training has a smooth stand-in:
    'tanh' is that of COSMOS (Ruchte and Grabocka 2021, arXiv 2103.13392),
    `|sum_a tanh(p) - sum_b tanh(p)| / rows`, with the probability `p` and sums over each group's
    rows that count; 'sigmoid' is `|mean_a s - mean_b s|`, `s = sigmoid((logit - threshold's) /
    temperature)`, the difference of rates itself as the temperature falls.

    It has no outputs of its own: it reads the log-odds of the goal `of`, and 0 or 1 of the column
    `group`. A constant prediction is perfectly fair, so no loss of a constant exists to divide by;
    all its values are in [0, 1] already.

    Attributes:
      of: Name of the binary goal whose outputs and labels it gets.
      group: Column with the group of each row, 0 or 1.
      measure: 'deo' or 'ddp'.
      surrogate: 'sigmoid' or 'tanh'.
      temperature: Of 'sigmoid', above 0, in units of the logit.
      threshold: Probability from which the prediction says yes, in (0, 1); 'tanh' has none.
    """

    of: str
    group: str
    measure: str = "deo"
    surrogate: str = "sigmoid"
    temperature: float = 0.1
    threshold: float = 0.5

    kind = "fairness"
    outputs = 0
    label_rule = "0 or 1"
    primary = "rate_difference"

    def __post_init__(self) -> None:
        for option in ("of", "group"):
            if not (isinstance(getattr(self, option), str) and getattr(self, option)):
                raise self._bad_option(option, "a name")
        self._check_choice("measure", ("deo", "ddp"))
        self._check_choice("surrogate", ("sigmoid", "tanh"))
        self._check_number("temperature", 0, np.inf, "a number above 0")
        self._check_number("threshold", 0, np.nextafter(1, 0), "between 0 and 1")

    def batch_loss(self, outputs: jax.Array, rows: Rows) -> jax.Array:
        """The smooth difference; see `Goal.batch_loss`.

        Args:
          outputs: Those of the goal `of`, `[..., row, 1]`.
          rows: Labels of that goal, and the groups.

        Returns:
          `[...]`, in [0, 1]; with 'sigmoid' 0 where a group has no row that counts.
        """
        if rows.groups is None:
            raise ValueError(f"goal '{self.name}' needs the groups of the rows")
        logits, labels = outputs[..., 0].astype(jnp.float32), jnp.asarray(rows.labels)
        weights = jnp.asarray(1 if rows.weights is None else rows.weights, jnp.float32)
        weights = jnp.broadcast_to(weights, labels.shape)
        if rows.mask is not None:
            weights = jnp.where(jnp.asarray(rows.mask, bool), weights, 0)
        counted = jnp.where(labels == 1, weights, 0) if self.measure == "deo" else weights
        member = jnp.asarray(rows.groups) == 1
        first, second = jnp.where(member, counted, 0), jnp.where(member, 0, counted)
        if self.surrogate == "tanh":
            yes = jnp.tanh(jax.nn.sigmoid(logits))
            total = weights.sum(axis=-1)
            difference = ((first - second) * yes).sum(axis=-1)
            return jnp.abs(difference) / jnp.where(total > 0, total, 1)
        yes = jax.nn.sigmoid((logits - log_odds(self.threshold)) / self.temperature)
        sums, sizes = (
            [jnp.asarray((part * by).sum(axis=-1)) for part in (first, second)] for by in (yes, 1)
        )
        rates = [
            total / jnp.where(size > 0, size, 1) for total, size in zip(sums, sizes, strict=True)
        ]
        both = (sizes[0] > 0) & (sizes[1] > 0)
        return jnp.where(both, jnp.abs(rates[0] - rates[1]), 0)

    def predict(self, outputs: Any) -> Any:
        """Whether the prediction says yes, as 0 or 1."""
        library, values = namespace(outputs)
        return library.where(values[..., 0] > log_odds(self.threshold), 1.0, 0.0)

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels, or groups, are 0 or 1."""
        values = np.asarray(labels)
        return (values == 0) | (values == 1)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The hard measure: difference of the groups' rates, and of their counts over all rows.

        The first does not depend on the groups' sizes. The second is COSMOS's.
        """
        return {
            "rate_difference": Metric(self._rate_difference, "lower", needs_groups=True),
            "count_difference": Metric(self._count_difference, "lower", needs_groups=True),
        }

    def _rate_difference(self, *rows: Any) -> float:
        yes, sizes, _ = self._groups(*rows)
        return float(abs(np.diff(yes / sizes)[0])) if (sizes > 0).all() else float("nan")

    def _count_difference(self, *rows: Any) -> float:
        yes, _, total = self._groups(*rows)
        return float(abs(np.diff(yes)[0])) / total if total > 0 else float("nan")

    def _groups(
        self,
        labels: NDArray[Any],
        outputs: NDArray[Any],
        weights: NDArray[np.float64] | None,
        groups: NDArray[Any],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Weight of each group's rows that say yes and that count, and the weight of all rows."""
        if not self.accepts(groups).all():
            raise ValueError("groups of a fairness goal must be 0 or 1")
        mass = np.ones(len(labels)) if weights is None else weights
        counted = mass * (labels == 1) if self.measure == "deo" else mass
        yes = self.predict(outputs)
        sums = [
            np.array([by[groups == group].sum() for group in (0, 1)], np.float64)
            for by in (counted * yes, counted)
        ]
        return sums[0], sums[1], float(mass.sum())
