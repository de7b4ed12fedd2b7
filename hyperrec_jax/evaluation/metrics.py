"""Metrics of binary predictions, exact and without a Python loop over rows.

Labels are 0 or 1. Scores order the rows (ties count half); logits are log-odds. A metric that its
labels leave undefined is NaN. Every function raises ValueError on shapes that do not fit and
UserError on a NaN score.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.errors import UserError

Floats = NDArray[np.float64]


class _Placements(NamedTuple):
    """Of each row, the part of the other class that it beats (positives) or that beats it."""

    positives: Floats
    negatives: Floats


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Exact, by ranks; a tie counts one half (Mann and Whitney 1947).

    Args:
      labels: `[row]`.
      scores: `[row]`.

    Returns:
      In [0, 1]; NaN where the labels are of one class only.
    """
    truth, values = _validated(labels, scores)
    positives, negatives = np.sort(values[truth]), np.sort(values[~truth])
    if not len(positives) or not len(negatives):
        return float("nan")
    few, many = sorted((positives, negatives), key=len)
    below = np.searchsorted(many, few, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(many, few, side="right").sum(dtype=np.int64)
    area = float(below + not_above) / (2 * len(few) * len(many))
    return area if few is positives else 1 - area


def auc_standard_error(labels: ArrayLike, scores: ArrayLike) -> float:
    """Standard error of the AUC over samples of rows.

    DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44) in O(rows log rows), as Sun and Xu 2014
    (IEEE Signal Processing Letters 21).

    Args:
      labels: `[row]`.
      scores: `[row]`.

    Returns:
      At least 0; NaN with fewer than two rows of either class.
    """
    truth, values = _validated(labels, scores)
    if min(truth.sum(), (~truth).sum()) < 2:
        return float("nan")
    placements = _placements(truth, values)
    return float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in placements)))


