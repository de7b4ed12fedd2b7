"""The sets, sequences, vectors and times that a description names, and how they are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.chunk import Chunk
from hyperrec_jax.data.multivalued import to_lists, to_vectors
from hyperrec_jax.data.schema import MultivaluedColumn, Pooling, derived_names
from hyperrec_jax.data.source import NumericalColumn, VectorColumn
from hyperrec_jax.data.sources.id_rules import RULE_KEYS
from hyperrec_jax.data.times import to_times
from hyperrec_jax.errors import UserError

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MAX_VALUES = 20
"""Values of a set that are kept where a description does not say."""
MAX_LENGTH = 50
"""Values of a sequence that are kept where a description does not say."""

_MOST = 100_000
_KEYS = {
    "categorical": ("name", "shares", *RULE_KEYS),
    "sets": ("name", "max_values", "pooling", "separator", "shares", "target", *RULE_KEYS),
    "sequences": ("name", "max_length", "pooling", "separator", "shares", "target", *RULE_KEYS),
    "vectors": ("name", "size", "standardise", "separator"),
}


def read_categorical(path: Path, entries: Sequence[Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The key `categorical` of a description: names, or mappings with `name` and `shares`.

    Args:
      path: Path of the description, for messages.
      entries: The entries.

    Returns:
      The names, and the field whose vocabulary each one shares that has none of its own.

    Raises:
      UserError: An entry is malformed.
    """
    names, shares = [], {}
    for entry in entries:
        values = _mapping(path, "categorical", entry)
        names.append(values["name"])
        if values.get("shares") is not None:
            shares[values["name"]] = _text(path, "categorical: shares", values["shares"])
    return tuple(names), shares


def read_multivalued(
    path: Path, key: Literal["sets", "sequences"], entries: Sequence[Any]
) -> tuple[MultivaluedColumn, ...]:
    """The key `sets` or `sequences` of a description.

    Args:
      path: Path of the description, for messages.
      key: The key.
      entries: Names, or mappings with `name`, `max_values` (of a sequence `max_length`), `pooling`,
        `separator`, `shares` and `target`.

    Raises:
      UserError: An entry is malformed.
    """
    return tuple(_multivalued(path, key, _mapping(path, key, entry)) for entry in entries)


def _multivalued(path: Path, key: str, values: Mapping[str, Any]) -> MultivaluedColumn:
    where = f"{key}: {values['name']}"
    is_set = key == "sets"
    size, default = ("max_values", MAX_VALUES) if is_set else ("max_length", MAX_LENGTH)
    shares, target = (
        None if values.get(name) is None else _text(path, f"{where}: {name}", values[name])
        for name in ("shares", "target")
    )
    pooling = values.get("pooling")
    if pooling is None:
        pooling = "target_attention" if not is_set and (target or shares) else "mean"
    if pooling not in POOLINGS:
        _refuse(path, f"{where}: pooling: {pooling!r}; there are {', '.join(POOLINGS)}")
    if pooling == "transformer" and is_set:
        _refuse(
            path, f"{where}: pooling: a transformer reads the order of values, and a set has none"
        )
    if pooling in ("target_attention", "transformer"):
        target = target or shares
        if target is None and pooling == "target_attention":
            _refuse(
                path,
                f"{where}: pooling: target_attention compares the values with those of a "
                "categorical field; name it, as in `target: item_id`",
            )
    elif target is not None:
        _refuse(
            path,
            f"{where}: target: only pooling: target_attention and transformer have one; leave it "
            "out",
        )
    return MultivaluedColumn(
        name=values["name"],
        kind="set" if is_set else "sequence",
        length=_count(path, f"{where}: {size}", values.get(size, default)),
        pooling=pooling,
        shares=shares,
        target=target,
        separator=_separator(path, where, values.get("separator")),
    )


