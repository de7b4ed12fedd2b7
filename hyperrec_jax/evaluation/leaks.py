"""Features that give a label away, said before anybody trains on them."""

from collections.abc import Iterator

import numpy as np

from hyperrec_jax.data.columns import ROWS_PER_RECORD_BATCH, Batch, columns_of
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.metrics import auc

LEAK_AUC = 0.999
"""A single feature that orders a label better than this is most likely made from the label."""

_ROWS = 1 << 16
_BLOCKS = 8
_NUMBERS = 1 << 24
_LEAST_OF_A_CLASS = 20
_FEWEST_ROWS = 1 << 12
_SUSPICIOUS_AUC = 0.98
"""Above this on a part of the rows all of them are asked."""


def leak_warnings(store: Store) -> list[str]:
    """Features that alone tell a label of the training rows, one line for each.

    A number is judged by its AUC, a categorical value by the share of positives that the other
    half of the rows has for it, a set or a sequence by the highest and the lowest such share among
    its values and by how many they are, and a vector by each of its numbers. Up to 65,536 rows are
    read, of eight record batches far from each other, or fewer of more than 256 numbers; labels
    with fewer than 20 positives or negatives among them are left out.
    """
    split = store.split("train")
    width = sum(column.width for column in columns_of(store.schema))
    count = min(len(split), _ROWS, max(_FEWEST_ROWS, _NUMBERS // width))
    if not count:
        return []
    batch = split.gather(_rows(len(split), count))
    schema, lines = store.schema, []
    for goal, label in zip(schema.goals, batch["labels"].T > 0, strict=True):
        task = goal.name
        if goal.kind == "fairness":  # its groups may be told by a feature
            continue
        if _of_rarer_class(label) < _LEAST_OF_A_CLASS:
            continue
        found: dict[str, float] = {}  # the best of each column, in their order
        part = _some_of_each_class(label)
        for name, values in _scores(schema, batch, label):
            area = _either_way(label[part], values[part])
            if area > _SUSPICIOUS_AUC:
                area = _either_way(label, values)
            found[name] = max(found.get(name, 0), area)
        lines += [
            f"{store.path}: column {name!r} alone tells label {task!r} (AUC {area:.4f} on training "
            "rows); leave it out if it is not known before the label is"
            for name, area in found.items()
            if area > LEAK_AUC
        ]
    return lines


def _rows(total: int, count: int) -> np.ndarray:
    """Row numbers: so many of a split at most, of few record batches, since each is read whole."""
    last = (total - 1) // ROWS_PER_RECORD_BATCH
    blocks = np.unique(np.linspace(0, last, _BLOCKS).astype(np.int64))
    ranges = []
    for first in blocks * ROWS_PER_RECORD_BATCH:
        size = min(ROWS_PER_RECORD_BATCH, total - first)
        taken = min(size, count // len(blocks))
        ranges.append(first + np.arange(taken) * size // taken)
    return np.concatenate(ranges)


def _of_rarer_class(label: np.ndarray) -> int:
    """Number of positives or of negatives, whichever are fewer."""
    return int(min(label.sum(), (~label).sum()))


def _some_of_each_class(label: np.ndarray) -> np.ndarray:
    """Numbers of some rows of both labels, evenly spaced; enough where nothing is suspicious."""
    most = _FEWEST_ROWS // 2
    classes = (np.flatnonzero(label), np.flatnonzero(~label))
    return np.concatenate([rows[:: max(1, len(rows) // most)] for rows in classes])


def _either_way(label: np.ndarray, values: np.ndarray) -> float:
    """AUC of the values or of their opposite, whichever is larger."""
    area = auc(label, values)
    return max(area, 1 - area)


def _scores(schema: Schema, batch: Batch, label: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What each column may order a label by, `[row]`."""
    for field, ids in zip(schema.categorical, batch["categorical"].T, strict=True):
        yield field.name, _rates(ids[:, None], label, field.size)[:, 0]
    for number, values in zip(schema.numerical, batch["numerical"].T, strict=True):
        yield number.name, values
    start = 0
    for several in schema.multivalued:
        ids = batch["multivalued"][:, start : start + several.length]
        start += several.length
        rates, there = _rates(ids, label, several.size), ids >= 0
        empty = ~there.any(axis=1)
        highest = rates.max(axis=1, where=there, initial=0)
        lowest = rates.min(axis=1, where=there, initial=1)
        for rate in (highest, lowest):
            yield several.name, np.where(empty, label.mean(), rate)
        yield several.name, there.sum(axis=1)
    names = [vector.name for vector in schema.vectors for _ in range(vector.width)]
    for place, name in enumerate(names):
        yield name, batch["vectors"][:, place]


def _rates(ids: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
    """Share of positives among the rows of the other half that have a value, by value.

    Args:
      ids: `[row, value]`, -1 for none.
      label: Bool `[row]`.
      size: Number of ids.

    Returns:
      float64 `[row, value]`, without meaning where there is no value.
    """
    rates = np.empty(ids.shape)
    for half in (0, 1):
        ours, theirs = ids[half::2], ids[1 - half :: 2]
        there = theirs >= 0
        labels = np.broadcast_to(label[1 - half :: 2, None], theirs.shape)[there]
        seen = np.bincount(theirs[there], minlength=size)
        positives = np.bincount(theirs[there], labels, minlength=size)
        rates[half::2] = ((positives + label.mean()) / (seen + 1))[ours]
    return rates
