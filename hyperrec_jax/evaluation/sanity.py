"""What is suspicious about prepared data, said in a line each before anybody trains on it."""

import itertools
from collections.abc import Iterator

import numpy as np

from hyperrec_jax.data.checks import first_outside_funnel, unseen_in_store
from hyperrec_jax.data.columns import ROWS_PER_RECORD_BATCH, SPLITS
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.leaks import leak_warnings

LEAST_ROWS = 500
"""Tables of fewer training rows are trials, in which everything is rare."""

FEW_TO_LEARN = 20
"""A goal with fewer positive training rows than this can hardly be learnt."""

FEW_TO_MEASURE = 10
"""With fewer positives than this the standard error of an AUC is about .1 or more."""


def suspicions(store: Store) -> list[str]:
    """All that is suspicious about a store, one line for each."""
    lines = [*unseen_in_store(store), *leak_warnings(store)]
    if len(store.split("train")) < LEAST_ROWS:
        return lines
    return [
        *_empty_splits(store),
        *_few_labels(store),
        *_constant_columns(store),
        *_funnel_in_another_order(store),
        *lines,
    ]


def _empty_splits(store: Store) -> Iterator[str]:
    for name in ("validation", "test"):
        if not len(store.split(name)):
            use = "training selects its model on" if name == "validation" else "evaluate scores"
            yield f"{store.path}: the {name} split, which {use}, has no rows; set more rows aside"


def _few_labels(store: Store) -> Iterator[str]:
    """Goals with too few positives, or labels, to learn from or to be measured by."""
    for name in SPLITS:
        split = store.split(name)
        least, purpose = (
            (FEW_TO_LEARN, "it can hardly be learnt")
            if name == "train"
            else (FEW_TO_MEASURE, "its metrics are mostly noise")
        )
        for goal, positives, known in zip(
            store.schema.goals, split.positives, split.statistics, strict=True
        ):
            what, count = "positives", positives
            if goal.kind == "regression":
                what, count = "labels", known.count
            elif goal.binary and known.count - positives < positives:
                what, count = "negatives", known.count - positives
            if len(split) and count < least:
                yield (
                    f"{store.path}, {name} split: goal {goal.name!r} has {count} {what} in "
                    f"{len(split):,} rows; {purpose}; take more rows"
                )


def _constant_columns(store: Store) -> Iterator[str]:
    split, schema = store.split("train"), store.schema
    widths = {
        "categorical": [(field.name, 1) for field in schema.categorical],
        "numerical": [(field.name, 1) for field in schema.numerical],
        "multivalued": [(field.name, field.length) for field in schema.multivalued],
        "vectors": [(field.name, field.width) for field in schema.vectors],
    }
    for kind, columns in widths.items():
        if not columns:
            continue
        ends = np.cumsum([width for _, width in columns])[:-1]
        for (column, _), same in zip(columns, np.split(_constant(split, kind), ends), strict=True):
            if same.all():
                yield (
                    f"{store.path}: column {column!r} has the same value in all {len(split):,} "
                    "training rows, so that nothing can be learnt from it; leave it out"
                )


def _constant(split: Split, kind: str) -> np.ndarray:
    """Which columns of a matrix have one value only, bool `[column]`; stops at the first rows that
    show that none has."""
    first = split.slice(0, min(1, len(split)))[kind]
    constant = np.full(first.shape[1], len(first) > 0 and len(split) > 1)
    for start in range(0, len(split), ROWS_PER_RECORD_BATCH):
        if not constant.any():
            break
        values = split.slice(start, min(start + ROWS_PER_RECORD_BATCH, len(split)))[kind]
        constant &= (values == first).all(axis=0)
    return constant


def _funnel_in_another_order(store: Store) -> Iterator[str]:
    """Labels each of which needs another one, where they do not stand in that order."""
    split, names = store.split("train"), store.schema.tasks
    if first_outside_funnel(split) is None:
        return
    order = sorted(range(len(names)), key=lambda goal: -split.positives[goal])
    steps = itertools.pairwise(order)
    if all(split.both_positive[one][other] == split.positives[other] for one, other in steps):
        yield (
            f"{store.path}: the goals are steps of a funnel, but not in its order: name them as "
            f"{', '.join(names[goal] for goal in order)} for the models esmm and aitm"
        )
