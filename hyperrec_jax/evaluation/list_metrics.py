"""Metrics of ranked lists, one value for each preference, goal and list.

Rows have one score under each preference, `[preference, row]`, a gain for each goal, `[goal, row]`
(0 or 1, graded, or real such as revenue; at least 0), and belong to lists, `[row]`. A row of
positive gain is a positive. Values of single lists, and not only their means, are kept: so lists,
or the households that they come from, can be resampled, and two preferences or two models compared
on the same lists.

Rows of equal score: every value is the expectation over all orders of them. A metric thus never
depends on the order of the rows, which in logs often has the positives first.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("ndcg", "map", "mrr", "recall", "captured", "auc")

_DRAWS_AT_ONCE = 2**24


class PerList(NamedTuple):
    """Metrics of each list.

    Attributes:
      groups: Id of each list, ascending, `[list]`.
      rows: Number of rows of each list, `[list]`.
      values: For each metric `[preference, goal, list]`; NaN where a list has no positive of a goal
        (for `auc` also where it has nothing else), whatever the preference.
    """

    groups: NDArray[np.generic]
    rows: Ints
    values: Mapping[str, Floats]


def list_metrics(
    scores: ArrayLike,
    gains: ArrayLike,
    groups: ArrayLike,
    k: int = 10,
    metrics: Sequence[str] = METRICS,
) -> PerList:
    """Measures the lists that the scores of each preference make, for each goal.

      ndcg      Normalised discounted cumulative gain of the first `k` rows, with the gains as they
                are and the discount `1 / log2(1 + rank)` (Jarvelin and Kekalainen 2002).
      map       Average precision of all rows.
      mrr       Reciprocal rank of the first positive.
      recall    Share of the positives among the first `k` rows.
      captured  Share of the gain (of the revenue, say) among the first `k` rows.
      auc       Chance that a positive is above a row without gain.

    Sorts once for each preference, for all goals and metrics; needs memory for a few arrays
    `[goal, row]` beside the result.

    Args:
      scores: `[preference, row]`; higher is earlier in the list; compared as float32.
      gains: `[goal, row]`, at least 0.
      groups: Ids of the lists, `[row]`; the rows of a list need not be neighbours.
      k: Number of ranks that count for `ndcg`, `recall` and `captured`, at least 1.
      metrics: Which of the above.

    Raises:
      ValueError: Shapes that do not fit, a negative gain, or an unknown metric.
      UserError: A score is NaN.
    """
    values, worth, ids = np.asarray(scores), np.asarray(gains), np.asarray(groups)
    if (
        values.ndim != 2
        or worth.ndim != 2
        or not (values.shape[1:] == worth.shape[1:] == ids.shape and len(ids))
    ):
        raise ValueError(
            f"scores {values.shape} must be [preference, row], gains {worth.shape} [goal, row] and "
            f"groups {ids.shape} [row], with a row"
        )
    if k < 1:
        raise ValueError(f"a list has at least one rank that counts, not {k}")
    if unknown := set(metrics) - set(METRICS):
        raise ValueError(f"no list metric {', '.join(sorted(unknown))}; there are {METRICS}")
    lists = _Lists(worth, ids, k)
    result = {name: np.empty((len(values), len(worth), len(lists.rows))) for name in metrics}
    for preference, row_scores in enumerate(values):
        ranking = _Ranking(lists, row_scores)
        for name in metrics:
            result[name][preference] = getattr(ranking, name)()
    return PerList(lists.groups, lists.rows, result)


def units_of_lists(groups: ArrayLike, units: ArrayLike) -> NDArray[np.generic]:
    """The unit (such as a household) that each list comes from.

    Args:
      groups: Ids of the lists, `[row]`.
      units: Ids of the units, `[row]`.

    Returns:
      `[list]`, lists in ascending order of their ids, as in `PerList`.

    Raises:
      ValueError: The rows of a list are of several units.
    """
    ids, of_row = np.asarray(groups), np.asarray(units)
    _, first, list_of_row = np.unique(ids, return_index=True, return_inverse=True)
    of_list = of_row[first]
    other = np.flatnonzero(of_list[list_of_row] != of_row)
    if len(other):
        row = other[0]
        raise ValueError(
            f"list {ids[row]} is of the units {of_list[list_of_row[row]]} and {of_row[row]}; "
            "resample by a unit that lists do not cross"
        )
    return of_list


def mean_over_lists(values: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Mean over the lists that have a value.

    Args:
      values: `[preference, goal, list]`, NaN for lists that do not count.
      weights: Weight of each list, `[list]`; such as `PerList.rows` for an AUC weighted by rows
        (Zhou et al. 2018, arXiv 1706.06978). All alike if None.

    Returns:
      `[preference, goal]`; NaN for goals without a list that counts.
    """
    sums, totals = _sums(values, weights, None)
    return _ratio(sums.sum(-1), totals.sum(-1))


