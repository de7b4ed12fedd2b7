"""What a row is: its fields, its goals and its group.

Everything downstream (models, serving, reports) learns about the data from a `Schema` alone.
"""

import dataclasses
from functools import cached_property
from typing import Any, Literal

Pooling = Literal["mean", "sum", "attention", "target_attention", "transformer"]
"""How the vectors of a row's values become one; see `hyperrec_jax.models.pooling` and
`hyperrec_jax.models.transformer`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HasIds:
    """What a field knows of the vocabulary that it uses, its own or another field's.

    Attributes:
      hashed: Whether values have no vocabulary: the hash of a value's text is its id, in
        `[1, size)`, and id 0 is never used; see `data.hashing`.
      min_count: Values that came fewer times in the training rows have id 0. It is told, and no
        difference between two schemas: the vocabulary is what counts.
      rare: Number of those values; 0 for a field that uses another one's vocabulary.
    """

    hashed: bool = False
    min_count: int = dataclasses.field(default=1, compare=False)
    rare: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class CategoricalField(_HasIds):
    """A field of ids; `_HasIds` has further attributes.

    Attributes:
      name: Column name.
      size: Number of ids, in `[0, size)`. Id 0 is reserved for values that have no id of their own
        (out of vocabulary), so that `size - 1` values or hash buckets have one.
      shares: The field whose vocabulary and embeddings it uses, or None for its own.
    """

    name: str
    size: int
    shares: str | None = None


@dataclasses.dataclass(frozen=True)
class MultivaluedColumn:
    """A column of any number of values in a row: a set, or a sequence (a history, newest last).

    Attributes:
      name: Column name.
      kind: `set` or `sequence`. Of too many values, a set keeps the first, a sequence the last.
      length: Values that are kept of a row; a row of fewer is padded with -1.
      pooling: How their vectors become one.
      shares: The field whose vocabulary and embeddings it uses, or None for its own.
      target: The categorical field that `target_attention` or `transformer` reads the values for.
      separator: What stands between two values where they come as text; None where they may not.
    """

    name: str
    kind: Literal["set", "sequence"]
    length: int
    pooling: Pooling
    shares: str | None = None
    target: str | None = None
    separator: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultivaluedField(_HasIds, MultivaluedColumn):
    """A multi-valued column whose vocabulary is known; both bases have further attributes.

    Attributes:
      size: Number of ids of its vocabulary, as that of a `CategoricalField`.
    """

    size: int

    def column(self) -> MultivaluedColumn:
        """The column that it was made from."""
        names = [field.name for field in dataclasses.fields(MultivaluedColumn)]
        return MultivaluedColumn(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class VectorField:
    """A field of several numbers that belong together, such as the embedding of a picture.

    Attributes:
      name: Column name.
      width: Numbers in each row.
      mean: Subtracted from the number at each position; empty where they are stored as they are.
      std: Divided by at each position, likewise.
      separator: What stands between two numbers where they come as text; None where they may not.
    """

    name: str
    width: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    separator: str | None = None


@dataclasses.dataclass(frozen=True)
class TimeField:
    """A column of times, which `data.time_fields` makes into two fields of ids and one of numbers.

    Those are among the fields of the schema, after all others of their kind.

    Attributes:
      name: Column name.
      newest: The newest time of the training rows, in microseconds since 1970.
    """

    name: str
    newest: int

    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the fields that it becomes."""
        return derived_names(self.name)


def derived_names(time: str) -> tuple[str, str, str]:
    """Names of the fields that a column of times becomes: two of ids, then one of numbers."""
    return f"{time}_hour", f"{time}_weekday", f"{time}_age_days"


@dataclasses.dataclass(frozen=True)
class Table:
    """A vocabulary and its embeddings, which one field or several use.

    Attributes:
      name: Name of the field that it belongs to.
      size: Number of ids, id 0 included.
      hashed: Whether the ids are hashes, and it has no vocabulary.
    """

    name: str
    size: int
    hashed: bool = False


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


BINARY_KINDS = ("binary", "variety")
"""Kinds of goals with labels of 0 and 1 and one output, a log-odds."""


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

    @property
    def binary(self) -> bool:
        """Whether its labels are 0 and 1, and what the model gives for it is a log-odds."""
        return self.kind in BINARY_KINDS


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
      multivalued: Fields of any number of ids, in the order of the stored matrix of them.
      vectors: Fields of several numbers, in the order of the stored matrix of them.
      times: Columns of times that some of the categorical and numerical fields are made of.
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
    multivalued: tuple[MultivaluedField, ...] = ()
    vectors: tuple[VectorField, ...] = ()
    times: tuple[TimeField, ...] = ()

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
    def id_fields(self) -> tuple[CategoricalField | MultivaluedField, ...]:
        """All fields of ids: the categorical, then the multi-valued ones."""
        return (*self.categorical, *self.multivalued)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The vocabularies, in the order of the fields of ids that they belong to."""
        return tuple(Table(f.name, f.size, f.hashed) for f in self.id_fields if f.shares is None)

    @property
    def table_sizes(self) -> tuple[int, ...]:
        """Number of ids of each table, out-of-vocabulary id included."""
        return tuple(table.size for table in self.tables)

    def table_of(self, field: CategoricalField | MultivaluedField) -> int:
        """Position among `tables` of the one that a field uses."""
        return [table.name for table in self.tables].index(field.shares or field.name)

    @property
    def derived(self) -> frozenset[str]:
        """Names of the fields that are made of times and are no columns of raw rows."""
        return frozenset(name for field in self.times for name in field.derived)

    @property
    def num_numerical(self) -> int:
        return len(self.numerical)

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def plain(self) -> bool:
        """Whether all goals are binary, with a label in every row, and rows have no weights."""
        binary = all(goal.binary for goal in self.goals)
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
            multivalued=tuple(MultivaluedField(**f) for f in values.get("multivalued", ())),
            vectors=tuple(
                VectorField(**f | {"mean": tuple(f["mean"]), "std": tuple(f["std"])})
                for f in values.get("vectors", ())
            ),
            times=tuple(TimeField(**f) for f in values.get("times", ())),
        )


_LEFT_OUT = (
    ("missing", None),
    ("shares", None),
    ("hashed", False),
    ("min_count", 1),
    ("rare", 0),
    ("multivalued", ()),
    ("vectors", ()),
    ("times", ()),
)


def _without_defaults(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leaves out what is not set: stores that were made before there was such a thing keep their
    fingerprints."""
    return {key: value for key, value in items if (key, value) not in _LEFT_OUT}
