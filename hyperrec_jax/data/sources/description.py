"""The small YAML or JSON file that names the columns of a user's own data."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from hyperrec_jax.data.columns import SPLITS
from hyperrec_jax.data.csv_reader import Dialect, make_dialect
from hyperrec_jax.data.schema import MultivaluedColumn, derived_names
from hyperrec_jax.data.source import IdRule, NumericalColumn, VectorColumn
from hyperrec_jax.data.sources.field_columns import (
    check_sharing,
    read_categorical,
    read_multivalued,
    read_vectors,
)
from hyperrec_jax.data.sources.goal_columns import GoalColumn, long_form, short_form
from hyperrec_jax.data.sources.id_rules import read_id_rules
from hyperrec_jax.data.time_split import TimeSplit
from hyperrec_jax.errors import UserError

SCHEMA_EXAMPLE = """\
  name: my_shop                       # optional: the name of the store
  files:                              # .csv, .csv.gz or .parquet; lists and * are fine
    train: logs/2025-*.csv
    test: logs/2026-01.csv            # optional, else test_fraction of the training groups
    validation: logs/2026-02.csv      # optional, else --validation-fraction of them
  test_fraction: 0.1                  # optional
  # In place of test_fraction, the newest rows: a duration, a share, or the date they begin at
  # split: {by: time, column: shown_at, test: 7d, validation: 7d}
  categorical: [country, item_id]     # text, integers, booleans or dates
  numerical:                          # standardised on the training rows unless it says otherwise
    - age
    - {name: price, log1p: true}
    - {name: score, standardise: false}
    - {name: rating, missing: 0}      # what stands for an empty cell; else it is an error
  # Values that come fewer times in training share one id; hash_buckets needs no vocabulary:
  # min_count: 5                    # of all fields, or of one:
  # categorical: [{name: item_id, min_count: 10}, {name: user_id, hash_buckets: 100000}]
  # Columns of several values, as lists or as text with a separator (docs/data.md):
  # sets:
  #   - {name: tags, separator: "|"}    # also pooling: mean|sum|attention, max_values: 20
  # sequences:
  #   - {name: history, max_length: 50, shares: item_id}   # newest last
  # vectors:
  #   - {name: picture, size: 64}       # so many numbers in each row
  # Columns of times, which become the hour, the day of the week and the age in days:
  # time: [shown_at]
  labels: [click, purchase]           # a column for each task: 0 and 1, no and yes, n and y, ...
  # In place of labels, where they are more than 0 and 1, or may be missing (docs/goals.md):
  # goals:
  #   - click                           # of kind binary, like those of labels
  #   - {name: buy, column: purchase, where: click}   # has labels on clicked rows only
  #   - {name: watch_time, kind: value}               # or regression, count
  # weight: times_shown               # optional: how much a row counts, at least 0
  group: session_id                   # optional: the list a row belongs to; a group stays whole
  separator: ","                      # optional: of the CSV files, such as ";" or "\\t"
  encoding: utf-8                     # optional: of the CSV files, such as utf-16 or latin-1
