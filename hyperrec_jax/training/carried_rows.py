"""Which row of an older model's embedding table each row of a new one begins at."""

import itertools
from typing import NamedTuple

import numpy as np

from hyperrec_jax.parallel.tables import table_rows, vocabularies_in


class CarriedRows(NamedTuple):
    """The rows that a warm start carries over.

    Attributes:
      ids: For each vocabulary the old id that each new one begins at, int64 `[id]`: itself in the
        old vocabulary, or 0, the unknown id.
      old_sizes: Number of ids of each old vocabulary.
      own: Positions of the vocabularies that have a table of their own.
    """

    ids: list[np.ndarray]
    old_sizes: tuple[int, ...]
    own: tuple[int, ...]

    def vocabularies(self, path: str) -> list[int]:
        """Positions of those in a table, by its path; see `parallel.tables.vocabularies_in`."""
        return vocabularies_in(path, self.own, len(self.ids))

    def old_length(self, path: str) -> int:
        """Rows of the old table."""
        return table_rows([self.old_sizes[table] for table in self.vocabularies(path)])

    def rows(self, path: str) -> np.ndarray:
        """For each used row of a new table the row of the old one, int64 `[row]`."""
        tables = self.vocabularies(path)
        starts = itertools.accumulate((self.old_sizes[table] for table in tables), initial=0)
        return np.concatenate(
            [start + self.ids[table] for table, start in zip(tables, starts, strict=False)]
        )

    def known(self, path: str) -> np.ndarray:
        """Which rows are those of values that the old model knew, or of the unknown id."""
        known = [self.ids[table] > 0 for table in self.vocabularies(path)]
        for of_table in known:
            of_table[0] = True
        return np.concatenate(known)
