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


def is_split(num_rows: int, devices: int, least: int | None = None) -> bool:
    """Whether a table is split by rows over some devices.

    Args:
      num_rows: Number of its rows.
      devices: Number of devices.
      least: Number of rows from which tables are split; None for `LARGE_TABLE_ROWS`.
    """
    return num_rows >= (least or LARGE_TABLE_ROWS) and num_rows % devices == 0


def own_table(table: int) -> str:
    """Name of the module whose `embedding` is that of one vocabulary alone, by its position."""
    return f"own_{table}"


def vocabularies_in(path: str, own: Sequence[int], count: int) -> list[int]:
    """Positions of the vocabularies whose rows an embedding table has, in their order.

    Args:
      path: Names from the root of the state, joined by `/`; `is_table` is true of it.
      own: Positions of the vocabularies that have a table of their own.
      count: Number of vocabularies.
    """
    found = re.search(r"(^|/)own_(\d+)/embedding$", path)
    return [int(found[2])] if found else [table for table in range(count) if table not in own]