def bootstrap(
    values: ArrayLike,
    units: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Floats:
    """Means over resampled lists, the same ones for all preferences and goals (Efron 1979).

    What is computed from one resample, such as the difference of two preferences or a hypervolume,
    is therefore paired: `metrics.interval(samples[:, 0] - samples[:, 1])`. Two calls with the same
    units and seed take the same resamples, too, so that two models are compared alike.

    Args:
      values: `[preference, goal, list]`, NaN for lists that do not count.
      units: What is drawn, `[list]`: all lists of a household or user together, since they are not
        independent (`units_of_lists`). Single lists if None.
      weights: Weight of each list in the means, `[list]`; all alike if None.
      resamples: Number of resamples, at least 1.
      seed: Seed of the draws.

    Returns:
      `[resample, preference, goal]`; NaN where a resample has no list that counts.
    """
    sums, totals = _sums(values, weights, units)
    num_preferences, num_goals, num_units = sums.shape
    flat = sums.reshape(-1, num_units).T
    generator = np.random.default_rng(seed)
    result = np.empty((resamples, num_preferences, num_goals))
    chunk = max(1, _DRAWS_AT_ONCE // num_units)
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = generator.integers(0, num_units, (count, num_units))
        drawn += np.arange(count)[:, None] * num_units
        times = np.bincount(drawn.ravel(), minlength=count * num_units)
        times = times.reshape(count, num_units).astype(np.float64)
        numerator = (times @ flat).reshape(count, num_preferences, num_goals)
        result[start : start + count] = _ratio(numerator, (times @ totals.T)[:, None])
    return result


def _sums(
    values: ArrayLike, weights: ArrayLike | None, units: ArrayLike | None
) -> tuple[Floats, Floats]:
    """Weighted sums and weights of each unit: [preference, goal, unit], [goal, unit]."""
    per_list = np.asarray(values, np.float64)
    if per_list.ndim != 3 or not per_list.size:
        raise ValueError(f"values {per_list.shape} must be [preference, goal, list]")
    counted = ~np.isnan(per_list[0])
    if not np.array_equal(np.isnan(per_list), np.broadcast_to(~counted, per_list.shape)):
        raise ValueError("the same lists must count under every preference")
    weight = np.ones(per_list.shape[2]) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != per_list.shape[2:]:
        raise ValueError(f"weights {weight.shape} must be [list], as values {per_list.shape}")
    sums, totals = np.where(counted, per_list, 0) * weight, counted * weight
    if units is None:
        return sums, totals
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    if unit.shape != per_list.shape[2:]:
        raise ValueError(f"units {unit.shape} must be [list], as values {per_list.shape}")
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
    return (
        np.add.reduceat(sums[..., order], starts, axis=-1),
        np.add.reduceat(totals[..., order], starts, axis=-1),
    )


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    denominator = np.broadcast_to(denominator, numerator.shape)
    nothing = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)


class _Lists:
    """What no preference changes: which rows make a list, and the best that each list can reach."""

    def __init__(self, gains: np.ndarray, groups: np.ndarray, k: int) -> None:
        self.k = k
        self.groups, list_of_row = np.unique(groups, return_inverse=True)
        self.rows = np.bincount(list_of_row).astype(np.int64)
        # Rows by list, so that all that follows works on neighbours in memory.
        self.by_list = np.argsort(list_of_row, kind="stable")
        self.list_of_row = list_of_row[self.by_list]
        self.gains = gains[:, self.by_list].astype(np.float64)
        if not (np.isfinite(self.gains) & (self.gains >= 0)).all():
            raise ValueError("gains must be finite numbers of at least 0")
        self.first_row = np.cumsum(self.rows) - self.rows
        longest = int(self.rows.max())
        ranks = np.arange(1, longest + 1)
        # Sums over the first 0, 1, ... ranks, so that a range of ranks takes one difference.
        discounts = np.where(ranks <= k, 1 / np.log2(1 + ranks), 0)
        self.discount_sums = np.concatenate([[0.0], np.cumsum(discounts)])
        self.harmonic_sums = np.concatenate([[0.0], np.cumsum(1 / ranks)])
        rank = np.arange(len(groups)) - np.repeat(self.first_row, self.rows)
        best = [goal[np.lexsort((-goal, self.list_of_row))] for goal in self.gains]
        by_gain = np.reshape(best, self.gains.shape)  # rows by list, then by descending gain

        def of_lists(values: np.ndarray) -> Floats:
            return np.add.reduceat(values, self.first_row, axis=1, dtype=np.float64)

        self.best_dcg = of_lists(by_gain * discounts[rank])
        self.total_gain = of_lists(by_gain)
        self.positives = of_lists(by_gain > 0)


class _Ranking:
    """The lists sorted by the scores of one preference, as runs of rows of equal score.

    Each run has the ranks `before + 1` to `until` of its list.
    """

    def __init__(self, lists: _Lists, scores: np.ndarray) -> None:
        self._lists = lists
        # One integer that sorts by list, then by descending score: faster than a lexsort.
        key_of_list = lists.list_of_row.astype(np.uint64) << np.uint64(32)
        keys = key_of_list | descending(scores[lists.by_list])
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
        self._length = np.diff(starts, append=len(keys))
        self._list = lists.list_of_row[starts]
        self._before = starts - lists.first_row[self._list]
        self._until = self._before + self._length
        self._first_run = np.flatnonzero(np.diff(self._list, prepend=-1))
        gains = lists.gains[:, order]
        self._gain = np.add.reduceat(gains, starts, axis=1)
        self._hits = np.add.reduceat((gains > 0).astype(np.float64), starts, axis=1)

    def ndcg(self) -> Floats:
        sums = self._lists.discount_sums
        discount = (sums[self._until] - sums[self._before]) / self._length
        return _ratio(self._sum(self._gain * discount), self._lists.best_dcg)

    def captured(self) -> Floats:
        return _ratio(self._sum(self._gain * self._share_on_top()), self._lists.total_gain)

    def recall(self) -> Floats:
        return _ratio(self._sum(self._hits * self._share_on_top()), self._lists.positives)

    def auc(self) -> Floats:
        positives = self._lists.positives
        negatives = self._lists.rows - positives
        # Average rank of a run from the bottom of its list, 1 the lowest (Mann and Whitney 1947).
        rank = self._lists.rows[self._list] - (self._before + self._until - 1) / 2
        wins = self._sum(self._hits * rank) - positives * (positives + 1) / 2
        return _ratio(wins, positives * negatives)

    def map(self) -> Floats:
        running = np.cumsum(self._hits, axis=1)
        at_start = running[:, self._first_run] - self._hits[:, self._first_run]
        above = running - self._hits - at_start[:, self._list]
        # Place j of a run of m rows, h of them hits, is a hit with probability h / m, and then
        # above + 1 + (j - 1) (h - 1) / (m - 1) hits are expected so far; the precision divides
        # that by before + j. Summed over j, with D = sum of 1 / (before + j):
        sums = self._lists.harmonic_sums
        reciprocals = sums[self._until] - sums[self._before]
        others = (self._hits - 1) / np.maximum(self._length - 1, 1)
        expected = (above + 1) * reciprocals + others * (
            self._length - (self._before + 1) * reciprocals
        )
        return _ratio(self._sum(self._hits / self._length * expected), self._lists.positives)

    def mrr(self) -> Floats:
        num_runs = len(self._list)
        with_hit = np.where(self._hits > 0, np.arange(num_runs), num_runs)
        run = np.minimum.reduceat(with_hit, self._first_run, axis=1)
        found = run < num_runs
        run = np.minimum(run, num_runs - 1)
        hits = np.take_along_axis(self._hits, run, axis=1)[found]
        length, before = self._length[run[found]], self._before[run[found]]
        # The first hit of a run is at place j with the probability that none was before.
        value, none_yet, place = np.zeros(len(hits)), np.ones(len(hits)), 0
        open_runs = np.arange(len(hits))
        while len(open_runs):
            chance = hits[open_runs] / (length[open_runs] - place)
            place += 1
            value[open_runs] += none_yet[open_runs] * chance / (before[open_runs] + place)
            none_yet[open_runs] *= 1 - chance
            open_runs = open_runs[chance < 1]
        result = np.full(found.shape, np.nan)
        result[found] = value
        return result

    def _share_on_top(self) -> Floats:
        """Expected part of each run among the first k rows of its list."""
        k = self._lists.k
        return (np.minimum(self._until, k) - np.minimum(self._before, k)) / self._length

    def _sum(self, values: Floats) -> Floats:
        """Sums over the runs of each list: [goal, list]."""
        return np.add.reduceat(values, self._first_run, axis=-1)


def descending(scores: ArrayLike) -> NDArray[np.uint64]:
    """Integers below 2^32 that ascend where scores, as float32, descend.

    Raises:
      UserError: A score is NaN.
    """
    values = np.asarray(scores).astype(np.float32) + np.float32(0)  # the sum turns -0 into 0
    if bad := int(np.isnan(values).sum()):
        raise UserError(
            f"{bad} of {values.size} scores are NaN: the model has diverged; lower its learning "
            "rate or look for bad numerical values"
        )
    bits = values.view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)