"""

_KEYS = {"name", "files", "test_fraction", "categorical", "numerical", "labels", "group"}
_KEYS |= {"goals", "weight", "separator", "encoding", "split"}
_KEYS |= {"sets", "sequences", "vectors", "time", "min_count"}
_SEE_HELP = "see `hyperrec prepare csv --help` for an example"


@dataclasses.dataclass(frozen=True)
class Description:
    """The columns of a user's own data.

    Attributes:
      name: Name of the store.
      files: The files of each split; empty for a frame.
      test_fraction: Share of the training groups for a test split that is not among the files.
      categorical: Columns of ids.
      numerical: Columns of numbers and their transforms.
      goals: The goals and their columns.
      group: Column of the list that a row belongs to, or None.
      weight: Column of the weight of a row, or None.
      dialect: How the CSV files are written.
      time_split: How the rows are split by time; None for a split by groups or by files.
      shares: The field whose vocabulary each categorical column shares that has none of its own.
      multivalued: Columns of sets and sequences.
      vectors: Columns of several numbers.
      times: Columns of times, which become fields of ids and of numbers.
      id_rules: How values become ids, for the fields where that is not the default.
    """

    name: str
    files: dict[str, list[Path]]
    test_fraction: float
    categorical: tuple[str, ...]
    numerical: tuple[NumericalColumn, ...]
    goals: tuple[GoalColumn, ...]
    group: str | None
    weight: str | None = None
    dialect: Dialect = Dialect()  # noqa: RUF009 - frozen
    time_split: TimeSplit | None = None
    shares: dict[str, str] = dataclasses.field(default_factory=dict)
    multivalued: tuple[MultivaluedColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()
    times: tuple[str, ...] = ()
    id_rules: dict[str, IdRule] = dataclasses.field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the goals."""
        return tuple(goal.field.name for goal in self.goals)

    def types(self) -> dict[str, pa.DataType]:
        """Column types of a CSV file: ids, and labels that may be words, are text."""
        text = [*self.categorical, *([self.group] if self.group else []), *self.lists()]
        numbers = [*(c.name for c in self.numerical), *([self.weight] if self.weight else [])]
        labels = {goal.column: goal.type for goal in self.goals}
        split = [self.time_split.column] if self.time_split else []
        times = dict.fromkeys([*split, *self.times], pa.string())
        return (
            times | dict.fromkeys(numbers, pa.float64()) | dict.fromkeys(text, pa.string()) | labels
        )

    def lists(self) -> dict[str, pa.DataType]:
        """Types of the columns whose cells hold several values, where a file has lists."""
        ids = {column.name: pa.large_list(pa.string()) for column in self.multivalued}
        return ids | {column.name: pa.large_list(pa.float64()) for column in self.vectors}

    def nullable(self) -> set[str]:
        """Columns of numbers that may have missing ones."""
        return {*self.missing(), *(goal.column for goal in self.goals if goal.gaps)}

    def missing(self) -> dict[str, float]:
        """What stands for a missing number, for the columns that may have any."""
        return {c.name: c.missing for c in self.numerical if c.missing is not None}


def read_description(path: Path) -> Description:
    """Reads a description file.

    Args:
      path: YAML or JSON; see `SCHEMA_EXAMPLE`.

    Raises:
      UserError: It is missing, malformed, or names files that are not there.
    """
    values = read_values(path)
    description = parse_description(path, values)
    files = _files(path, values.get("files"))
    for split in ("test", "validation"):
        if split in files and getattr(description.time_split, split, None):
            raise UserError(f"{path}: has both files: {split} and split: {split}; leave one out")
    return dataclasses.replace(description, files=files)


