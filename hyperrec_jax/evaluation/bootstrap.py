"""Resamples of the rows of a split, the same for every preference, and intervals from them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.evaluation.metrics import binary, validated
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.losses import output_slices
from hyperrec_jax.goals.metrics import row_losses

Floats = NDArray[np.float64]


class Bootstrap(NamedTuple):
    """Metrics of every preference on the same resamples of the rows.

    Attributes:
      auc: `[resample, preference, goal]`; NaN where a goal is of one class only, is not binary, or
        its rows have weights.
      loss: `[resample, preference, goal]`; of a binary goal the log loss in nats.
    """

    auc: Floats
    loss: Floats


def resample(
    goals: Sequence[RowGoal],
    scores: Scores,
    losses: np.ndarray,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 200,
) -> Bootstrap:
    """The bootstrap of goals of any kind; see `bootstrap`.

    Args:
      goals: The goals.
      scores: From `score_split`.
      losses: Loss of each row, `[preference, goal, row]`, 0 without the label.
      groups: The group of each row, `[row]`.
      resamples: Number of resamples.
    """
    first = scores.outputs[:, [place.start for place in output_slices(goals)]]
    whole = scores.labels.dtype.kind != "f" and scores.weights is None
    if whole and all(isinstance(goal, Binary) for goal in goals):
        return bootstrap(scores.labels, first, groups=groups, resamples=resamples)
    counts = (~np.isnan(scores.labels)).astype(np.float32)
    if scores.weights is not None:
        counts *= scores.weights
    labels = [
        np.nan_to_num(labels) if isinstance(goal, Binary) and scores.weights is None else 0 * count
        for goal, labels, count in zip(goals, scores.labels, counts, strict=True)
    ]
    return bootstrap(
        np.stack(labels), first, groups=groups, resamples=resamples, losses=losses, counts=counts
    )


def bootstrap(
    labels: ArrayLike,
    logits: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 200,
    seed: int = 0,
    losses: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> Bootstrap:
    """Paired bootstrap: all preferences and goals see the same resamples of the rows.

    Differences between preferences are therefore far less noisy than each of them. A resample
    weights each row (or group) by a Poisson(1) draw (Chamandy et al. 2012), which needs no gather.
    The AUC of a resample is taken to first order in the weights: with `V` the DeLong placements,

        AUC* = sum_i w_i V_i / sum_i w_i  (positives)  +  the same (negatives)  -  AUC,

    exact but for a term of the order of `1 / sqrt(positives * negatives)`. All statistics are thus
    linear in the weights, and resampling is one matrix product; the sorts are done once. Needs
    memory for one more array of the size of the logits.

    Args:
      labels: `[goal, row]`.
      logits: `[preference, goal, row]`.
      groups: The group of each row, `[row]`; whole groups (searches) are resampled then, since
        their rows are not independent.
      resamples: Number of resamples.
      seed: Seed of the weights.
      losses: Loss of each row, `[preference, task, row]`; the log loss by default.
      counts: How much each row counts for each task, `[task, row]`: its weight, 0 without the
        label; 1 by default. The AUC counts rows of more than 0 alike.
    """
    truth, values = np.asarray(labels), np.asarray(logits)
    if values.ndim != 3 or values.shape[1:] != truth.shape:
        raise ValueError(
            f"labels {truth.shape} must be [goal, row], logits {values.shape} "
            "[preference, goal, row]"
        )
    num_preferences, num_tasks, num_rows = values.shape
    truth = np.stack([binary(task) for task in truth])
    present = np.ones(truth.shape, bool) if counts is None else counts > 0
    truth &= present
    positives = truth.sum(axis=1)
    defined = (positives > 0) & (positives < present.sum(axis=1))
    units = np.arange(num_rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_units = int(units.max()) + 1 if num_rows else 0

    # The centred influence of each row on each AUC; its weighted sum is the AUC's deviation.
    influence = np.zeros(values.shape, np.float32)
    areas = np.full((num_preferences, num_tasks), np.nan)
    for place in np.ndindex(num_preferences, num_tasks):
        _, task = place
        if not defined[task]:
            continue
        here, there = truth[task], present[task] & ~truth[task]
        known = present[task]
        placements = placements_of(*validated(here[known], values[place][known]))
        areas[place] = placements.positives.mean()
        influence[*place, here] = placements.positives - areas[place]
        influence[*place, there] = placements.negatives - areas[place]

    generator = np.random.default_rng(seed)
    poisson = poisson_table()
    unit_weights = None
    if groups is not None:
        unit_weights = poisson[generator.integers(0, 2**16, (num_units, resamples), np.uint16)]
    sums = {
        name: np.zeros((resamples, num_preferences * num_tasks)) for name in ("up", "down", "loss")
    }
    sizes = {name: np.zeros((resamples, num_tasks)) for name in ("up", "down", "loss")}
    chunk = max(1, 2**24 // resamples)
    for start in range(0, num_rows, chunk):
        part = slice(start, start + chunk)
        here, there = truth[:, part], present[:, part] & ~truth[:, part]
        if unit_weights is None:
            draws = generator.integers(0, 2**16, (here.shape[1], resamples), np.uint16)
            weights = poisson[draws].T
        else:
            weights = unit_weights[units[part]].T
        up = (influence[:, :, part] * here).reshape(-1, here.shape[1]).T
        down = (influence[:, :, part] * there).reshape(-1, here.shape[1]).T
        of_rows = (
            row_losses(here, values[:, :, part]).astype(np.float32)
            if losses is None
            else losses[:, :, part]
        )
        sums["up"] += weights @ up
        sums["down"] += weights @ down
        sizes["up"] += weights @ here.T.astype(np.float32)
        sizes["down"] += weights @ there.T.astype(np.float32)
        if counts is not None:
            of_rows = of_rows * counts[:, part]
            sizes["loss"] += weights @ counts[:, part].T
        sums["loss"] += weights @ of_rows.reshape(-1, here.shape[1]).T

    shape = (resamples, num_preferences, num_tasks)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = sum(
            sums[name].reshape(shape) / sizes[name][:, None, :] for name in ("up", "down")
        )
        if counts is None:
            sizes["loss"] = sizes["up"] + sizes["down"]
        loss = sums["loss"].reshape(shape) / sizes["loss"][:, None, :]
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


class Placements(NamedTuple):
    """For each row the part of the other class that it beats (positives) or that beats it."""

    positives: Floats
    negatives: Floats


def placements_of(truth: NDArray[np.bool_], scores: np.ndarray) -> Placements:
    positives, negatives = scores[truth], scores[~truth]
    return Placements(
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


def poisson_table() -> NDArray[np.float32]:
    """Poisson(1) weights by a uniform 16-bit integer: probabilities are exact to 2^-16."""
    counts = np.arange(9)
    factorials = np.cumprod(np.concatenate([[1], counts[1:]]))
    edges = np.round(np.cumsum(np.exp(-1) / factorials) * 2**16)
    return np.searchsorted(edges, np.arange(2**16), side="right").astype(np.float32)
