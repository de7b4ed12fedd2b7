"""What a goal is: a loss, a prediction made from the model's outputs, and metrics.

A goal is a frozen dataclass whose fields are its options; its methods are pure functions. There are
two sorts. A `RowGoal` has a loss for each row: `binary`, `regression`, `count` and `value`, with a
best constant prediction; and `fairness`, whose rows are compared with the others of their batch and
which reads the outputs of another goal. Other goals have a loss of a whole batch only: `graded`,
whose loss belongs to lists. All of them share `batch_loss`, which is all that training needs:

    goal = create_goal("value", "revenue").fitted(Statistics.of(labels))
    loss = goal.batch_loss(outputs, Rows(labels, mask))     # outputs [..., row, goal.outputs]

Outputs may be of any float type: JAX arrays are computed in float32, NumPy arrays in float64. JAX
is imported where it computes, not at the top: data is prepared without it, which saves 110 MB and
a second of each command.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals.statistics import Statistics, masked_mean

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike


class Rows(NamedTuple):
    """What a loss reads of a batch beside the model's outputs.

    Attributes:
      labels: `[row]`; of graded goals `[list, item]`. May hold anything where the mask is False,
        NaN included.
      mask: Which rows have the label, bool, in the shape of the labels; all of them by default.
      weights: Weight of each row, at least 0, in the shape of the labels; 1 each by default.
    """

    labels: ArrayLike
    mask: ArrayLike | None = None
    weights: ArrayLike | None = None


@dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are, computed by NumPy in float64.

    Attributes:
      compute: `compute(labels [row], outputs [row, outputs], weights [row] or None, groups [row] or
        None) -> float`; NaN where the labels leave the metric undefined.
      better: Which values are better: 'higher', 'lower', or those nearer to 'one', from either side
        (a ratio that is 1 at best).
      needs_groups: Whether groups must be given, the lists for NDCG.
    """

    compute: Callable[..., float]
    better: Literal["higher", "lower", "one"]
    needs_groups: bool = False

    def __call__(
        self,
        labels: NumpyLike,
        outputs: NumpyLike,
        weights: NumpyLike | None = None,
        groups: NumpyLike | None = None,
    ) -> float:
        """The metric of some rows, all of which have a label.

        Args:
          labels: `[row]`, finite.
          outputs: The model's outputs for the goal, `[row, outputs]`.
          weights: `[row]`, at least 0; 1 each by default. Rows of weight 0 are left out.
          groups: Any integers, `[row]`, where the metric needs them.

        Raises:
          UserError: An output is NaN.
          ValueError: Shapes that do not fit, labels that are not finite, or no groups where the
            metric needs them.
        """
        truth, values = np.asarray(labels), np.asarray(outputs)
        mass = None if weights is None else np.asarray(weights, np.float64)
        ids = None if groups is None else np.asarray(groups)
        if truth.ndim != 1 or values.ndim != 2 or len(truth) != len(values):
            raise ValueError(
                f"labels {truth.shape} must be [row] and outputs {values.shape} [row, outputs]"
            )
        for name, array in (("weights", mass), ("groups", ids)):
            if array is not None and array.shape != truth.shape:
                raise ValueError(f"{name} {array.shape} must be {truth.shape}, as the labels")
        if self.needs_groups and ids is None:
            raise ValueError("this metric needs the groups of the rows")
        if not np.isfinite(truth).all():
            raise ValueError("labels must be finite: leave out the rows without a label")
        bad = int(np.isnan(values).any(axis=1).sum())
        if bad:
            raise UserError(
                f"the outputs of {bad} of {len(values)} rows are NaN: the model has diverged; "
                "lower its learning rate or look for bad numerical values"
            )
        if mass is not None:
            if not (np.isfinite(mass).all() and (mass >= 0).all()):
                raise ValueError("weights must be finite and not negative")
            kept = mass > 0
            truth, values, mass = truth[kept], values[kept], mass[kept]
            ids = None if ids is None else ids[kept]
        if not self.needs_groups:
            return float(self.compute(truth, values, mass))
        return float(self.compute(truth, values, mass, ids))

    def cost(self, value: float) -> float:
        """A value of the metric as a number to minimise, to choose an epoch or a run by.

        Args:
          value: Value of the metric.

        Returns:
          Infinite where the value is NaN; for a ratio the distance of its logarithm from 0.
        """
        if np.isnan(value):
            return float("inf")
        if self.better == "higher":
            return -value
        if self.better == "lower":
            return value
        return abs(float(np.log(value))) if value > 0 else float("inf")


