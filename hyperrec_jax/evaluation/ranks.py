"""The place of each row in its list."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(scores: ArrayLike, groups: ArrayLike | None = None) -> NDArray[np.int64]:
    """The place of each row within its list, from 1; rows of equal score keep their order.

    Args:
      scores: `[..., row]`.
      groups: Ids of the lists, `[row]`; None where all rows are one list.

    Returns:
      `[..., row]`.
    """
    values = np.asarray(scores)
    rows = values.shape[-1]
    flat = values.reshape(math.prod(values.shape[:-1]), rows)
    ids = np.zeros(rows, np.int64) if groups is None else np.asarray(groups)
    result = np.empty(flat.shape, np.int64)
    for place, row_scores in enumerate(flat):
        order = np.lexsort((-row_scores, ids))
        first = np.flatnonzero(np.r_[True, ids[order][1:] != ids[order][:-1]][:rows])
        sizes = np.diff(first, append=rows)
        result[place, order] = np.arange(rows) - np.repeat(first, sizes) + 1
    return result.reshape(values.shape)
