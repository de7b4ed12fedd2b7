"""Lists of many lengths into batches of one number of rows.

The lengths are packed once, into batches that every epoch has alike; each epoch then fills each
place with another list of that length. Lengths that few lists have share their places with those
that are a little longer, so that their lists change company, too; such a place may have a few rows
to spare.
"""

import dataclasses

import numpy as np

from hyperrec_jax.data.mixing import mix64, permute
from hyperrec_jax.data.readers.list_index import Ints

LISTS_OF_A_LENGTH = 16
"""Lengths with fewer lists than this share their places in batches with longer ones."""

LEAST_SHARE = 0.875
"""Part of such a place that its list fills at least."""


@dataclasses.dataclass(frozen=True)
class LengthClasses:
    """Lists of like length.

    Attributes:
      lists: Numbers of the lists, by descending length, int64 `[list]`.
      first: Place in `lists` of the first list of each class, int64 `[class]`.
      sizes: Number of lists of each class, int64 `[class]`.
      capacity: Length of the longest list of each class, int64 `[class]`.
    """

    lists: Ints
    first: Ints
    sizes: Ints
    capacity: Ints

    @classmethod
    def of(cls, lengths: Ints) -> "LengthClasses":
        lists = np.argsort(-lengths, kind="stable")
        counts = np.bincount(lengths)
        first, total, filled, capacity = [], 0, 0, np.inf
        for length in np.flatnonzero(counts)[::-1]:
            enough = max(filled, counts[length]) >= LISTS_OF_A_LENGTH
            if enough or length < LEAST_SHARE * capacity:
                first.append(total)
                filled, capacity = 0, length
            filled += counts[length]
            total += counts[length]
        starts = np.array(first, np.int64)
        sizes = np.diff(starts, append=len(lengths))
        return cls(lists, starts, sizes, lengths[lists[starts]])

    def of_sorted(self, places: Ints) -> Ints:
        """Class of the lists at some places in `lists`."""
        return np.searchsorted(self.first, places, side="right") - 1

    def shuffled(self, classes: Ints, numbers: Ints, key: np.ndarray) -> Ints:
        """Lists at the `numbers` of their `classes`, in the order that a key gives each class."""
        sent = permute_each(numbers, self.sizes[classes], mix64(key + mix64(classes)))
        return self.lists[self.first[classes] + sent]


def permute_each(index: Ints, size: Ints, key: np.ndarray) -> Ints:
    """`permute` for sizes that differ a lot, and where the other indices must not matter.

    A permutation is computed in the range of the next power of two of the largest size, in which a
    small one would walk long, and which would make it another one; so those of one range go apart.
    """
    bits = np.frexp((size - 1).astype(np.float64))[1]  # the bit length of size - 1
    result = np.empty_like(index)
    for one in np.unique(bits):
        here = bits == one
        result[here] = permute(index[here], size[here], key[here])
    return result


def pack(capacities: Ints, batch_size: int) -> Ints:
    """Cuts a sequence into batches that hold at most `batch_size` rows.

    In order, each as full as it gets (next fit); then with the smallest limit that needs no more
    batches, so that the last one is not a remainder of few lists, whose step would count as much.

    Returns:
      First element of each batch and the number of elements: int64 [batch + 1].
    """
    ends = np.cumsum(capacities)

    def cut(limit: int) -> list[int]:
        bounds, before = [0], 0
        while bounds[-1] < len(ends):
            bounds.append(int(np.searchsorted(ends, before + limit, side="right")))
            before = int(ends[bounds[-1] - 1])
        return bounds

    least, most = int(capacities.max()), batch_size
    best = cut(most)
    while least < most:
        middle = (least + most) // 2
        bounds = cut(middle)
        if len(bounds) <= len(best):
            best, most = bounds, middle
        else:
            least = middle + 1
    return np.array(best, np.int64)
