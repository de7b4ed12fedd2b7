"""Goals of a list that are no sum over its rows: variety, exposure of groups of items, novelty.

What a row adds to them depends on the other rows beside it, so that no formula of single rows
sorts by them. They look at the first rows of each list alone, which `top_rows` finds once for all.
Each function gives one value for each preference and list; stacked to `[preference, goal, list]`
they go to `list_metrics.bootstrap` beside other goals.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.data.mixing import mix64
from hyperrec_jax.evaluation.list_metrics import descending

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class TopRows(NamedTuple):
    """The first rows of each list under each preference.

    Attributes:
      groups: Id of each list, ascending, `[list]`.
      list_of_row: Number of the list of each row, `[row]`.
      rows: Row at each rank, `[preference, list, rank]`; -1 where the list has fewer rows.
    """

    groups: NDArray[np.generic]
    list_of_row: Ints
    rows: Ints


def top_rows(scores: ArrayLike, groups: ArrayLike, k: int = 10) -> TopRows:
    """Finds the first `k` rows of each list under each preference.

    Rows of equal score are ordered by a hash of their row number, the same one for all preferences:
    which of them come first has nothing to do with their order, nor with what they are.

    Args:
      scores: `[preference, row]`; higher is earlier in the list; compared as float32.
      groups: Ids of the lists, `[row]`; the rows of a list need not be neighbours.
      k: Number of ranks, at least 1.

    Raises:
      ValueError: Shapes that do not fit.
      UserError: A score is NaN.
    """
    values, ids = np.asarray(scores), np.asarray(groups)
    if values.ndim != 2 or values.shape[1:] != ids.shape or not len(ids):
        raise ValueError(
            f"scores {values.shape} must be [preference, row] and groups {ids.shape} [row], with a "
            "row"
        )
    if k < 1:
        raise ValueError(f"a list has at least one rank, not {k}")
    unique, list_of_row = np.unique(ids, return_inverse=True)
    sizes = np.bincount(list_of_row)
    first = np.cumsum(sizes) - sizes
    rank = np.arange(k)
    exists = rank < sizes[:, None]
    place = np.where(exists, first[:, None] + rank, 0)
    shuffled = np.argsort(mix64(np.arange(len(ids))))
    key_of_list = list_of_row[shuffled].astype(np.uint64) << np.uint64(32)
    rows = np.empty((len(values), len(unique), k), np.int64)
    for preference, row_scores in enumerate(values):
        keys = key_of_list | descending(row_scores[shuffled])
        order = shuffled[np.argsort(keys, kind="stable")]
        rows[preference] = np.where(exists, order[place], -1)
    return TopRows(unique, list_of_row, rows)


def coverage(top: TopRows, categories: ArrayLike) -> Floats:
    """Number of categories among the first rows, over the largest number that there could be.

    Args:
      top: The first rows.
      categories: Category of each row, of any type that sorts, `[row]`.

    Returns:
      `[preference, list]`, in (0, 1].
    """
    number = _numbers(top, categories)
    shown = np.sort(_of_top(top, number, -1), axis=-1)
    different = np.diff(shown, axis=-1, prepend=-1) != 0
    pairs = np.unique(top.list_of_row * (number.max() + 1) + number)
    in_list = np.bincount(pairs // (number.max() + 1), minlength=len(top.groups))
    return different.sum(-1) / np.minimum(in_list, top.rows.shape[-1])


def distinct_pairs(top: TopRows, categories: ArrayLike) -> Floats:
    """Share of the pairs of first rows that are of two categories.

    Intra-list distance (Ziegler et al. 2005) with distance 1 between categories and 0 within.

    Args:
      top: The first rows.
      categories: Category of each row, of any type that sorts, `[row]`.

    Returns:
      `[preference, list]`, in [0, 1]; NaN for lists of one row.
    """
    shown = np.sort(_of_top(top, _numbers(top, categories), -1), axis=-1)
    exists = shown >= 0
    shape = shown.shape
    # A row has as many equals before it as it is away from the first row of its category.
    begins = np.diff(shown, axis=-1, prepend=-2) != 0
    rank = np.broadcast_to(np.arange(shape[-1]), shape)
    equals = rank - np.maximum.accumulate(np.where(begins, rank, 0), axis=-1)
    alike = (equals * exists).sum(-1)
    count = exists.sum(-1)
    pairs = count * (count - 1) / 2
    nothing = np.full(pairs.shape, np.nan)
    return np.divide(pairs - alike, pairs, out=nothing, where=pairs > 0)


def exposure_share(top: TopRows, members: ArrayLike) -> Floats:
    """Share of the exposure that a group of items gets.

    Exposure of a rank is `1 / log2(1 + rank)` (Singh and Joachims 2018, "Fairness of exposure in
    rankings").

    Args:
      top: The first rows.
      members: Whether a row is of the group, or how far, in [0, 1], `[row]`.

    Returns:
      `[preference, list]`, in [0, 1].
    """
    exposure = np.where(top.rows >= 0, 1 / np.log2(np.arange(top.rows.shape[-1]) + 2), 0)
    member = _of_top(top, _one_per_row(top, members).astype(np.float64), 0.0)
    return np.asarray((exposure * member).sum(-1) / exposure.sum(-1))


def exposure_gap(share: ArrayLike, target: ArrayLike) -> Floats:
    """How far a group's mean share of the exposure is from its target.

    For an interval resample `share - target` as any other value of lists, and take the absolute
    values of the resampled means.

    Args:
      share: From `exposure_share`, `[..., list]`.
      target: The share that it should have, in [0, 1]: one, or one for each list, such as the
        group's part of the list's rows or of its gain.

    Returns:
      At least 0, `[...]`.
    """
    return np.abs((np.asarray(share) - np.asarray(target)).mean(-1))


def novelty(top: TopRows, popularity: ArrayLike) -> Floats:
    """Mean self-information of the first rows: how rarely their items are seen.

    Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems".

    Args:
      top: The first rows.
      popularity: Share of users (or of requests) that see the row's item, in (0, 1], `[row]`.

    Returns:
      Bits, at least 0: `[preference, list]`.

    Raises:
      ValueError: A popularity is out of its range.
    """
    share = _one_per_row(top, popularity).astype(np.float64)
    if not ((share > 0) & (share <= 1)).all():
        raise ValueError("a popularity must be above 0 and at most 1")
    bits = _of_top(top, -np.log2(share), 0.0)
    return np.asarray(bits.sum(-1) / (top.rows >= 0).sum(-1))


def _one_per_row(top: TopRows, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != top.list_of_row.shape:
        raise ValueError(f"values {array.shape} must be one per row, {top.list_of_row.shape}")
    return array


def _numbers(top: TopRows, categories: ArrayLike) -> Ints:
    """Categories as numbers from 0: [row]."""
    return np.unique(_one_per_row(top, categories), return_inverse=True)[1].astype(np.int64)


def _of_top(top: TopRows, values: np.ndarray, missing: float) -> np.ndarray:
    """Values [row] of the first rows: [preference, list, rank]."""
    return np.where(top.rows >= 0, values[np.maximum(top.rows, 0)], values.dtype.type(missing))
