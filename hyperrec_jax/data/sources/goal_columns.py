"""The labels that a description names, and how they are read."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.chunk import Chunk
from hyperrec_jax.data.labels import create_goals, hide_outside
from hyperrec_jax.data.schema import BINARY_KINDS, GoalField, Schema
from hyperrec_jax.data.text import fits, to_numbers
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.goals import GOALS, RowGoal, create_goal
from hyperrec_jax.goals.fairness import Fairness

_NO = ("0", "no", "n", "false", "f")
_YES = ("1", "yes", "y", "true", "t")
_LABELS = dict.fromkeys(_NO, 0) | dict.fromkeys(_YES, 1)
_MISSING, _UNKNOWN = 2, 3
_OF_TEXT = (*BINARY_KINDS, "fairness")
_NOT_A_LABEL = "is not a label; labels are 0 and 1, no and yes, n and y, false and true, or f and t"
_GAPS = "; where labels may be missing, name the column under goals: in place of labels:"


def row_kinds() -> tuple[str, ...]:
    """Kinds of goals whose labels are a column."""
    return tuple(
        kind for kind, goal in GOALS.items() if isinstance(goal, type) and issubclass(goal, RowGoal)
    )


@dataclasses.dataclass(frozen=True)
class GoalColumn:
    """A goal and the column of its labels.

    Attributes:
      field: The goal.
      column: The column.
      gaps: Whether labels may be missing.
    """

    field: GoalField
    column: str
    gaps: bool

    @property
    def type(self) -> pa.DataType:
        """The column's type in a CSV file: labels of 0 and 1 may be words."""
        return pa.string() if self.field.kind in _OF_TEXT else pa.float64()


def short_form(columns: Sequence[str]) -> tuple[GoalColumn, ...]:
    """Binary goals without gaps, named as their columns."""
    return tuple(GoalColumn(GoalField(name), name, False) for name in columns)


