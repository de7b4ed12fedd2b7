"""Embedding tables: by which name they are found, and how many rows they have."""

import re
from collections.abc import Sequence

LARGE_TABLE_ROWS = 1_000_000
"""A table of at least this many rows can be split over devices; `table_rows` makes it even."""


def is_table(path: str) -> bool:
    """Whether an array of the training state is an embedding table, or a moment of one.

    The moments of an optimizer end in the path of their parameter. Any parameter with the name
    `embedding` counts, whatever its module is called: `FeatureEmbedding` has one.

    Args:
      path: Names from the root of the state, joined by `/`.
    """
    return re.search(r"(^|/)embedding$", path) is not None


def table_rows(field_sizes: Sequence[int]) -> int:
    """Rows of the table of all fields; a large one ends in unused rows, up to a multiple of 512."""
    rows = sum(field_sizes)
    return rows if rows < LARGE_TABLE_ROWS else -(-rows // 512) * 512
