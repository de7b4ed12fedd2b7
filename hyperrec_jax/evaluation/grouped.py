"""Metrics of the order within groups of rows, such as searches: AUC, NDCG and MAP.

Labels are 0 or 1; rows of equal score have no order. A metric that no group defines is NaN.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.evaluation.metrics import binary, refuse_nan

Floats = NDArray[np.float64]


class Grouped(NamedTuple):
    """A metric averaged over groups.

    Attributes:
      value: Mean over the groups that count; NaN without any.
      groups: Number of groups that count.
      skipped: Number of groups left out: all their rows are of one class, so that any order is as
        good as any other.
    """

    value: float
    groups: int
    skipped: int


class GroupRanking:
    """Rows sorted by score within each group, once for any number of labels.

    Rows of equal score form a run; no metric depends on the order within a run.

    Args:
      scores: `[row]`; compared as float32.
      groups: Any integers, `[row]`; a group's rows need not be neighbours.
    """

    def __init__(self, scores: ArrayLike, groups: ArrayLike) -> None:
        values, ids = np.asarray(scores), np.asarray(groups)
        if values.ndim != 1 or values.shape != ids.shape or not len(values):
            raise ValueError(
                f"scores {values.shape} and groups {ids.shape} must be [row] alike, with a row"
            )
        _, group_of_row = np.unique(ids, return_inverse=True)
        # One integer that sorts by group, then by descending score: faster than a lexsort.
        keys = (group_of_row.astype(np.uint64) << np.uint64(32)) | _descending(values)
        self._order = np.argsort(keys)
        keys = keys[self._order]
        groups_sorted = keys >> np.uint64(32)
        self._starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
        self._group = groups_sorted[self._starts].astype(np.int64)
        self._rows = np.bincount(group_of_row)
        first_row = np.cumsum(self._rows) - self._rows
        lengths = np.diff(self._starts, append=len(keys))
        self._before = self._starts - first_row[self._group]  # rows of the group above the run
        self._until = self._before + lengths  # ... down to the run's end

    def auc(self, labels: ArrayLike, weighting: Literal["rows", "uniform"] = "rows") -> Grouped:
        """Mean over groups of the AUC within the group (GAUC).

        Args:
          labels: `[row]`.
          weighting: 'rows' weights a group by its rows (Zhou et al. 2018, arXiv 1706.06978);
            'uniform' weights all alike.
        """
        hits, positives = self._positives(labels)
        # A run's average rank from the bottom, 1 the lowest.
        rank = self._rows[self._group] - (self._before + self._until - 1) / 2
        rank_sum = self._sum(hits * rank)
        with np.errstate(divide="ignore", invalid="ignore"):
            areas = (rank_sum - positives * (positives + 1) / 2) / (
                positives * (self._rows - positives)
            )
        weights = self._rows if weighting == "rows" else np.ones(len(self._rows))
        return self._mean(areas, positives, weights)

    def ndcg(self, labels: ArrayLike, k: int = 10) -> Grouped:
        """Mean over groups of the normalised discounted cumulative gain of the first `k` rows.

        Binary gains, discount `1 / log2(1 + rank)` (Jarvelin and Kekalainen 2002); runs of equal
        score take their expected gain over all orders, as scikit-learn's `ndcg_score`.

        Args:
          labels: `[row]`.
          k: Ranks that count, at least 1.
        """
        if k < 1:
            raise ValueError(f"NDCG counts at least one rank, not {k}")
        hits, positives = self._positives(labels)
        gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        before, until = (gains[np.minimum(rank, k)] for rank in (self._before, self._until))
        gain = self._sum(hits * (until - before) / (self._until - self._before))
        best = gains[np.minimum(positives, k)]
        values = np.divide(gain, best, out=np.zeros_like(gain), where=positives > 0)
        return self._mean(values, positives, np.ones(len(self._rows)))

    def average_precision(self, labels: ArrayLike) -> Grouped:
        """Mean over groups of the average precision (MAP).

        A run of equal score is one threshold, as in scikit-learn's `average_precision_score`.

        Args:
          labels: `[row]`.
        """
        hits, positives = self._positives(labels)
        running = np.cumsum(hits)
        total_before = np.cumsum(positives) - positives
        precision = (running - total_before[self._group]) / self._until
        summed = self._sum(hits * precision)
        values = np.divide(summed, positives, out=np.zeros_like(summed), where=positives > 0)
        return self._mean(values, positives, np.ones(len(self._rows)))

    def _positives(self, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positives of each run and of each group."""
        truth = binary(np.asarray(labels))
        if truth.shape != self._order.shape:
            raise ValueError(f"labels {truth.shape} must be {self._order.shape}, as the scores")
        hits = np.add.reduceat(truth[self._order], self._starts, dtype=np.int64)
        return hits, self._sum(hits).astype(np.int64)

    def _sum(self, run_values: np.ndarray) -> Floats:
        sums = np.bincount(self._group, weights=run_values, minlength=len(self._rows))
        return np.asarray(sums, np.float64)

    def _mean(self, values: Floats, positives: NDArray[np.int64], weights: np.ndarray) -> Grouped:
        counts = (positives > 0) & (positives < self._rows)
        groups = int(counts.sum())
        mean = float(np.average(values[counts], weights=weights[counts])) if groups else np.nan
        return Grouped(mean, groups, len(self._rows) - groups)


def _descending(scores: np.ndarray) -> NDArray[np.uint64]:
    """Integers below 2^32 that ascend where the float32 scores descend."""
    values = scores.astype(np.float32) + np.float32(0)  # the sum turns -0 into 0
    refuse_nan(values)
    bits = values.view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)