def long_form(path: Path, entries: Sequence[Any]) -> tuple[GoalColumn, ...]:
    """The goals of the key `goals` of a description.

    Args:
      path: Path of the description, for messages.
      entries: Mappings with `name` and, if they are needed, `kind` (binary by default), `column`
        (the name by default), `where` and the options of the kind.

    Raises:
      UserError: An entry is malformed.
    """
    columns = tuple(_entry(path, entry) for entry in entries)
    names = [column.field.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: goals: two of them are named {name!r}; rename one")
    kinds = {column.field.name: column.field.kind for column in columns}
    _check_fairness(path, columns)
    above = {column.field.name: column.field.where for column in columns}
    for name, where in above.items():
        if where is None:
            continue
        if where not in names:
            raise UserError(
                f"{path}: goals: {name}: where: no goal {where!r}; there are {', '.join(names)}"
            )
        if kinds[where] == "regression":
            raise UserError(
                f"{path}: goals: {name}: where: {where} is a regression goal, whose labels are not "
                "positive or not; name one of kind binary, count or value"
            )
        seen = [name]
        while where is not None:
            if where in seen:
                raise UserError(f"{path}: goals: {name}: where: leads back to {where!r}")
            seen.append(where)
            where = above[where]
    return columns


def _check_fairness(path: Path, columns: Sequence[GoalColumn]) -> None:
    """Whether goals of fairness name a goal whose predictions say yes or no."""
    fields = {column.field.name: column.field for column in columns}
    binary = [name for name, field in fields.items() if field.kind == "binary"]
    for name, field in fields.items():
        if field.kind != "fairness":
            continue
        of = field.options["of"]
        if of not in binary:
            raise UserError(
                f"{path}: goals: {name}: of: no goal {of!r} of kind binary; "
                f"{suggestion(of, binary)}"
            )
        if fields[of].options.get("sampling_rate", 1) != 1:
            raise UserError(
                f"{path}: goals: {name}: of: {of} has a sampling_rate, and rates of thinned rows "
                "are not those of all; give all rows, or leave the goal out"
            )


def _entry(path: Path, entry: Any) -> GoalColumn:
    values = dict(entry) if isinstance(entry, dict) else {"name": entry}
    texts = {key: values.pop(key, None) for key in ("name", "kind", "column", "where")}
    for key, value in texts.items():
        if not (isinstance(value, str) and value) and (value is not None or key == "name"):
            raise UserError(
                f"{path}: goals: {key}: {value!r} is not a name; put it in quotes if it is one"
            )
    name, kind = texts["name"], texts["kind"] or "binary"
    assert name is not None
    if kind in GOALS and kind not in row_kinds():
        raise UserError(
            f"{path}: goals: {name}: kind {kind} has no loss for each row; choose one of "
            f"{', '.join(row_kinds())}"
        )
    field = GoalField(name, kind, values, texts["where"])
    try:
        create_goals(Schema("", (), (), (name,), goals=(field,)))
    except UserError as error:
        raise UserError(f"{path}: goals: {error}") from None
    if isinstance((goal := create_goal(kind, name, **values)), Fairness) and goal.measure == "deo":
        if field.where is not None:
            raise UserError(
                f"{path}: goals: {name}: where: measure deo counts the rows where {goal.of} is "
                "positive already; leave where out, or take measure: ddp"
            )
        field = dataclasses.replace(field, where=goal.of)
    return GoalColumn(field, texts["column"] or name, True)


def read_labels(chunk: Chunk, columns: Sequence[GoalColumn]) -> np.ndarray:
    """The labels of a chunk, uint8 `[row, goal]`, or float32 with NaN where one may be missing.

    Raises:
      UserError: A label does not fit its goal.
    """
    if not any(column.gaps for column in columns):
        return np.stack([_binary(chunk, column) for column in columns], axis=1)
    fields = tuple(column.field for column in columns)
    goals = create_goals(Schema("", (), (), tuple(f.name for f in fields), goals=fields))
    read = [
        _binary(chunk, column) if column.type == pa.string() else _numbers(chunk, column, goal)
        for column, goal in zip(columns, goals, strict=True)
    ]
    return hide_outside(np.stack(read, axis=1), fields).astype(np.float32)


def read_weights(chunk: Chunk, column: str) -> np.ndarray:
    """Weights of the rows of a chunk: float32 `[row]`, finite and at least 0.

    Raises:
      UserError: A weight is missing, negative or too large.
    """
    weights = chunk.numbers([column])[:, 0]
    chunk.require(column, weights >= 0, "is negative; a weight is at least 0")
    return weights


def _binary(chunk: Chunk, column: GoalColumn) -> np.ndarray:
    """Labels in any of the spellings of `_LABELS`: uint8 [row], or float with NaN for a gap."""
    member = column.field.options.get("value")
    if member is not None:  # of two groups, one of which the column names so
        texts = chunk.strings(column.column)
        there = pc.not_equal(texts, "").to_numpy(zero_copy_only=False)
        same = pc.equal(texts, member).to_numpy(zero_copy_only=False)
        return np.where(there, same, np.nan)
    known = _LABELS | ({"": _MISSING} if column.gaps else {})
    encoded = chunk.strings(column.column).dictionary_encode()
    spellings = encoded.dictionary.to_pylist()
    values = np.array([known.get(text.lower(), _UNKNOWN) for text in spellings], np.uint8)
    labels = values[encoded.indices.to_numpy()]
    told = _NOT_A_LABEL if column.gaps or "" not in spellings else _NOT_A_LABEL + _GAPS
    chunk.require(column.column, labels != _UNKNOWN, told)
    return np.where(labels == _MISSING, np.nan, labels) if column.gaps else labels


def _numbers(chunk: Chunk, column: GoalColumn, goal: RowGoal) -> np.ndarray:
    """Labels that are numbers, float [row], NaN for a gap."""
    with chunk.explained(column.column):
        values = to_numbers(chunk.batch[column.column])
    labels = values.to_numpy(zero_copy_only=False)
    missing = np.isnan(labels)
    filled = np.where(missing, 0, labels)
    chunk.require(column.column, goal.accepts(filled), f"is not {goal.label_rule}")
    chunk.require(column.column, fits(filled), "is too large; labels are kept as float32")
    return labels
