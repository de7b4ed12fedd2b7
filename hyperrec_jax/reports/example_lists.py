"""A few lists of the data, and how every preference orders them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation.ranks import ranks
from hyperrec_jax.reports.raw_values import RawValues

MOST_LISTS = 8
MOST_RANKS = 10
"""Ranks that are shown of a list."""
MOST_FIELDS = 40
"""Fields that a person may choose from."""


def lists_of(groups: np.ndarray, labels: np.ndarray, most: int) -> list[NDArray[np.int64]]:
    """Rows of lists worth looking at: those with positives of most goals come first.

    Args:
      groups: Id of the list of each row, `[row]`.
      labels: `[row, goal]`.
      most: Number of lists.

    Returns:
      The rows of each list, at least one list; lists of one row only where there are no others.
    """
    _, list_of_row, counts = np.unique(groups, return_inverse=True, return_counts=True)
    positive = np.stack(
        [np.bincount(list_of_row, weights=goal > 0, minlength=len(counts)) for goal in labels.T]
    )
    goals = (positive > 0).sum(axis=0)
    # A list that all preferences fill on one page shows less than one that they choose from.
    order = np.lexsort((-np.minimum(counts, MOST_RANKS), -goals))
    chosen = [each for each in order if counts[each] > 1][:most]
    return [np.flatnonzero(list_of_row == each) for each in chosen or order[:1]]


def example_lists(
    raw: RawValues,
    gather: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    groups: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    predictions: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Any]:
    """Examples for the page, with what every preference puts on the first ranks.

    Args:
      raw: Text of the fields.
      gather: From positions `[row]` to a batch of these rows.
      groups: Id of the list of each row, `[row]`.
      labels: `[row, goal]`.
      scores: What orders the rows, `[preference, row]`.
      predictions: From rows `[row]` to predictions `[preference, row, goal]`, one preference where
        the model takes none.
    """
    found, columns = [], []
    for rows in lists_of(groups, labels, MOST_LISTS):
        own = scores[:, rows]
        rank = ranks(own)
        kept = np.flatnonzero((rank <= MOST_RANKS).any(axis=0))
        columns.append(raw.columns(gather(rows[kept])))
        found.append(
            {
                "list": str(groups[rows[0]]),
                "rows": len(rows),
                "rank": rank[:, kept].tolist(),
                "score": _short(own[:, kept]),
                "predictions": _short(predictions(rows[kept])),
                "labels": _short(labels[rows[kept]]),
            }
        )
    naming = _naming(raw, columns)
    for one, of_list in zip(found, columns, strict=True):
        one["values"] = [of_list[field] for field in naming]
    return {"fields": [raw.names[field] for field in naming], "lists": found}


def naming_fields(raw: RawValues, lists: Sequence[Mapping[str, np.ndarray]]) -> list[int]:
    """Fields by which the rows of some lists can be told apart, that which names them best first.

    Args:
      raw: Text of the fields.
      lists: The batch of rows of each list.
    """
    return _naming(raw, [raw.columns(batch) for batch in lists])


def _naming(raw: RawValues, columns: Sequence[list[list[str]]]) -> list[int]:
    together = [
        [text for of_list in columns for text in of_list[field]] for field in range(len(raw.names))
    ]
    return raw.naming(together)[:MOST_FIELDS] or list(range(min(1, len(raw.names))))


def _short(values: np.ndarray) -> Any:
    """Nested lists of numbers of four digits; None where there is none."""
    if values.ndim:
        return [_short(one) for one in values]
    value = float(values)
    return float(f"{value:.4g}") if np.isfinite(value) else None
