"""Whether the description of a fresh log says the same as the model that reads it."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.schema import CategoricalField, MultivaluedField, Schema
from hyperrec_jax.errors import UserError

_SECTIONS = ("categorical", "numerical", "sets", "sequences", "vectors", "time", "goals", "labels")
_OWN = {"name", "separator", "column"}
"""Keys of an entry that are the fresh log's own affair."""

_OF_PREPARE = ("split", "test_fraction", "min_count")
"""Keys that say what is made of training rows."""


def compare_with_model(path: Path, values: Mapping[Any, Any], schema: Schema) -> list[str]:
    """Compares what a description says of its columns with what a model knows of them.

    Args:
      path: The description, for messages.
      values: Its keys, found to be well formed.
      schema: What the model reads.

    Returns:
      A line on what of the description is not used, for each reason.

    Raises:
      UserError: The description says something else than the model knows.
    """
    known = _known(schema)
    places = {name: section for section in _SECTIONS for name in known[section]}
    columns, keys = [], [key for key in _OF_PREPARE if values.get(key) is not None]
    for section in _SECTIONS:
        for entry in _entries(values.get(section)):
            name = entry["name"]
            if name in known[section]:
                keys += _compare_entry(path, section, entry, known[section][name])
            elif name in places and section not in ("goals", "labels"):
                raise UserError(
                    f"{path}: {section}: {name}: the model has it under {places[name]}; move it"
                )
            else:
                columns.append(f"{section}: {name}")
    lines = []
    if columns:
        lines.append(f"{path}: the model reads no such column: {', '.join(columns)}")
    if keys:
        lines.append(
            f"{path}: without effect on a fresh log, all rows of which are scored: "
            f"{', '.join(keys)}"
        )
    return lines


def _compare_entry(
    path: Path, section: str, entry: Mapping[str, Any], known: Mapping[str, Any]
) -> list[str]:
    """Raises a UserError about a key that says something else; returns those without effect."""
    without = []
    for key, given in entry.items():
        where = f"{section}: {entry['name']}: {key}"
        if key in _OWN or given is None:
            continue
        if key not in known:
            without.append(where)
        elif given != known[key]:
            its = "without one" if known[key] is None else f"with {known[key]!r}"
            raise UserError(
                f"{path}: {where}: {given!r}, and the model, which reads a fresh log as its own, "
                f"was trained {its}; leave it out"
            )
    return without


def _known(schema: Schema) -> dict[str, dict[str, dict[str, Any]]]:
    """What a description of the training rows would say: by section, name and key."""
    known: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in _SECTIONS}
    for field in schema.categorical:
        if field.name not in schema.derived:
            known["categorical"][field.name] = _of_ids(field)
    for number in schema.numerical:
        if number.name not in schema.derived:
            known["numerical"][number.name] = {
                "log1p": number.log1p,
                "missing": number.missing,
                "standardise": (number.mean, number.std) != (0, 1),
            }
    for several in schema.multivalued:
        section, length = ("sets", "max_values") if several.kind == "set" else _SEQUENCE
        known[section][several.name] = _of_ids(several) | {
            length: several.length,
            "pooling": several.pooling,
            "target": several.target,
        }
    for vector in schema.vectors:
        known["vectors"][vector.name] = {"size": vector.width, "standardise": bool(vector.mean)}
    known["time"] = {time.name: {} for time in schema.times}
    for field_of, goal in zip(schema.goals, create_goals(schema), strict=True):
        options = {option.name: getattr(goal, option.name) for option in dataclasses.fields(goal)}
        known["goals"][goal.name] = options | {"kind": goal.kind, "where": field_of.where}
    known["labels"] = known["goals"]
    return known


_SEQUENCE = ("sequences", "max_length")


def _of_ids(field: CategoricalField | MultivaluedField) -> dict[str, Any]:
    return {
        "shares": field.shares,
        "min_count": field.min_count,
        "hash_buckets": field.size - 1 if field.hashed else None,
    }


def _entries(values: Any) -> Collection[Mapping[str, Any]]:
    listed = values if isinstance(values, list) else [] if values is None else [values]
    return [entry if isinstance(entry, Mapping) else {"name": entry} for entry in listed]
