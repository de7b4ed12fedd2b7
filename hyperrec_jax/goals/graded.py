"""Goals of lists: a relevance of 0 to 4, or a gain such as the price of what was bought."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike as NumpyLike
from numpy.typing import NDArray

from hyperrec_jax.goals import metrics
from hyperrec_jax.goals.base import Goal, Metric, Rows, namespace
from hyperrec_jax.goals.kinds import GOALS
from hyperrec_jax.goals.statistics import masked_mean

if TYPE_CHECKING:
    import jax

ListLoss = Callable[[Any, Any, Any], Any]
"""`list_loss(scores [..., list, item], gains [list, item], mask [list, item]) -> [..., list]`, JAX
arrays."""

HIGHEST_GRADE = 30
"""Above it `2^label - 1` is no exact float32 and drowns all else."""


@GOALS.register("graded")
@dataclass(frozen=True, kw_only=True)
class Graded(Goal):
    """The order of each list; the one output is a score.

    Attributes:
      list_loss: Loss of the scores of a list, such as a softmax or lambda loss; only lists with a
        gain above 0 reach it.
      gain: Gain of a label: the label itself ('linear'), or `2^label - 1` ('exponential', Burges et
        al. 2005) for grades.
      k: Ranks that NDCG counts, at least 1.
    """

    list_loss: ListLoss
    gain: str = "linear"
    k: int = 10

    kind = "graded"
    primary = "ndcg"

    def __post_init__(self) -> None:
        if not callable(self.list_loss):
            raise self._bad_option("list_loss", "a function")
        self._check_choice("gain", ("linear", "exponential"))
        self._check_number("k", 0, np.inf, "a whole number of at least 1")
        if not isinstance(self.k, int):
            raise self._bad_option("k", "a whole number of at least 1")

    @property
    def label_rule(self) -> str:  # type: ignore[override]
        """Which labels it accepts."""
        if self.gain == "linear":
            return "a number of at least 0"
        return f"a grade from 0 to {HIGHEST_GRADE}"

    def batch_loss(self, outputs: jax.Array, rows: Rows) -> jax.Array:
        """Mean loss of the lists that have a gain above 0; see `Goal.batch_loss`.

        Args:
          outputs: `[..., list, item, 1]`, lists padded to one number of items.
          rows: Labels, mask and weights are `[list, item]`; a list counts by the mean weight of its
            items.

        Returns:
          `[...]`, float32; 0 where no list has a gain.
        """
        import jax.numpy as jnp

        scores, labels = outputs[..., 0].astype(jnp.float32), jnp.asarray(rows.labels, jnp.float32)
        mask = jnp.ones(labels.shape, bool) if rows.mask is None else jnp.asarray(rows.mask, bool)
        gains = self._gains(jnp, jnp.where(mask, labels, 0))
        counted = (gains > 0).any(axis=-1)
        weights = None
        if rows.weights is not None:
            weights = masked_mean(jnp.asarray(rows.weights, jnp.float32), mask)
        return masked_mean(self.list_loss(scores, gains, mask), counted, weights)

    def predict(self, outputs: Any) -> Any:
        """The score."""
        return namespace(outputs)[1][..., 0]

    def accepts(self, labels: NumpyLike) -> NDArray[np.bool_]:
        """Which labels are finite, at least 0, and not above the highest grade if exponential."""
        values = np.asarray(labels)
        fits = np.isfinite(values) & (values >= 0)
        return fits if self.gain == "linear" else fits & (values <= HIGHEST_GRADE)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """NDCG over the first `k` ranks; its groups are the lists."""

        def ndcg(
            labels: NDArray[Any],
            out: NDArray[Any],
            mass: NDArray[np.float64] | None,
            lists: NDArray[Any],
        ) -> float:
            gains = self._gains(np, np.asarray(labels, np.float64))
            return metrics.ndcg(gains, out[:, 0], lists, mass, self.k).value

        return {"ndcg": Metric(ndcg, "higher", needs_groups=True)}

    def _gains(self, library: Any, labels: Any) -> Any:
        return labels if self.gain == "linear" else library.exp2(labels) - 1
