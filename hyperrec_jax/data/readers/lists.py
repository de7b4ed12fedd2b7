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
epoch has alike, and each epoch fills each place with another list of that length (`packing`). Each
list comes exactly once per epoch, every epoch has the same number of steps, and nothing has to be
replayed to resume.
"""

import dataclasses
import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.data.columns import Batch
from hyperrec_jax.data.mixing import mix64, permute
from hyperrec_jax.data.readers.list_index import Ints, ListIndex, ranges
from hyperrec_jax.data.readers.packing import LengthClasses, pack, permute_each
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError

logger = logging.getLogger(__name__)


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
        self._classes = LengthClasses.of(self._lengths)
        # The places of every epoch's batches, and the class of lists that each is for.
        shuffled = permute(np.arange(self.num_lists), self.num_lists, self._seed_key)
        self._class_of_place = self._classes.of_sorted(shuffled)
        self._number_in_class = shuffled - self._classes.first[self._class_of_place]
        self._bounds = pack(self._classes.capacity[self._class_of_place], batch_size)
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
        position = ranges(np.zeros(len(lists), np.int64), lengths)
        within, whole = position, self._index.lengths[lists]
        cut = (whole > lengths)[list_index]
        if cut.any():
            # Each list's own permutation of its rows, of which the first ones are taken.
            keys = mix64(key + mix64(lists))
            within = position.copy()
            within[cut] = permute_each(position[cut], whole[list_index[cut]], keys[list_index[cut]])
        rows = self._index.rows(self._index.starts[lists][list_index] + within)
        return rows, list_index, position
