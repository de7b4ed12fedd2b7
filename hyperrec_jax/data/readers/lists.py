"""Training batches of whole lists, packed into a fixed number of rows.

A list is all rows of one group (a search, a session, a shelf). Models take flat rows `[row, ...]`
and know nothing of lists; a loss of a list needs all its rows in one batch. So a batch holds as
many whole lists as fit into its rows, one after the other, the rest padded, and says of each row
which list of the batch it belongs to and at which position. `to_lists` of `preference.list_losses`
puts the scores at `[list, item]`, and only there, where an item is one number, lists are padded to
the longest.

Why packing, and not lists padded to a few lengths: every batch has one shape, so that one program
is compiled; the rows that pay for padding are those at the end of a batch, a part of one list and
less than one in a hundred for batches of thousands of rows; and lists of all lengths mix in a
batch, where buckets hold lists of like length (and so users of like habits) together.

How a batch is a pure function of the step: the lengths are packed once, into batches that every
epoch has alike, and each epoch fills each place with another list of that length. Lengths that few
lists have share their places with those that are a little longer, so that their lists change
company, too; such a place may have a few rows to spare. Each list comes exactly once per epoch,
every epoch has the same number of steps, and nothing has to be replayed to resume.
"""

import dataclasses
import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.data.columns import Batch
from hyperrec_jax.data.mixing import mix64, permute
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

LISTS_OF_A_LENGTH = 16
"""Lengths with fewer lists than this share their places in batches with longer ones."""

LEAST_SHARE = 0.875
"""Part of such a place that its list fills at least."""

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
        row_order = _ranges(starts[runs], lengths[runs])
        totals = np.bincount(list_of_run, weights=lengths).astype(np.int64)
        return cls(np.cumsum(totals) - totals, totals, row_order)

    def rows(self, places: Ints) -> Ints:
        """Rows of the split at some places."""
        return places if self.row_order is None else self.row_order[places]


@dataclasses.dataclass(frozen=True)
class ListRows:
    """Which rows a process has of some global batches, and where they are in their lists.

    Attributes:
      rows: Row number in the split, int64 `[count, local batch]`; -1 is padding.
      list_index: Number of the row's list in the global batch, int32 `[count, local batch]`;
        `lists_per_batch` for padding.
      position: Position of the row in its list, int32 `[count, local batch]`; 0 for padding.
    """

    rows: Ints
    list_index: NDArray[np.int32]
    position: NDArray[np.int32]


