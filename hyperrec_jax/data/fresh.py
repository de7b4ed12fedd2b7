"""A fresh log, read with the vocabulary and the scaling of a model that is trained already."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from hyperrec_jax.data.encode import encode_parts
from hyperrec_jax.data.files import explain_write_errors
from hyperrec_jax.data.fresh_checks import compare_with_model
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.source import NumericalColumn, Source, VectorColumn
from hyperrec_jax.data.sources.csv_files import description_source
from hyperrec_jax.data.sources.description import Description, read_description, read_values
from hyperrec_jax.data.sources.goal_columns import GoalColumn
from hyperrec_jax.data.staging import Part, stage
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.store_writer import StoreWriter
from hyperrec_jax.errors import UserError

logger = logging.getLogger(__name__)

_TABLES = (".csv", ".csv.gz", ".parquet")


def store_of_fresh(
    source: Source, folder: Path, schema: Schema, vocabulary: Sequence[pa.Array]
) -> Store:
    """Makes a store whose test split has all rows of a source, encoded as a model reads them.

    Args:
      source: The rows, with the columns of the schema in its order; see `fresh_source`.
      folder: A folder for the store and what is made on the way to it.
      schema: What the model reads.
      vocabulary: The values behind its ids.

    Raises:
      UserError: A value can't be used.
    """
    staging, output = folder / "staging", folder / "store"
    staging.mkdir(parents=True)
    with explain_write_errors(folder):
        parts = [
            dataclasses.replace(
                Part(name, stage(source, name, read, staging), len(source.categorical)), name="test"
            )
            for name, read in source.splits.items()
        ]
        gaps = any(part.has_gaps() for part in parts)
        fresh = dataclasses.replace(schema, label_dtype="float32") if gaps else schema
        with StoreWriter(output, fresh, vocabulary, fit_goals=False) as writer:
            encode_parts(parts, schema, vocabulary, writer)
    return Store.open(output)


def fresh_source(path: Path, schema: Schema) -> Source:
    """A file of rows, or a description of several, as a source of a model's columns.

    Args:
      path: A `.csv`, `.csv.gz` or `.parquet` file whose columns are named as the model's fields and
        goals; or a description, where goals may have other columns.
      schema: What the model reads.

    Raises:
      UserError: There is no such file, or the description lacks a field or a goal of the model, or
        says something else of it than the model knows.
    """
    if path.name.lower().endswith(_TABLES):
        if not path.is_file():
            raise UserError(f"{path}: no such file; name the fresh log, or its description")
        return description_source(describe_fresh(schema, {"train": [path]}), path)
    given = read_description(path)
    columns = {goal.field.name: goal.column for goal in given.goals}
    fields = {*given.categorical, *(column.name for column in given.numerical), *given.lists()}
    fields.update(given.times)
    wanted = [*(f.name for f in schema.id_fields), *(f.name for f in schema.numerical)]
    wanted = [name for name in wanted if name not in schema.derived]
    wanted += [f.name for f in schema.vectors] + [f.name for f in schema.times]
    for what, names, there in (("field", wanted, fields), ("goal", schema.tasks, set(columns))):
        missing = [name for name in names if name not in there]
        if missing:
            raise UserError(f"{path}: names no {what} {missing[0]!r}, which the model has; add it")
    for line in compare_with_model(path, read_values(path), schema):
        logger.warning("%s", line)
    described = describe_fresh(schema, given.files, columns)
    described = dataclasses.replace(
        described,
        dialect=given.dialect,
        group=given.group or schema.group,
        weight=given.weight or schema.weight,
    )
    # What a file of text has between two values is its own affair.
    written = {c.name: c.separator for c in given.multivalued}
    written |= {c.name: c.separator for c in given.vectors}
    described = dataclasses.replace(
        described,
        multivalued=tuple(
            dataclasses.replace(c, separator=written[c.name] or c.separator)
            for c in described.multivalued
        ),
        vectors=tuple(
            dataclasses.replace(c, separator=written[c.name] or c.separator)
            for c in described.vectors
        ),
    )
    return description_source(described, path)


def describe_fresh(
    schema: Schema, files: dict[str, list[Path]], columns: Mapping[str, str] | None = None
) -> Description:
    """The description of rows that have what a model reads.

    Args:
      schema: What the model reads.
      files: Files of the rows; empty for a frame.
      columns: Column of each goal's labels; by default that of the goal's name.
    """
    columns = columns or {}
    return Description(
        name=schema.source,
        files=files,
        test_fraction=0.0,
        categorical=tuple(f.name for f in schema.categorical if f.name not in schema.derived),
        numerical=tuple(
            NumericalColumn(field.name, field.log1p, False, field.missing)
            for field in schema.numerical
            if field.name not in schema.derived
        ),
        goals=tuple(
            GoalColumn(goal, columns.get(goal.name, goal.name), True) for goal in schema.goals
        ),
        group=schema.group,
        weight=schema.weight,
        shares={field.name: field.shares for field in schema.categorical if field.shares},
        multivalued=tuple(field.column() for field in schema.multivalued),
        vectors=tuple(
            VectorColumn(field.name, field.width, separator=field.separator)
            for field in schema.vectors
        ),
        times=tuple(field.name for field in schema.times),
    )
