"""Which table the ids of each column are looked up in, and what becomes of them in a model."""

import dataclasses

from hyperrec_jax.data.schema import Pooling, Schema


@dataclasses.dataclass(frozen=True)
class Lookup:
    """A categorical column and the table of its ids, as positions among columns and tables."""

    column: int
    table: int


@dataclasses.dataclass(frozen=True)
class PooledIds:
    """A multi-valued field, a run of columns of the matrix of all of them.

    Attributes:
      table: Position of its table.
      length: Number of its columns.
      pooling: How the vectors of a row become one.
      target: What `target_attention` or `transformer` reads them for; the latter may have none.
    """

    table: int
    length: int
    pooling: Pooling
    target: Lookup | None = None


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a model reads beside one id of an own table per column, and numbers.

    Attributes:
      direct: The categorical column of each of the first tables.
      shared: The categorical columns without a table of their own.
      pooled: The multi-valued fields, side by side in `batch["multivalued"]`.
      vectors: Widths of the vectors, side by side in `batch["vectors"]`.
    """

    direct: tuple[int, ...]
    shared: tuple[Lookup, ...] = ()
    pooled: tuple[PooledIds, ...] = ()
    vectors: tuple[int, ...] = ()


def field_names(schema: Schema) -> tuple[str, ...]:
    """Names of the fields as a model has them: those with a vector in its order, then numbers."""
    own = [field.name for field in schema.categorical if field.shares is None]
    shared = [field.name for field in schema.categorical if field.shares is not None]
    several = [field.name for field in schema.multivalued]
    several += [field.name for field in schema.vectors]
    return (*own, *shared, *several, *(field.name for field in schema.numerical))


def inputs_of(schema: Schema) -> Inputs | None:
    """The inputs of a schema; None where every field is categorical or numerical, each with a table
    of its own."""
    shared = tuple(
        Lookup(column, schema.table_of(field))
        for column, field in enumerate(schema.categorical)
        if field.shares is not None
    )
    if not (shared or schema.multivalued or schema.vectors):
        return None
    names = [field.name for field in schema.categorical]

    def lookup(name: str | None) -> Lookup | None:
        if name is None:
            return None
        column = names.index(name)
        return Lookup(column, schema.table_of(schema.categorical[column]))

    return Inputs(
        direct=tuple(c for c, field in enumerate(schema.categorical) if field.shares is None),
        shared=shared,
        pooled=tuple(
            PooledIds(schema.table_of(field), field.length, field.pooling, lookup(field.target))
            for field in schema.multivalued
        ),
        vectors=tuple(field.width for field in schema.vectors),
    )
