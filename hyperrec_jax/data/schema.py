"""What a row is: its fields, its goals and its group.

Everything downstream (models, serving, reports) learns about the data from a `Schema` alone.
"""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class CategoricalField:
    """A field of ids.

    Attributes:
      name: Column name.
      size: Number of ids, in `[0, size)`. Id 0 is reserved for values never seen in training
        (out of vocabulary), so that `size - 1` distinct values were seen.
    """

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class NumericalField:
    """A field of numbers, stored as `(f(x) - mean) / std` with `f` either log1p or identity.

    Attributes:
      name: Column name.
      log1p: Whether `log(1 + x)` comes first.
      mean: Subtracted, estimated on the training rows; 0 where the source is stored as it is.
      std: Divided by, estimated on the training rows; 1 where the source is stored as it is.
      missing: The `x` that stands for a missing number; None if none may be missing.
    """

    name: str
    log1p: bool = False
    mean: float = 0.0
    std: float = 1.0
    missing: float | None = None


@dataclasses.dataclass(frozen=True)
class GoalField:
    """A column of labels and what is to be made of it.

    Attributes:
      name: The goal's name.
      kind: Its kind; see `hyperrec_jax.goals`.
      options: Options of that kind where they differ from its defaults, those included that come
        from the training labels.
      where: The goal on whose positive rows alone this one has labels, or None for all rows.
    """

    name: str
    kind: str = "binary"
    options: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    where: str | None = None


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a store.

    Attributes:
      source: Where the rows come from, such as `aliexpress_us`.
      categorical: Fields of ids, in the order of the stored id matrix.
      numerical: Fields of numbers, in the order of the stored number matrix.
      tasks: Names of the goals, in the order of the stored label matrix.
      group: Name of the column that groups rows into lists (the search id), or None.
      best_auc: Per task, the best reachable AUC on the test split where the truth is known
        (synthetic data), else empty.
      goals: What the labels are, in the same order; all binary by default.
      label_dtype: `uint8` where every label is 0 or 1 and none is missing, else `float32`, in which
        a missing label is NaN.
      weight: Name of the column of row weights, or None where every row counts the same.
    """

    source: str
    categorical: tuple[CategoricalField, ...]
    numerical: tuple[NumericalField, ...]
    tasks: tuple[str, ...]
    group: str | None = None
    best_auc: tuple[float, ...] = ()
    goals: tuple[GoalField, ...] = ()
    label_dtype: Literal["uint8", "float32"] = "uint8"
    weight: str | None = None

    def __post_init__(self) -> None:
        goals = self.goals or tuple(GoalField(name) for name in self.tasks)
        if tuple(goal.name for goal in goals) != self.tasks:
            raise ValueError(f"goals {goals} are not those of {self.tasks}")
        object.__setattr__(self, "goals", goals)

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """Number of ids of each categorical field, out-of-vocabulary id included."""
        return tuple(field.size for field in self.categorical)

    @property
    def num_numerical(self) -> int:
        return len(self.numerical)

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def plain(self) -> bool:
        """Whether all goals are binary, with a label in every row, and rows have no weights."""
        binary = all(goal.kind == "binary" for goal in self.goals)
        return binary and self.label_dtype == "uint8" and self.weight is None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dictionary; inverse of `from_dict`."""
        return dataclasses.asdict(self, dict_factory=_without_defaults)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Schema":
        return cls(
            source=values["source"],
            categorical=tuple(CategoricalField(**field) for field in values["categorical"]),
            numerical=tuple(NumericalField(**field) for field in values["numerical"]),
            tasks=tuple(values["tasks"]),
            group=values["group"],
            best_auc=tuple(values["best_auc"]),
            # What was written before there were other goals has binary ones.
            goals=tuple(GoalField(**goal) for goal in values.get("goals", ())),
            label_dtype=values.get("label_dtype", "uint8"),
            weight=values.get("weight"),
        )


def _without_defaults(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leaves out `missing` where it is not set: stores that were made before there was one keep
    their fingerprints."""
    return {key: value for key, value in items if (key, value) != ("missing", None)}