@dataclass(frozen=True)
class Goal(ABC):
    """What is to be improved.

    Attributes:
      name: The goal's name, in messages and in metrics such as `auc/click`.
      kind: Its kind, such as 'binary'.
      outputs: Numbers that the model gives for it for each row; 0 if it reads another goal's.
      label_rule: Which labels it accepts, in words that end a sentence.
      primary: Name of its main metric.
    """

    name: str

    kind: ClassVar[str]
    outputs: ClassVar[int] = 1
    label_rule: ClassVar[str]
    primary: ClassVar[str]

    @property
    def list_measure(self) -> str:
        """Name of what lists are measured by for it."""
        return "ndcg"

    @abstractmethod
    def batch_loss(self, outputs: jax.Array, rows: Rows) -> jax.Array:
        """Mean loss of a batch; jit-able, with finite gradients.

        Args:
          outputs: The model's outputs for the goal, `[..., row, outputs]`; the leading axes are
            preferences.
          rows: The batch.

        Returns:
          `[...]`, float32; 0 where no row has a label.
        """

    @abstractmethod
    def predict(self, outputs: Any) -> Any:
        """What users read: a probability, an expected amount, a rate or a score.

        Args:
          outputs: `[..., row, outputs]`, JAX (float32, jit-able) or NumPy (float64).

        Returns:
          `[..., row]`.
        """

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Metrics by name."""

    @abstractmethod
    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels fit the goal's kind; `label_rule` says it in words.

        Args:
          labels: `[row]`, without missing ones.

        Returns:
          `[row]`.
        """

    def fitted(self, statistics: Statistics) -> Self:
        """The goal with the options filled in that come from the training labels.

        Args:
          statistics: Statistics of the training labels.

        Returns:
          The goal itself if it needs none. Its fields are plain numbers, fit to be stored.

        Raises:
          UserError: The labels leave nothing to learn.
        """
        return self

    def _bad_option(self, option: str, rule: str) -> UserError:
        """The error for an option whose value is out of its range."""
        return UserError(
            f"goal '{self.name}' ({self.kind}): {option} = {getattr(self, option)!r} must be {rule}"
        )

    def _check_choice(self, option: str, choices: tuple[str, ...]) -> None:
        if getattr(self, option) not in choices:
            raise self._bad_option(option, f"one of {', '.join(choices)}")

    def _check_number(self, option: str, low: float, high: float, rule: str) -> None:
        """Refuses what is not a number in `(low, high]`."""
        value = getattr(self, option)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and np.isfinite(value) and low < value <= high):
            raise self._bad_option(option, rule)


@dataclass(frozen=True)
class RowGoal(Goal):
    """A goal with a loss for each row."""

    @abstractmethod
    def loss(self, outputs: jax.Array, labels: ArrayLike) -> jax.Array:
        """Loss of each row; jit-able, with finite gradients for all finite outputs.

        Args:
          outputs: `[..., row, outputs]`.
          labels: `[row]`, labels that the goal accepts.

        Returns:
          `[..., row]`, float32.
        """

    @abstractmethod
    def prior(self, statistics: Statistics) -> NDArray[np.float64]:
        """Outputs of the best constant prediction: the biases to start training from.

        Args:
          statistics: Statistics of the training labels.

        Returns:
          `[outputs]`, finite.

        Raises:
          UserError: No row has a label.
        """

    @abstractmethod
    def constant_loss(self, statistics: Statistics) -> float:
        """Mean loss of the best constant prediction.

        A model's loss over this is 1 where the features tell it nothing.

        Args:
          statistics: Statistics of any labels; exact if they hold every distinct label (see
            `Statistics.of`).

        Returns:
          Float64; not above 0 only where the labels leave nothing to predict.

        Raises:
          UserError: No row has a label.
        """

    def row_losses(self, outputs: jax.Array, rows: Rows) -> jax.Array:
        """Loss of each row, 0 with gradient 0 for rows without a label.

        Args:
          outputs: `[..., row, outputs]`.
          rows: The batch; its weights are not applied.

        Returns:
          `[..., row]`, float32.
        """
        import jax.numpy as jnp

        if rows.mask is None:
            return self.loss(outputs, rows.labels)
        # A missing label may be NaN, and the gradient of a masked NaN is NaN: put 0 in its place,
        # which every kind accepts.
        mask = jnp.asarray(rows.mask, bool)
        labels = jnp.asarray(rows.labels)
        losses = self.loss(outputs, jnp.where(mask, labels, jnp.zeros_like(labels)))
        return jnp.where(mask, losses, 0)

    def batch_loss(self, outputs: jax.Array, rows: Rows) -> jax.Array:
        """Weighted mean of the losses over the rows that have the label; see `Goal.batch_loss`."""
        return masked_mean(self.row_losses(outputs, rows), rows.mask, rows.weights)


def namespace(outputs: Any) -> tuple[ModuleType, Any]:
    """The library of some outputs, and the outputs in the precision that goals compute in.

    Args:
      outputs: JAX or NumPy array of any float type.

    Returns:
      `jax.numpy` and the outputs in float32, or `numpy` and the outputs in float64.
    """
    loaded = sys.modules.get("jax")  # where it is not loaded, nobody has its arrays
    if loaded is not None and isinstance(outputs, loaded.Array):
        import jax.numpy as jnp

        return jnp, outputs.astype(jnp.float32)
    return np, np.asarray(outputs, np.float64)