def log_loss(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean negative log-likelihood in nats, summed in float64.

    Args:
      labels: `[row]`.
      logits: `[row]`.

    Returns:
      At least 0; NaN without rows.
    """
    truth, values = _validated(labels, logits)
    return float(_row_losses(truth, values).mean()) if len(truth) else float("nan")


def calibration(labels: ArrayLike, logits: ArrayLike) -> float:
    """Sum of the predicted probabilities over the number of positives; 1 is calibrated.

    Args:
      labels: `[row]`.
      logits: `[row]`.

    Returns:
      At least 0; NaN without positives.
    """
    truth, values = _validated(labels, logits)
    positives = truth.sum()
    return float(_probabilities(values).sum() / positives) if positives else float("nan")


class CalibrationCurve(NamedTuple):
    """Predicted against observed rates in bins of rows with like predictions.

    Attributes:
      predicted: Mean predicted probability, `[bin]`, ascending.
      observed: Rate of positives, `[bin]`.
      rows: Number of rows, `[bin]`.
    """

    predicted: Floats
    observed: Floats
    rows: NDArray[np.int64]


def calibration_curve(labels: ArrayLike, logits: ArrayLike, bins: int = 20) -> CalibrationCurve:
    """Reliability curve over bins of equally many rows.

    Rows of equal logits share a bin, so that there may be fewer bins than asked for.

    Args:
      labels: `[row]`, at least one row.
      logits: `[row]`.
      bins: Number of bins, at least 1.
    """
    truth, values = _validated(labels, logits)
    if bins < 1 or not len(truth):
        raise ValueError(f"a calibration curve of {bins} bins over {len(truth)} rows has no point")
    edges = np.quantile(values, np.arange(1, bins) / bins, method="lower")
    _, bin_of_row = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)
    rows = np.bincount(bin_of_row)
    predicted = np.bincount(bin_of_row, weights=_probabilities(values)) / rows
    return CalibrationCurve(predicted, np.bincount(bin_of_row, weights=truth) / rows, rows)


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
        truth = _binary(np.asarray(labels))
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


def grouped_auc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Grouped:
    """`GroupRanking.auc` of one score: mean AUC within a group, weighted by rows."""
    return GroupRanking(scores, groups).auc(labels)


def ndcg_at_k(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, k: int = 10) -> Grouped:
    """`GroupRanking.ndcg` of one score."""
    return GroupRanking(scores, groups).ndcg(labels, k)


def mean_average_precision(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Grouped:
    """`GroupRanking.average_precision` of one score."""
    return GroupRanking(scores, groups).average_precision(labels)


class Bootstrap(NamedTuple):
    """Metrics of every preference on the same resamples of the rows.

    Attributes:
      auc: `[resample, ray, task]`; NaN where a task is of one class only.
      log_loss: `[resample, ray, task]`, nats.
    """

    auc: Floats
    log_loss: Floats


def bootstrap(
    labels: ArrayLike,
    logits: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Bootstrap:
    """Paired bootstrap: all rays and tasks see the same resamples of the rows.

    Differences between rays are therefore far less noisy than each of them. A resample weights each
    row (or group) by a Poisson(1) draw (Chamandy et al. 2012), which needs no gather. The AUC of
    a resample is taken to first order in the weights: with `V` the DeLong placements,

        AUC* = sum_i w_i V_i / sum_i w_i  (positives)  +  the same (negatives)  -  AUC,

    exact but for a term of the order of `1 / sqrt(positives * negatives)`. All statistics are thus
    linear in the weights, and resampling is one matrix product; the sorts are done once. Needs
    memory for one more array of the size of the logits.

    Args:
      labels: `[task, row]`.
      logits: `[ray, task, row]`.
      groups: `[row]`; resamples whole groups (searches), since their rows are not independent.
      resamples: Number of resamples.
      seed: Seed of the weights.
    """
    truth, values = np.asarray(labels), np.asarray(logits)
    if values.ndim != 3 or values.shape[1:] != truth.shape:
        raise ValueError(
            f"labels {truth.shape} must be [task, row], logits {values.shape} [ray, task, row]"
        )
    num_rays, num_tasks, num_rows = values.shape
    truth = np.stack([_binary(task) for task in truth])
    positives = truth.sum(axis=1)
    defined = (positives > 0) & (positives < num_rows)
    units = np.arange(num_rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_units = int(units.max()) + 1 if num_rows else 0

    # The centred influence of each row on each AUC; its weighted sum is the AUC's deviation.
    influence = np.zeros(values.shape, np.float32)
    areas = np.full((num_rays, num_tasks), np.nan)
    for ray, task in np.ndindex(num_rays, num_tasks):
        if not defined[task]:
            continue
        here = truth[task]
        placements = _placements(*_validated(here, values[ray, task]))
        areas[ray, task] = placements.positives.mean()
        influence[ray, task, here] = placements.positives - areas[ray, task]
        influence[ray, task, ~here] = placements.negatives - areas[ray, task]

    generator = np.random.default_rng(seed)
    poisson = _poisson_table()
    unit_weights = None
    if groups is not None:
        unit_weights = poisson[generator.integers(0, 2**16, (num_units, resamples), np.uint16)]
    sums = {name: np.zeros((resamples, num_rays * num_tasks)) for name in ("up", "down", "loss")}
    counts = {name: np.zeros((resamples, num_tasks)) for name in ("up", "down")}
    chunk = max(1, 2**24 // resamples)
    for start in range(0, num_rows, chunk):
        part = slice(start, start + chunk)
        here = truth[:, part]
        if unit_weights is None:
            draws = generator.integers(0, 2**16, (here.shape[1], resamples), np.uint16)
            weights = poisson[draws].T
        else:
            weights = unit_weights[units[part]].T
        up = (influence[:, :, part] * here).reshape(-1, here.shape[1]).T
        down = (influence[:, :, part] * ~here).reshape(-1, here.shape[1]).T
        losses = _row_losses(here, values[:, :, part]).astype(np.float32)
        sums["up"] += weights @ up
        sums["down"] += weights @ down
        sums["loss"] += weights @ losses.reshape(-1, here.shape[1]).T
        counts["up"] += weights @ here.T.astype(np.float32)
        counts["down"] += weights @ (~here).T.astype(np.float32)

    shape = (resamples, num_rays, num_tasks)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = sum(
            sums[name].reshape(shape) / counts[name][:, None, :] for name in ("up", "down")
        )
        loss = sums["loss"].reshape(shape) / (counts["up"] + counts["down"])[:, None, :]
    return Bootstrap(areas + deviations, loss)


def interval(samples: ArrayLike, level: float = 0.95) -> Floats:
    """Percentile interval of bootstrap samples.

    Args:
      samples: `[resample, ...]`.
      level: Coverage, in (0, 1).

    Returns:
      Lower and upper end, `[2, ...]`.
    """
    if not 0 < level < 1:
        raise ValueError(f"an interval's level is between 0 and 1, not {level}")
    return np.quantile(np.asarray(samples), [(1 - level) / 2, (1 + level) / 2], axis=0)


def _validated(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], np.ndarray]:
    truth, values = _binary(np.asarray(labels)), np.asarray(scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"labels {truth.shape} and scores {values.shape} must be [row] alike")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    _refuse_nan(values)
    return truth, values


def _binary(labels: np.ndarray) -> NDArray[np.bool_]:
    truth = labels.astype(bool)
    if labels.dtype != bool and not np.array_equal(truth, labels):
        raise ValueError("labels must be 0 or 1")
    return truth


def _refuse_nan(scores: np.ndarray) -> None:
    bad = int(np.isnan(scores).sum())
    if bad:
        raise UserError(
            f"{bad} of {scores.size} scores are NaN: the model has diverged; lower its learning "
            "rate or look for bad numerical values"
        )


def _placements(truth: NDArray[np.bool_], scores: np.ndarray) -> _Placements:
    positives, negatives = scores[truth], scores[~truth]
    return _Placements(
        _part_below(positives, np.sort(negatives)), 1 - _part_below(negatives, np.sort(positives))
    )


def _part_below(values: np.ndarray, reference: np.ndarray) -> Floats:
    """Part of the sorted reference below each value, ties half."""
    # Sorted queries walk through the reference in order, which is several times as fast.
    order = np.argsort(values)
    ranks = np.empty(len(values))
    ordered = values[order]
    ranks[order] = np.searchsorted(reference, ordered, "left") + np.searchsorted(
        reference, ordered, "right"
    )
    return ranks / (2 * len(reference))


def _row_losses(truth: NDArray[np.bool_], logits: np.ndarray) -> Floats:
    """`log(1 + exp(-margin))`, with the logit as margin of a positive, its negative otherwise."""
    return np.logaddexp(0.0, np.where(truth, -logits, logits).astype(np.float64))


def _probabilities(logits: np.ndarray) -> Floats:
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def _descending(scores: np.ndarray) -> NDArray[np.uint64]:
    """Integers below 2^32 that ascend where the float32 scores descend."""
    values = scores.astype(np.float32) + np.float32(0)  # the sum turns -0 into 0
    _refuse_nan(values)
    bits = values.view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)


def _poisson_table() -> NDArray[np.float32]:
    """Poisson(1) weights by a uniform 16-bit integer: probabilities are exact to 2^-16."""
    counts = np.arange(9)
    factorials = np.cumprod(np.concatenate([[1], counts[1:]]))
    edges = np.round(np.cumsum(np.exp(-1) / factorials) * 2**16)
    return np.searchsorted(edges, np.arange(2**16), side="right").astype(np.float32)
