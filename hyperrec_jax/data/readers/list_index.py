"""Where the lists of a split are: which of its rows belong to one group."""

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.data.split import Split

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

_CHUNK_ROWS = 1 << 20


@dataclasses.dataclass(frozen=True)
class ListIndex:
    """Where the lists of a split are.

    Attributes:
      starts: First place of each list, int64 `[list]`, in the order of their first rows.
      lengths: Number of its rows, int64 `[list]`, at least 1.
      row_order: Row at each place, int64 `[row]`, where lists are not runs of neighbouring rows;
        None where they are, and a place is a row.
    """

    starts: Ints
    lengths: Ints
    row_order: Ints | None

    @classmethod
    def of(cls, split: Split) -> "ListIndex":
        """Finds the lists of a split by its group column.

        Reads the groups in chunks. Where the rows of a group are neighbours, memory grows with the
        lists: 16 bytes each, some 60 while they are found. Elsewhere, and this is logged, it grows
        with the rows: 8 bytes each, up to 60 while they are sorted. Data sorted by its group avoids
        that.

        Raises:
          UserError: The data has no group column.
        """
        run_groups, run_starts = [], []
        last: int | None = None
        for start in range(0, len(split), _CHUNK_ROWS):
            groups = split.groups(start, min(start + _CHUNK_ROWS, len(split)))
            begins = np.flatnonzero(np.diff(groups)) + 1
            if last is None or groups[0] != last:
                begins = np.concatenate([[0], begins])
            run_groups.append(groups[begins])
            run_starts.append(begins.astype(np.int64) + start)
            last = int(groups[-1])
        if not run_groups:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), None)
        ids, starts = np.concatenate(run_groups), np.concatenate(run_starts)
        lengths = np.diff(starts, append=len(split))
        _, first, list_of_run = np.unique(ids, return_index=True, return_inverse=True)
        if len(first) == len(ids):
            return cls(starts, lengths, None)
        # Numbers of lists by first appearance, as they have where their rows are neighbours.
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        list_of_run = number[list_of_run]
        logger.info(
            "%s: the rows of %d lists lie in %d separate runs; the row numbers are indexed in "
            "memory (%.0f MB); data sorted by its group needs no index",
            split.path,
            len(first),
            len(ids),
            len(split) * 8 / 1e6,
        )
        runs = np.argsort(list_of_run, kind="stable")
        row_order = ranges(starts[runs], lengths[runs])
        totals = np.bincount(list_of_run, weights=lengths).astype(np.int64)
        return cls(np.cumsum(totals) - totals, totals, row_order)

    def rows(self, places: Ints) -> Ints:
        """Rows of the split at some places."""
        return places if self.row_order is None else self.row_order[places]


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """`start, start + 1, ...` for each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
