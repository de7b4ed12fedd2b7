"""The goals of whole lists of a data set, and what they read of its rows.

Where a schema has such goals (kind `variety`), lists are measured for them by the hard metrics of
`list_goals`, in the place that NDCG has for the others; one row alone is worth nothing to them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.evaluation import list_goals
from hyperrec_jax.evaluation.list_metrics import PerList
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.variety import Variety

Ints = NDArray[np.int64]

HARD = {"coverage": list_goals.coverage, "distinct_pairs": list_goals.distinct_pairs}
"""The measures of `goals.variety` on the first rows of lists."""


class VarietyGoal(NamedTuple):
    """A goal of whole lists.

    Attributes:
      place: Its place among the goals.
      name: Its name.
      field: Place of its field among the categorical fields.
      measure: A key of `HARD`.
    """

    place: int
    name: str
    field: int
    measure: str


class Varied(NamedTuple):
    """A goal of whole lists with the rows that it is measured on.

    Attributes:
      goal: The goal.
      categories: Category of each row, `[row]`.
    """

    goal: VarietyGoal
    categories: Ints


def variety_goals(schema: Schema) -> tuple[VarietyGoal, ...]:
    """The goals of whole lists of a schema.

    Raises:
      UserError: one names a field that there is not, or the data has no lists.
    """
    fields = [field.name for field in schema.categorical]
    found: list[VarietyGoal] = []
    for place, goal in enumerate(schema.goals):
        if goal.kind != "variety":
            continue
        if not schema.group:
            raise UserError(
                f"goal '{goal.name}' (variety): the data does not say which rows are ranked "
                "together; name a group column when preparing it"
            )
        if (of := goal.options["of"]) not in fields:
            raise UserError(
                f"goal '{goal.name}' (variety): of: no categorical field {of!r}; "
                f"{suggestion(of, fields)}"
            )
        measure = goal.options.get("measure", "coverage")
        found.append(VarietyGoal(place, goal.name, fields.index(of), measure))
    return tuple(found)


def varied_rows(schema: Schema, rows: Split) -> tuple[Varied, ...]:
    """The goals of whole lists, each with the categories of the rows of a split."""
    if not variety_goals(schema):
        return ()
    return varied_of(schema, rows.slice(0, len(rows))["categorical"])


def varied_of(schema: Schema, ids: np.ndarray) -> tuple[Varied, ...]:
    """The goals of whole lists, each with the categories of rows of ids `[row, field]`."""
    goals = variety_goals(schema)
    return tuple(Varied(goal, ids[:, goal.field].astype(np.int64)) for goal in goals)


def with_variety(
    per_list: PerList, scores: np.ndarray, groups: np.ndarray, k: int, varied: Sequence[Varied]
) -> PerList:
    """Metrics of lists in which the goals of whole lists have their own measure for NDCG.

    Args:
      per_list: From `list_metrics`, of all goals, with `ndcg`.
      scores: The scores that made the lists, `[preference, row]`.
      groups: List of each row, `[row]`.
      k: Number of ranks that count.
      varied: The goals of whole lists; with none, `per_list` is returned as it is.

    Returns:
      Other metrics than NDCG are NaN for these goals.
    """
    if not varied:
        return per_list
    top = list_goals.top_rows(scores, groups, k)
    values = {name: value.copy() for name, value in per_list.values.items()}
    for goal, categories in varied:
        for name, value in values.items():
            own = HARD[goal.measure](top, categories) if name == "ndcg" else np.nan
            value[:, goal.place] = own
    return per_list._replace(values=values)


def varied_by_name(
    goals: Sequence[RowGoal], fields: Sequence[str], ids: np.ndarray
) -> tuple[Varied, ...]:
    """As `varied_of`, from the goals and the names of the fields of ids `[row, field]`."""
    found = []
    for place, goal in enumerate(goals):
        if isinstance(goal, Variety):
            field = fields.index(goal.of)
            of = VarietyGoal(place, goal.name, field, goal.measure)
            found.append(Varied(of, ids[:, field].astype(np.int64)))
    return tuple(found)


def variety_rates(schema: Schema, rows: Split) -> dict[int, float]:
    """What an average row adds to each goal of whole lists, by the place of the goal.

    Args:
      schema: Of data with groups, if it has such a goal.
      rows: A split, not empty.
    """
    groups = rows.groups(0, len(rows)) if variety_goals(schema) else np.zeros(0)
    return {of.goal.place: category_rate(groups, of.categories) for of in varied_rows(schema, rows)}


def category_rate(groups: np.ndarray, categories: np.ndarray) -> float:
    """Mean over rows of one over the rows of its category in its list.

    The chance that a row, drawn at random, is the one that stands for its category: what a row of
    average worth adds to the variety of a list, as a base rate is for a label.

    Args:
      groups: List of each row, `[row]`.
      categories: Category of each row, `[row]`.
    """
    _, list_of_row = np.unique(groups, return_inverse=True)
    return len(np.unique(list_of_row * (categories.max() + 1) + categories)) / len(groups)
