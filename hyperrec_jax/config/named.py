"""Options of a model that speak of single fields or goals, checked against the data."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperrec_jax.data.inputs import field_names
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.models.base import Names
from hyperrec_jax.options import expected

Config = dict[str, Any]

_PRETRAINED = ("file", "trainable", "width", "fingerprint")


def names_of(schema: Schema) -> Names:
    """The names that a model's options may speak of."""
    return Names(
        tables=tuple(table.name for table in schema.tables),
        vectors=tuple(field.name for field in schema.vectors),
        goals=_predicted(schema),
        fields=field_names(schema),
    )


def by_table(options: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Options of a model with the names of vocabularies in place of those of fields.

    Args:
      options: As they stand in a config.
      schema: The data.

    Raises:
      UserError: no such field or goal, two fields that share a vocabulary are told apart, or two
        widths that must be one differ.
    """
    result = dict(options)
    if _mapping("embedding_dims", options):
        dims = _by_table("embedding_dims", options["embedding_dims"], schema, vectors=True)
        result["embedding_dims"] = dims
    if _mapping("pretrained", options):
        files = _by_table("pretrained", options["pretrained"], schema, vectors=False)
        hashed = [table.name for table in schema.tables if table.hashed]
        for name, entry in files.items():
            _check_pretrained(name, entry)
            if name in hashed:
                raise UserError(
                    f"model.pretrained.{name}: its ids are hashes, which many values share, so "
                    "that a vector belongs to none; prepare the data without its hash_buckets"
                )
            width = result.get("embedding_dims", {}).get(name)
            if width is not None and width != entry.get("width", width):
                raise UserError(
                    f"model.pretrained.{name}: {entry['file']} has vectors of {entry['width']} "
                    f"numbers and model.embedding_dims says {width}; leave that out"
                )
        result["pretrained"] = files
    if _mapping("goal_tower_widths", options):
        for name in options["goal_tower_widths"]:
            goals = _predicted(schema)
            if name not in goals:
                raise UserError(
                    f"model.goal_tower_widths: no goal {name!r} with a tower; "
                    f"{suggestion(name, goals)}"
                )
    return result


def check_targets(dims: Mapping[int, int], default: int, schema: Schema) -> None:
    """Whether histories have the width of the targets that they are compared with.

    Args:
      dims: Width of each vocabulary that differs from the default, by position.
      default: Width of the others.
      schema: The data.

    Raises:
      UserError: one has another.
    """
    fields = {field.name: field for field in schema.categorical}
    for field in schema.multivalued:
        if field.target is None:
            continue
        widths = [dims.get(schema.table_of(one), default) for one in (field, fields[field.target])]
        if widths[0] != widths[1]:
            raise UserError(
                f"field {field.name!r} has vectors of {widths[0]} numbers and its target "
                f"{field.target!r} of {widths[1]}, and they are read together; give both one width "
                "in model.embedding_dims"
            )


def with_vector_files(config: Config) -> Config:
    """The config with the width and the fingerprint of each file of vectors written out.

    A run that is read again needs its files no more.

    Args:
      config: A nested dictionary with the sections of `config/sections.py`.

    Raises:
      UserError: a file is missing or can't be read.
    """
    model = dict(config["model"])
    if not _mapping("pretrained", model):
        return config
    model["pretrained"] = {
        name: _described(name, entry) for name, entry in model["pretrained"].items()
    }
    return config | {"model": model}


def _predicted(schema: Schema) -> tuple[str, ...]:
    """Names of the goals that a model has outputs for."""
    return tuple(goal.name for goal in create_goals(schema) if goal.outputs)


def _described(name: str, entry: Any) -> dict[str, Any]:
    from hyperrec_jax.data.vectors_file import vectors_of  # here: slow to import, and rarely used

    _check_pretrained(name, entry)
    vectors = vectors_of(Path(entry["file"]))
    return {
        "file": str(entry["file"]),
        "trainable": entry.get("trainable", False),
        "width": vectors.width,
        "fingerprint": vectors.fingerprint,
    }


def _mapping(option: str, options: Mapping[str, Any]) -> bool:
    """Whether an option names something; what is no mapping the model itself refuses."""
    return isinstance(options.get(option), Mapping) and bool(options[option])


def _by_table(
    option: str, values: Mapping[str, Any], schema: Schema, vectors: bool
) -> dict[str, Any]:
    tables = {field.name: field.shares or field.name for field in schema.id_fields}
    if vectors:
        tables |= {field.name: field.name for field in schema.vectors}
    result: dict[str, Any] = {}
    for name, value in values.items():
        if name in [field.name for field in schema.numerical]:
            raise UserError(
                f"model.{option}: {name!r} is a number, and all numbers become one vector of "
                f"model.embedding_dim; name one of {_list(tables)}"
            )
        if name not in tables:
            told = suggestion(str(name), tables)
            raise UserError(f"model.{option}: no field {name!r} of ids; {told}")
        table = tables[name]
        if table in result and result[table] != value:
            raise UserError(
                f"model.{option}: {name!r} shares the vocabulary of {table!r}, and both are given, "
                f"as {value!r} and {result[table]!r}; name one"
            )
        result[table] = value
    return result


def _check_pretrained(name: str, entry: Any) -> None:
    where = f"model.pretrained.{name}"
    if not (isinstance(entry, Mapping) and isinstance(entry.get("file"), str | Path)):
        raise UserError(
            f"{where}: {entry!r} names no file of vectors, such as {{'file': 'vectors.parquet', "
            "'trainable': False}"
        )
    for key in entry:
        if key not in _PRETRAINED:
            raise UserError(f"{where}: no option {key!r}; {suggestion(key, _PRETRAINED[:2])}")
    if not isinstance(entry.get("trainable", False), bool):
        raise UserError(f"{where}.trainable is {entry['trainable']!r}: give {expected(bool)}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
