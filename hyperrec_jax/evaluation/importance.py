"""What a model reads: how much worse a goal is predicted once a field is shuffled between rows.

Permutation importance (Breiman 2001, "Random forests"), of the main metric of each goal, under each
preference: a field that a preference does not need has an importance of about 0. Fields that tell
the same share theirs, since one stands in for the other.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hyperrec_jax.data.columns import Batch
from hyperrec_jax.data.records import to_csv
from hyperrec_jax.evaluation.measures import measure
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.goals import RowGoal

Outputs = Callable[[Batch], np.ndarray]
"""Outputs of a model for some rows, `[preference, output, row]`."""


@dataclasses.dataclass(frozen=True)
class Importance:
    """Permutation importance of each field.

    Attributes:
      fields: Names of the fields.
      goals: Names of the goals.
      metrics: Main metric of each goal.
      preferences: `[preference, goal]`, or `[1, goal]` for a model that takes none.
      rows: Number of rows.
      mean: What the metric loses by shuffling a field, `[preference, field, goal]`; positive where
        the field helps, NaN where the metric is undefined.
      deviation: Standard deviation over the shuffles, of the same shape.
    """

    fields: tuple[str, ...]
    goals: tuple[str, ...]
    metrics: tuple[str, ...]
    preferences: np.ndarray
    rows: int
    mean: np.ndarray
    deviation: np.ndarray

    def most_read(self) -> list[str]:
        """The fields, that whose loss is largest for any goal and preference first."""
        largest = np.nan_to_num(self.mean).max(axis=(0, 2))
        return [self.fields[place] for place in np.argsort(-largest, kind="stable")]

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary for each preference and field, the most important field first."""
        records = []
        for weights, means, deviations in zip(
            self.preferences, self.mean, self.deviation, strict=True
        ):
            order = np.argsort(-np.nan_to_num(np.abs(means)).max(axis=1), kind="stable")
            for field in order:
                record: dict[str, Any] = {
                    f"preference/{goal}": float(weight)
                    for goal, weight in zip(self.goals, weights, strict=True)
                }
                record["field"] = self.fields[field]
                for goal, name in enumerate(self.goals):
                    record[f"{self.metrics[goal]}/{name}"] = float(means[field, goal])
                    record[f"deviation/{name}"] = float(deviations[field, goal])
                records.append(record)
        return records

    def to_csv(self) -> str:
        """The records as CSV."""
        return to_csv(self.records())


def permutation_importance(
    outputs: Outputs,
    batch: Mapping[str, np.ndarray],
    goals: Sequence[RowGoal],
    fields: Mapping[str, tuple[str, slice]],
    preferences: np.ndarray,
    orders: np.ndarray,
) -> Importance:
    """Shuffles each field in turn and measures what every goal loses.

    Args:
      outputs: The model under the preferences.
      batch: Rows of a split, with labels and, where there are any, weights.
      goals: The goals.
      fields: For each field the array of the batch that holds it, and its columns there.
      preferences: Those of the outputs, `[preference, goal]`.
      orders: One order of the rows for each shuffle, `[shuffle, row]`; the same for all fields, so
        that their differences are less noisy.
    """
    signs = [1.0 if goal.metrics[goal.primary].better == "higher" else -1.0 for goal in goals]
    names = [f"{goal.primary}/{goal.name}" for goal in goals]
    inputs = {name: values for name, values in batch.items() if name not in ("labels", "weight")}
    weights = batch["weight"][:, 0] if "weight" in batch else None

    def value(rows: Batch) -> np.ndarray:
        """The main metrics with their sign, `[preference, goal]`."""
        measured = measure(goals, Scores(outputs(rows), batch["labels"].T, weights))
        return np.stack([measured[name] for name in names], axis=1) * signs

    whole = value(inputs)
    lost = np.empty((len(orders), len(fields), *whole.shape))
    for place, (array, columns) in enumerate(fields.values()):
        for shuffle, order in enumerate(orders):
            changed = inputs[array].copy()
            changed[:, columns] = changed[order, columns]
            lost[shuffle, place] = whole - value(inputs | {array: changed})
    return Importance(
        fields=tuple(fields),
        goals=tuple(goal.name for goal in goals),
        metrics=tuple(goal.primary for goal in goals),
        preferences=np.asarray(preferences, np.float64)[: len(whole)],
        rows=len(batch["labels"]),
        mean=lost.mean(axis=0).swapaxes(0, 1),
        deviation=lost.std(axis=0).swapaxes(0, 1),
    )