def read_vectors(path: Path, entries: Sequence[Any]) -> tuple[VectorColumn, ...]:
    """The key `vectors` of a description.

    Args:
      path: Path of the description, for messages.
      entries: Mappings with `name`, `size`, `standardise` and `separator`.

    Raises:
      UserError: An entry is malformed.
    """
    columns = []
    for entry in entries:
        values = _mapping(path, "vectors", entry)
        where = f"vectors: {values['name']}"
        if "size" not in values:
            _refuse(path, f"{where}: say how many numbers each row has, as in `size: 64`")
        standardise = values.get("standardise", True)
        if not isinstance(standardise, bool):
            _refuse(path, f"{where}: standardise: {standardise!r} is neither true nor false")
        columns.append(
            VectorColumn(
                values["name"],
                _count(path, f"{where}: size", values["size"]),
                standardise,
                _separator(path, where, values.get("separator")),
            )
        )
    return tuple(columns)


def check_sharing(
    path: Path,
    categorical: Sequence[str],
    shares: Mapping[str, str],
    multivalued: Sequence[MultivaluedColumn],
) -> None:
    """Whether the fields that others share or compare with are there, and have their own ids.

    Raises:
      UserError: They are not.
    """
    own = [name for name in categorical if name not in shares]
    own += [column.name for column in multivalued if column.shares is None]
    sharing = [*shares.items(), *((c.name, c.shares) for c in multivalued if c.shares)]
    for name, other in sharing:
        if other not in own:
            there = ", ".join(each for each in own if each != name) or "none"
            _refuse(
                path, f"{name}: shares: no field {other!r} with ids of its own; there are: {there}"
            )
    for column in multivalued:
        if column.target is not None and column.target not in categorical:
            there = ", ".join(categorical) or "none"
            _refuse(
                path,
                f"{column.name}: target: no categorical field {column.target!r}; there are: "
                f"{there}",
            )


def read_lists(chunk: Chunk, column: MultivaluedColumn) -> pa.LargeListArray:
    """The texts of a multi-valued column, as `data.multivalued.to_lists` gives them.

    Raises:
      UserError: A value is no list.
    """
    with chunk.explained(column.name):
        return to_lists(chunk.batch[column.name], column.separator)


def read_vector_columns(chunk: Chunk, columns: Sequence[VectorColumn]) -> np.ndarray | None:
    """The numbers of all vectors side by side, float64 `[row, number]`; None without vectors.

    Raises:
      UserError: A value is no vector of its column's size.
    """
    matrices = []
    for column in columns:
        with chunk.explained(column.name):
            matrices.append(to_vectors(chunk.batch[column.name], column.width, column.separator))
    return np.concatenate(matrices, axis=1) if matrices else None


def read_times(chunk: Chunk, column: str, unit: str | None = None) -> np.ndarray:
    """A column of times in microseconds since 1970, int64 `[row]`.

    Args:
      chunk: The rows.
      column: Name of the column.
      unit: As for `data.times.to_times`.

    Raises:
      UserError: A value is no time.
    """
    with chunk.explained(column):
        return to_times(chunk.batch[column], unit)


def with_derived(
    categorical: Sequence[str], numerical: Sequence[NumericalColumn], times: Sequence[str]
) -> tuple[tuple[str, ...], tuple[NumericalColumn, ...]]:
    """The columns of ids and of numbers, and after them the fields that columns of times become."""
    names = [derived_names(time) for time in times]
    ids = [name for hour, weekday, _ in names for name in (hour, weekday)]
    ages = [NumericalColumn(age, standardise=True) for *_, age in names]
    return (*categorical, *ids), (*numerical, *ages)


def _mapping(path: Path, key: str, entry: Any) -> dict[str, Any]:
    values = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    _text(path, key, values.get("name"))
    unknown = [name for name in values if name not in _KEYS[key]]
    if unknown:
        known = ", ".join(sorted(_KEYS[key]))
        _refuse(path, f"{key}: {values['name']}: unknown key {unknown[0]!r}; there are {known}")
    return values


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        _refuse(path, f"{key}: {value!r} is not a name; put it in quotes if it is one")
    return value


def _count(path: Path, where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        _refuse(path, f"{where}: {value!r} is not a whole number from 1 to {_MOST:,}")
    return value


def _separator(path: Path, where: str, value: Any) -> str | None:
    value = "\t" if value == "\\t" else value
    if value is not None and (not isinstance(value, str) or not value or value in '"\r\n'):
        _refuse(path, f'{where}: separator: {value!r} is no text such as "|"')
    return value


def _refuse(path: Path, why: str) -> NoReturn:
    raise UserError(f"{path}: {why}")