def read_values(path: Path) -> dict[Any, Any]:
    """The keys of a description file, not looked at yet.

    Raises:
      UserError: It is missing, or no mapping in YAML or JSON.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such description file; {_SEE_HELP}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML or JSON ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping with the keys files and labels; {_SEE_HELP}")
    return values


def parse_description(path: Path, values: dict[Any, Any]) -> Description:
    """The columns that a description names, without its files.

    Args:
      path: Where it stands, for messages and for a name.
      values: Its keys.

    Raises:
      UserError: It is malformed.
    """
    _refuse_unknown(path, values, _KEYS, "key")
    categorical, shares = read_categorical(path, _list(values.get("categorical")))
    description = Description(
        name=_text(path, "name", values.get("name", path.stem)),
        files={},
        test_fraction=_fraction(path, values.get("test_fraction", 0.1)),
        categorical=categorical,
        shares=shares,
        multivalued=(
            *read_multivalued(path, "sets", _list(values.get("sets"))),
            *read_multivalued(path, "sequences", _list(values.get("sequences"))),
        ),
        vectors=read_vectors(path, _list(values.get("vectors"))),
        times=_names(path, "time", values.get("time")),
        numerical=tuple(_numerical(path, entry) for entry in _list(values.get("numerical"))),
        goals=_goals(path, values),
        weight=None if values.get("weight") is None else _text(path, "weight", values["weight"]),
        group=None if values.get("group") is None else _text(path, "group", values["group"]),
        dialect=make_dialect(
            f"{path}: ", values.get("separator", ","), values.get("encoding", "utf-8")
        ),
        time_split=_time_split(path, values),
        id_rules=read_id_rules(path, values),
    )
    columns = [*description.categorical, *(c.name for c in description.numerical)]
    columns += [c.name for c in description.multivalued] + [c.name for c in description.vectors]
    columns += [name for time in description.times for name in (time, *derived_names(time))]
    if not columns:
        raise UserError(f"{path}: at least one categorical or numerical column is needed")
    # A goal of whole lists takes its labels from the column of another goal.
    columns += [goal.column for goal in description.goals if goal.field.kind != "variety"]
    columns += [description.weight] if description.weight else []
    repeated = {name for name in columns if columns.count(name) > 1}
    group = description.group
    others = [goal.column for goal in description.goals]
    if group and group in (description.weight, *others, *description.lists(), *description.times):
        repeated.add(group)
    if repeated:
        raise UserError(f"{path}: column {min(map(str, repeated))!r} is used twice")
    check_sharing(path, categorical, shares, description.multivalued)
    return description


def _files(path: Path, values: Any) -> dict[str, list[Path]]:
    if not isinstance(values, dict) or "train" not in values:
        raise UserError(f"{path}: files: must name at least the train files; {_SEE_HELP}")
    _refuse_unknown(path, values, set(SPLITS), "split")
    files = {}
    for split in (split for split in SPLITS if split in values):
        found = []
        for pattern in _names(path, f"files: {split}", values[split]):
            matches = (
                sorted(path.parent.glob(pattern)) if "*" in pattern else [path.parent / pattern]
            )
            matches = [match for match in matches if match.is_file()]
            if not matches:
                raise UserError(f"{path}: files: {split}: no file {path.parent / pattern}")
            found += matches
        files[split] = found
    return files


def _goals(path: Path, values: dict[Any, Any]) -> tuple[GoalColumn, ...]:
    labels, entries = _names(path, "labels", values.get("labels")), _list(values.get("goals"))
    if labels and entries:
        raise UserError(
            f"{path}: has both labels and goals; name the columns of labels under goals, too"
        )
    if not labels and not entries:
        raise UserError(f"{path}: labels: at least one column of 0 and 1 is needed; {_SEE_HELP}")
    return long_form(path, entries) if entries else short_form(labels)


def _time_split(path: Path, values: dict[Any, Any]) -> TimeSplit | None:
    if values.get("split") is None:
        return None
    time_split = TimeSplit.parse(values["split"], f"{path}: split")
    if time_split.test and "test_fraction" in values:
        raise UserError(f"{path}: has both test_fraction and split: test; leave one of them out")
    return time_split


def _numerical(path: Path, entry: Any) -> NumericalColumn:
    values = entry if isinstance(entry, dict) else {"name": entry}
    known = {"name", "log1p", "standardise", "missing"}
    _refuse_unknown(path, values, known, "key of a numerical column")
    flags = {
        key: values.get(key, default) for key, default in (("log1p", False), ("standardise", True))
    }
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{path}: numerical: {key}: {value!r} is neither true nor false")
    missing = values.get("missing")
    if missing is not None and (isinstance(missing, bool) or not _finite(missing)):
        raise UserError(f"{path}: numerical: missing: {missing!r} is not a number")
    return NumericalColumn(
        _text(path, "numerical", values.get("name")),
        missing=None if missing is None else float(missing),
        **flags,
    )


def _finite(value: Any) -> bool:
    return isinstance(value, float | int) and abs(value) <= float(np.finfo(np.float32).max)


def _refuse_unknown(path: Path, values: dict[Any, Any], known: set[str], what: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise UserError(
            f"{path}: unknown {what} {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )


def _fraction(path: Path, value: Any) -> float:
    if not isinstance(value, float | int) or not 0 < value < 1:
        raise UserError(f"{path}: test_fraction: {value!r} is not a number between 0 and 1")
    return float(value)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(path, key, entry) for entry in _list(value))


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{path}: {key}: {value!r} is not a name; put it in quotes if it is one")
    return value


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())
