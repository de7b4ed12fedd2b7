"""Features that give a label away, said before anybody trains on them."""

import numpy as np

from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.metrics import auc

LEAK_AUC = 0.999
"""A single feature that orders a label better than this is most likely made from the label."""

_ROWS = 1 << 16
_LEAST_OF_A_CLASS = 20


def leak_warnings(store: Store) -> list[str]:
    """Features that alone tell a label of the training rows, one line for each.

    A number is judged by its AUC, a categorical value by the share of positives that the other
    half of the rows has for it. Up to 65,536 rows are read, evenly spaced; labels with fewer than
    20 positives or negatives among them are left out.
    """
    split = store.split("train")
    count = min(len(split), _ROWS)
    if not count:
        return []
    batch = split.gather(np.linspace(0, len(split) - 1, count).astype(np.int64))
    schema, lines = store.schema, []
    for task, label in zip(schema.tasks, batch["labels"].T > 0, strict=True):
        if min(label.sum(), (~label).sum()) < _LEAST_OF_A_CLASS:
            continue
        scores = [
            (field.name, _rate_of_value(ids, label, field.size))
            for field, ids in zip(schema.categorical, batch["categorical"].T, strict=True)
        ]
        scores += [
            (field.name, values)
            for field, values in zip(schema.numerical, batch["numerical"].T, strict=True)
        ]
        for name, values in scores:
            area = auc(label, values)
            if max(area, 1 - area) > LEAK_AUC:
                lines.append(
                    f"{store.path}: column {name!r} alone tells label {task!r} (AUC "
                    f"{max(area, 1 - area):.4f} on training rows); leave it out if it is not known "
                    "before the label is"
                )
    return lines


def _rate_of_value(ids: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
    """Share of positives among the rows with the same value in the other half: f64 [row]."""
    rates = np.empty(len(ids))
    for half in (0, 1):
        ours, theirs = slice(half, None, 2), slice(1 - half, None, 2)
        seen = np.bincount(ids[theirs], minlength=size)
        positives = np.bincount(ids[theirs], label[theirs], minlength=size)
        rates[ours] = ((positives + label.mean()) / (seen + 1))[ids[ours]]
    return rates
