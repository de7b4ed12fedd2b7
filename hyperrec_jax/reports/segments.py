"""What the preference does to parts of the rows, such as countries or devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists
from hyperrec_jax.evaluation.measures import labelled
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.varied import varied_by_name, with_variety
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.losses import output_slices
from hyperrec_jax.reports.raw_values import RawValues

MOST_FIELDS, MOST_SEGMENTS = 5, 8
LEAST_ROWS = 50
"""Rows, or lists that count, below which a segment's value is noise and is left out."""


def segments(
    raw: RawValues,
    batch: Mapping[str, np.ndarray],
    goals: Sequence[RowGoal],
    scores: Scores,
    groups: np.ndarray | None = None,
    list_scores: np.ndarray | None = None,
    k: int = 10,
) -> list[dict[str, Any]]:
    """Measures by the most frequent values of the fields that have few.

    Lists are measured by NDCG, by fields that all rows of a list share; where there are none, the
    predictions are, by the main metric of each goal.

    Args:
      raw: Text of the fields.
      batch: Rows of a split.
      goals: The goals.
      scores: Outputs for these rows.
      groups: Id of the list of each row, `[row]`.
      list_scores: What orders the rows of lists, `[preference, row]`; None without lists.
      k: Ranks that count for NDCG.

    Returns:
      For each field its name, the names of its segments, what is measured ('lists' or
      'predictions'), the number of lists or rows, and the values `[segment][preference][goal]`,
      None where a segment has too few.
    """
    ids = np.asarray(batch["categorical"])
    if list_scores is not None and groups is not None:
        _, first, of_row = np.unique(groups, return_index=True, return_inverse=True)
        shared = [bool((column[first][of_row] == column).all()) for column in ids.T]
        if any(shared):
            found = list_metrics(list_scores, batch["labels"].T, groups, k, ("ndcg",))
            varied = varied_by_name(goals, raw.names, ids)
            each = with_variety(found, list_scores, groups, k, varied).values["ndcg"]
            return [
                _by(raw, field, ids[first, field], lambda of: _ndcg(each[..., of]))
                | {"of": "lists"}
                for field in _fields(ids[first], shared)
            ]
    return [
        _by(raw, field, ids[:, field], lambda of: _main(goals, scores, of)) | {"of": "predictions"}
        for field in _fields(ids, [True] * ids.shape[1])
    ]


def _fields(ids: np.ndarray, wanted: Sequence[bool]) -> list[int]:
    """Fields of at least two values of enough rows, those first whose segments hold most rows."""
    held = {}
    for field, column in enumerate(ids.T):
        counts = np.sort(np.bincount(column))[::-1][:MOST_SEGMENTS]
        counts = counts[counts >= LEAST_ROWS]
        if wanted[field] and len(counts) > 1:
            held[field] = int(counts.sum())
    return sorted(held, key=lambda field: -held[field])[:MOST_FIELDS]


def _by(raw: RawValues, field: int, ids: np.ndarray, measure: Any) -> dict[str, Any]:
    counts = np.bincount(ids)
    chosen = np.argsort(-counts, kind="stable")[:MOST_SEGMENTS]
    chosen = chosen[counts[chosen] >= LEAST_ROWS]
    return {
        "field": raw.names[field],
        "names": raw.of_ids(field, chosen),
        "count": counts[chosen].tolist(),
        "values": [measure(ids == one) for one in chosen],
    }


def _ndcg(values: np.ndarray) -> list[list[float | None]]:
    """Means over lists of NDCG, of `[preference, goal, list]`."""
    enough = (~np.isnan(values[0])).sum(axis=1) >= LEAST_ROWS
    if not enough.any():
        return _rounded(np.full(values.shape[:2], np.nan))
    return _rounded(np.where(enough, mean_over_lists(values), np.nan))


def _main(goals: Sequence[RowGoal], scores: Scores, of: np.ndarray) -> list[list[float | None]]:
    """The main metric of each goal in some rows."""
    part = scores.of_rows(of)
    table = np.full((len(part.logits), len(goals)), np.nan)
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        rows = labelled(part, index)
        if len(rows.labels) < LEAST_ROWS:
            continue
        metric = goal.metrics[goal.primary]
        table[:, index] = [
            metric(rows.labels, rows.of(outputs[place]), rows.weights) for outputs in part.outputs
        ]
    return _rounded(table)


def _rounded(table: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else round(float(value), 5) for value in row] for row in table]