class ListReader:
    """Shuffled training batches of whole lists: each list exactly once per epoch.

    Rows are split over processes as they lie in the global batch, so that a list may lie across two
    processes: a loss of global arrays sees it whole, for the price of one score per row.

    Args:
      split: The training rows, with groups.
      batch_size: Rows of a global batch, padding included.
      seed: Seed of the order.
      max_items: Longest list of a batch; None for that of the longest list.
      longer: What becomes of a list of more than `max_items` rows: `"cut"` takes a random choice of
        its rows, another one every epoch, and logs how many lists that concerns; `"refuse"` raises.
      process_index: Which part of each global batch to read.
      process_count: Number of processes that share a global batch.

    Attributes:
      batch_size: Rows of a global batch.
      steps_per_epoch: Number of global batches that hold all lists once.
      num_lists: Number of lists of the split.
      num_cut: Number of lists that are longer than `max_items`.
      max_items: Longest list of a batch.
      lists_per_batch: Largest number of lists of a global batch, the same for all epochs.
      fill: Part of the rows of an epoch's batches that are no padding, in (0, 1].

    Raises:
      UserError: The split has no groups or no rows, a list does not fit into a batch or into
        `max_items`, or the batch does not divide by the processes.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        max_items: int | None = None,
        longer: Literal["cut", "refuse"] = "cut",
        process_index: int = 0,
        process_count: int = 1,
    ):
        if batch_size < 1 or batch_size % process_count:
            raise UserError(
                f"a batch of {batch_size} rows does not divide evenly among {process_count} "
                "processes; choose a multiple"
            )
        if not len(split):
            raise UserError(f"{split.path}: no rows, and so no lists to train on")
        self._split = split
        self.batch_size = batch_size
        local = batch_size // process_count
        self._local = slice(process_index * local, (process_index + 1) * local)
        self._seed_key = mix64(seed)
        self._index = ListIndex.of(split)
        self.num_lists = len(self._index.starts)
        longest = int(self._index.lengths.max())
        self.max_items = longest if max_items is None else min(max_items, longest)
        self.num_cut = self._check_lengths(longest, longer)
        self._lengths = np.minimum(self._index.lengths, self.max_items)
        self._classes = _LengthClasses.of(self._lengths)
        # The places of every epoch's batches, and the class of lists that each is for.
        shuffled = permute(np.arange(self.num_lists), self.num_lists, self._seed_key)
        self._class_of_place = self._classes.of_sorted(shuffled)
        self._number_in_class = shuffled - self._classes.first[self._class_of_place]
        self._bounds = _pack(self._classes.capacity[self._class_of_place], batch_size)
        self.steps_per_epoch = len(self._bounds) - 1
        self.lists_per_batch = int(np.diff(self._bounds).max())
        self.fill = float(self._lengths.sum() / (self.steps_per_epoch * batch_size))

    def rows(self, step: int, count: int) -> ListRows:
        """Rows of this process in `count` batches from `step` on.

        A pure function of the constructor's arguments and `step`.
        """
        shape = (count, self._local.stop - self._local.start)
        result = ListRows(
            np.full(shape, -1, np.int64),
            np.full(shape, self.lists_per_batch, np.int32),
            np.zeros(shape, np.int32),
        )
        for i in range(count):
            rows, list_index, position = self._batch(step + i)
            filled = len(rows[self._local])
            result.rows[i, :filled] = rows[self._local]
            result.list_index[i, :filled] = list_index[self._local]
            result.position[i, :filled] = position[self._local]
        return result

    def read(self, step: int, count: int) -> Batch:
        """`count` batches from `step` on, with the leading axes [count, local batch].

        A pure function of the constructor's arguments and `step`.

        Returns:
          The columns of the rows, 0 in padding; `mask` f32 [count, local batch], 1 for rows of the
          split and 0 for padding; `list_index` and `position` as in `ListRows`.
        """
        chosen = self.rows(step, count)
        exists = chosen.rows >= 0
        read = self._split.gather(chosen.rows[exists])
        batch = {}
        for name, column in read.items():
            batch[name] = np.zeros((*exists.shape, column.shape[1]), column.dtype)
            batch[name][exists] = column
        return batch | {
            "mask": exists.astype(np.float32),
            "list_index": chosen.list_index,
            "position": chosen.position,
        }

    def _check_lengths(self, longest: int, longer: str) -> int:
        """Number of lists to cut; raises where a list does not fit, and may not be cut."""
        path = self._split.path
        if longer not in ("cut", "refuse"):
            raise UserError(f"longer={longer!r}: take 'cut' or 'refuse'")
        if self.max_items < 1:
            raise UserError(f"max_items={self.max_items}: a list has at least one item")
        if self.max_items > self.batch_size:
            raise UserError(
                f"{path}: lists of up to {self.max_items} rows do not fit into a batch of "
                f"{self.batch_size}; use a larger batch, or set max_items to cut longer lists"
            )
        too_long = int(np.sum(self._index.lengths > self.max_items))
        if too_long and longer == "refuse":
            raise UserError(
                f"{path}: {too_long} of {self.num_lists} lists have more than {self.max_items} "
                f"rows, the longest {longest}; use a larger max_items, or longer='cut'"
            )
        if too_long:
            logger.warning(
                "%s: %d of %d lists have more than %d rows, the longest %d; an epoch takes %d of "
                "their rows at random",
                path,
                too_long,
                self.num_lists,
                self.max_items,
                longest,
                self.max_items,
            )
        return too_long

    def _batch(self, step: int) -> tuple[Ints, Ints, Ints]:
        """Rows, lists and positions of a global batch, without padding: [row]."""
        epoch, at = divmod(step, self.steps_per_epoch)
        key = mix64(self._seed_key + np.uint64(epoch))
        place = int(permute(at, self.steps_per_epoch, mix64(~key))[0])
        part = slice(self._bounds[place], self._bounds[place + 1])
        lists = self._classes.shuffled(self._class_of_place[part], self._number_in_class[part], key)
        lengths = self._lengths[lists]
        list_index = np.repeat(np.arange(len(lists)), lengths)
        position = _ranges(np.zeros(len(lists), np.int64), lengths)
        within, whole = position, self._index.lengths[lists]
        cut = (whole > lengths)[list_index]
        if cut.any():
            # Each list's own permutation of its rows, of which the first ones are taken.
            keys = mix64(key + mix64(lists))
            within = position.copy()
            within[cut] = _permute(position[cut], whole[list_index[cut]], keys[list_index[cut]])
        rows = self._index.rows(self._index.starts[lists][list_index] + within)
        return rows, list_index, position


@dataclasses.dataclass(frozen=True)
class _LengthClasses:
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
    def of(cls, lengths: Ints) -> "_LengthClasses":
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
        sent = _permute(numbers, self.sizes[classes], mix64(key + mix64(classes)))
        return self.lists[self.first[classes] + sent]


def _permute(index: Ints, size: Ints, key: np.ndarray) -> Ints:
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


def _pack(capacities: Ints, batch_size: int) -> Ints:
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


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """`start, start + 1, ...` for each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
