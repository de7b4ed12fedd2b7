"""What a data source gives: chunks of raw rows, and what its columns are."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.schema import GoalField, MultivaluedColumn
from hyperrec_jax.data.time_split import TimeSplit


@dataclasses.dataclass(frozen=True)
class Rows:
    """A chunk of raw rows, in the order of the source.

    Attributes:
      categorical: Per field the values [row]: int64 or string, the same for all chunks.
      numerical: Numbers [row, number], finite; the last columns are the times of the time columns,
        in microseconds since 1970, where the source has any (see `data.time_fields`).
      labels: [row, goal]; uint8 of 0 and 1 or, where the source may have other labels or none,
        float32 with NaN for a missing one; the same type for all chunks.
      groups: Group of each row, int64 [row], where the source has groups.
      true_probability: f32 [row, goal], where the source knows it.
      weights: Weight of each row, f32 [row], where the source has weights.
      times: When each row happened, int64 [row] in microseconds since 1970, where the source is
        split by time.
      multivalued: Per multi-valued field the texts of each row, lists of strings [row], whole.
      vectors: Numbers of all vector fields side by side, float64 [row, number], finite; None where
        there are none.
    """

    categorical: tuple[pa.Array, ...]
    numerical: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None
    true_probability: np.ndarray | None = None
    weights: np.ndarray | None = None
    times: np.ndarray | None = None
    multivalued: tuple[pa.LargeListArray, ...] = ()
    vectors: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class IdRule:
    """How the values of a field become ids.

    Attributes:
      min_count: Values that come fewer times in the training rows share the id of unknown values,
        which thereby is trained. Fields that share a vocabulary are counted together.
      hash_buckets: Number of ids where the hash of a value's text is its id; None where values have
        a vocabulary. See `data.hashing`.
    """

    min_count: int = 1
    hash_buckets: int | None = None


@dataclasses.dataclass(frozen=True)
class VectorColumn:
    """A column of several numbers in each row, as `schema.VectorField` describes it.

    Attributes:
      name: Column name.
      width: Numbers in each row.
      standardise: Whether to use the training rows' mean and standard deviation at each position.
      separator: What stands between two numbers of a text; None where there is no text.
    """

    name: str
    width: int
    standardise: bool = True
    separator: str | None = None


@dataclasses.dataclass(frozen=True)
class NumericalColumn:
    """How a numerical column is stored: `(f(x) - mean) / std`, `f` log1p or identity.

    Attributes:
      name: Column name.
      log1p: Whether `log(1 + x)` comes first.
      standardise: Whether to use the training rows' mean and standard deviation, else 0 and 1.
      missing: The `x` that stands for a missing number; None if none may be missing.
    """

    name: str
    log1p: bool = False
    standardise: bool = False
    missing: float | None = None


ReadRows = Callable[[Path], Iterator[Rows]]
"""Yields the rows of a split; may keep intermediate files of its own in the given folder."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Something that can be made into a store.

    Attributes:
      name: Such as `aliexpress_us`.
      categorical: Names of the fields.
      numerical: The columns and their transforms.
      tasks: Names of the goals.
      group: Name of the group column, or None.
      splits: How to read `train` and, where the source has its own, `validation` and `test`;
        without those a part of the training groups (rows, where there is no group) is set aside.
      identity: Changes when the input does (paths, sizes, times, options).
      test_fraction: Share of the training groups that is set aside for a test split that the
        source does not have.
      goals: What the labels are; all binary by default.
      weight: Name of the column of row weights, or None.
      time_split: How the training rows are split by time; None for a split by groups.
      shares: The field whose vocabulary and embeddings a categorical field uses, where it has none
        of its own.
      multivalued: The columns of sets and sequences.
      vectors: The columns of several numbers.
      time_columns: The columns of times, whose fields are the last of `categorical` and of
        `numerical`.
      id_rules: How values become ids, by the field that the vocabulary belongs to; by default every
        value of the training rows has one.
    """

    name: str
    categorical: tuple[str, ...]
    numerical: tuple[NumericalColumn, ...]
    tasks: tuple[str, ...]
    group: str | None
    splits: Mapping[str, ReadRows]
    identity: str
    test_fraction: float = 0.0
    goals: tuple[GoalField, ...] = ()
    weight: str | None = None
    time_split: TimeSplit | None = None
    shares: Mapping[str, str] = dataclasses.field(default_factory=dict)
    multivalued: tuple[MultivaluedColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()
    time_columns: tuple[str, ...] = ()
    id_rules: Mapping[str, IdRule] = dataclasses.field(default_factory=dict)

    def id_rule(self, field: str) -> IdRule:
        """The rule of the field that a vocabulary belongs to."""
        return self.id_rules.get(field, IdRule())
