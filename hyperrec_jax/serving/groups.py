"""The list that each of some raw rows belongs to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.raw_rows import RawRows, column_of, to_table


def group_ids(
    rows: RawRows, group: Any, num_rows: int, optional: bool = False, where: str = "rows"
) -> np.ndarray | None:
    """The list that each row belongs to, as integers.

    Args:
      rows: A frame, an Arrow table, one dictionary for each row, or a dictionary of columns.
      group: The column that names the list, or a value for each row; None for no lists.
      num_rows: Number of rows.
      optional: Whether the column may be missing.
      where: What the rows are, for messages.

    Returns:
      int64 `[row]`; None where there are no lists.

    Raises:
      UserError: there is no such column, a row has no list, or the values are not one for each row.
    """
    if group is None:
        return None
    if isinstance(group, str):
        if not isinstance(rows, Sequence):
            table = to_table(rows, where)
            if group not in table.column_names:
                if optional:
                    return None
                names = ", ".join(table.column_names)
                raise UserError(f"{where}: lack column {group!r}; they have {names}")
            column = table[group].combine_chunks()
        else:
            lacking = [number for number, row in enumerate(rows, 1) if group not in row]
            if lacking and optional and len(lacking) == len(rows):
                return None
            if lacking:
                raise UserError(f"{where}: row {lacking[0]} lacks column {group!r}")
            column = column_of([row[group] for row in rows], group, where, 0)
    else:
        column = column_of(list(np.asarray(group).tolist()), "group", where, 0)
    if len(column) != num_rows:
        raise UserError(f"{where}: group has {len(column)} values for {num_rows} rows")
    if column.null_count:
        row = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
        raise UserError(f"{where}: row {row + 1}: names no list; group has a missing value")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
