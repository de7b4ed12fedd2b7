"""Labels of a store: statistics of those that there are, and the goals that follow from them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperrec_jax.data.schema import GoalField, Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import RowGoal, Statistics, create_goal


class LabelStatistics:
    """Statistics of the labels of a split, collected a few thousand rows at a time.

    Args:
      goals: Number of goals.

    Attributes:
      positives: Number of positive labels, `[goal]`.
      both_positive: Number of rows in which two labels are positive, `[goal, goal]`.
    """

    def __init__(self, goals: int):
        self.positives = np.zeros(goals, np.int64)
        self.both_positive = np.zeros((goals, goals), np.int64)
        self._rows = 0
        self._collected = [Statistics.of([]) for _ in range(goals)]

    def add(self, labels: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Adds rows.

        Args:
          labels: `[row, goal]`, uint8 of 0 and 1 or float with NaN for a missing label.
          weights: `[row]`; 1 each by default.
        """
        positive = (labels > 0).astype(np.int64)
        self.positives += positive.sum(0)
        self.both_positive += positive.T @ positive
        if labels.dtype == np.uint8 and weights is None:
            self._rows += len(labels)  # two counts say everything of labels of 0 and 1
            return
        for goal, column in enumerate(labels.T):
            present = ~np.isnan(column)
            mass = None if weights is None else weights[present]
            statistics = Statistics.of(column[present], mass)
            self._collected[goal] = self._collected[goal].merge(statistics)

    def of_goals(self) -> list[Statistics]:
        """The statistics of each goal's labels."""
        if not self._rows:
            return self._collected
        return [of_binary(self._rows, int(count)) for count in self.positives]


def of_binary(rows: int, positives: int) -> Statistics:
    """Statistics of labels of 0 and 1, of weight 1 each."""
    counts = Statistics.of([0.0, 1.0], [rows - positives, positives])
    return dataclasses.replace(counts, count=rows)


def create_goals(schema: Schema) -> tuple[RowGoal, ...]:
    """The goals of a schema, ready for use if it is that of a store.

    Raises:
      UserError: A goal is of a kind that has no loss for each row.
    """
    goals = tuple(create_goal(field.kind, field.name, **field.options) for field in schema.goals)
    for goal in goals:
        if not isinstance(goal, RowGoal):
            raise UserError(
                f"goal '{goal.name}': kind {goal.kind} has no loss for each row, which labels of a "
                "log need; choose one of binary, regression, count, value, fairness, variety"
            )
    return goals  # type: ignore[return-value]


def fitted(schema: Schema, statistics: Sequence[Statistics]) -> Schema:
    """The schema with the options of its goals that come from the training labels.

    Args:
      schema: Schema of a store that is being written.
      statistics: Statistics of each goal's training labels.

    Raises:
      UserError: The labels leave nothing to learn.
    """
    if schema.label_dtype == "uint8" and schema.weight is None:
        return schema
    fields = []
    for field, goal, known in zip(schema.goals, create_goals(schema), statistics, strict=True):
        known.require_rows(goal.name)
        fields.append(dataclasses.replace(field, options=given_options(goal.fitted(known))))
    return dataclasses.replace(schema, goals=tuple(fields))


def given_options(goal: RowGoal) -> dict[str, Any]:
    """The options of a goal that differ from the defaults of its kind."""
    return {
        option.name: getattr(goal, option.name)
        for option in dataclasses.fields(goal)
        if option.name != "name" and getattr(goal, option.name) != option.default
    }


def hide_outside(labels: np.ndarray, goals: Sequence[GoalField]) -> np.ndarray:
    """Labels with those taken out that lie where the goal of `where` is not positive.

    Args:
      labels: `[row, goal]`, float.
      goals: The goal of each column.

    Returns:
      A new array in which such labels are NaN. A goal whose own `where` leaves a row out is not
      positive there, so that funnels of several steps hold.
    """
    names = [goal.name for goal in goals]
    hidden = labels.copy()
    for _ in goals:  # a chain is at most as long as there are goals
        for column, goal in enumerate(goals):
            if goal.where is not None:
                hidden[~(hidden[:, names.index(goal.where)] > 0), column] = np.nan
    return hidden
