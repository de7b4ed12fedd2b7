"""A user's own CSV or Parquet files, described by a small YAML or JSON file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyperrec_jax.data.chunk import Chunk
from hyperrec_jax.data.columns import SPLITS
from hyperrec_jax.data.csv_reader import file_identity, plain_file, read_csv
from hyperrec_jax.data.hashing import hashes
from hyperrec_jax.data.source import Rows, Source
from hyperrec_jax.data.sources.description import (
    SCHEMA_EXAMPLE,
    Description,
    one_line,
    read_description,
)
from hyperrec_jax.data.sources.field_columns import (
    read_lists,
    read_times,
    read_vector_columns,
    with_derived,
)
from hyperrec_jax.data.sources.goal_columns import read_labels, read_weights
from hyperrec_jax.data.sources.registry import SOURCES, SourceCommand, add_input
from hyperrec_jax.data.time_fields import hour_and_weekday
from hyperrec_jax.errors import UserError

_ADVICE = "correct it, or see `hyperrec prepare csv --help` on text and gaps"
_PARQUET_ROWS = 1 << 16


def csv_source(path: Path) -> Source:
    """The files that a description names as a source.

    Args:
      path: The description, YAML or JSON; see `description.SCHEMA_EXAMPLE`.

    Raises:
      UserError: The description is missing, malformed, or names files that are not there.
    """
    return description_source(read_description(path), path)


def description_source(description: Description, path: Path) -> Source:
    """The files of a description as a source.

    Args:
      description: Names files and columns.
      path: Where it stands; the source is another one when that file changes.
    """
    files = [file for split in SPLITS for file in description.files.get(split, [])]
    splits = {
        split: partial(_read_files, description, paths)
        for split, paths in description.files.items()
    }
    return described(description, splits, " ".join(file_identity(file) for file in [path, *files]))


def described(
    description: Description,
    splits: Mapping[str, Callable[[Path], Iterator[Rows]]],
    identity: str,
) -> Source:
    """A source with the columns of a description.

    Args:
      description: Names the columns.
      splits: What reads each split.
      identity: What makes it another source.
    """
    categorical, numerical = with_derived(
        description.categorical, description.numerical, description.times
    )
    return Source(
        name=description.name,
        categorical=categorical,
        numerical=numerical,
        tasks=description.tasks,
        group=description.group,
        splits=splits,
        identity=identity,
        test_fraction=description.test_fraction,
        goals=tuple(goal.field for goal in description.goals),
        weight=description.weight,
        time_split=description.time_split,
        shares=description.shares,
        multivalued=description.multivalued,
        vectors=description.vectors,
        time_columns=description.times,
        id_rules=description.id_rules,
    )


def _read_files(description: Description, paths: Sequence[Path], staging: Path) -> Iterator[Rows]:
    for path in paths:
        is_parquet = path.suffix.lower() == ".parquet"
        chunks = (
            read_parquet(path, list(description.types()), str(path))
            if is_parquet
            else read_csv(
                plain_file(path),
                description.types(),
                header=True,
                exact=False,
                nullable=description.nullable(),
                advice=_ADVICE,
                dialect=description.dialect,
            )
        )
        for chunk in chunks:
            yield to_rows(chunk, description)


def to_rows(chunk: Chunk, description: Description) -> Rows:
    """The columns of a chunk that a description names.

    Raises:
      UserError: A value is not as its column needs it.
    """
    names = [column.name for column in description.numerical]
    numbers = chunk.numbers(names, np.float64, description.missing())
    for position, column in enumerate(description.numerical):
        if column.log1p:
            chunk.require(column.name, numbers[:, position] > -1, "has no log(1 + x)")
    group, weight, split = description.group, description.weight, description.time_split
    categorical = [chunk.strings(name) for name in description.categorical]
    if description.times:
        moments = [read_times(chunk, name) for name in description.times]
        categorical += [texts for times in moments for texts in hour_and_weekday(times)]
        numbers = np.column_stack([numbers, *moments]).astype(np.float64)
    return Rows(
        categorical=tuple(categorical),
        numerical=numbers,
        labels=read_labels(chunk, description.goals),
        groups=None if group is None else _group_ids(chunk.strings(group)),
        weights=None if weight is None else read_weights(chunk, weight),
        times=None if split is None else read_times(chunk, split.column, split.unit),
        multivalued=tuple(read_lists(chunk, column) for column in description.multivalued),
        vectors=read_vector_columns(chunk, description.vectors),
    )


def read_parquet(path: Path, columns: Sequence[str], name: str) -> Iterator[Chunk]:
    """Streams some columns of a Parquet file, whatever their types.

    Args:
      path: The file.
      columns: Names.
      name: Name of the file, for messages.

    Raises:
      UserError: The file is damaged, has no rows, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path, memory_map=True)
        require_columns(columns, file.schema_arrow.names, name)
        if file.metadata.num_rows == 0:
            raise UserError(f"{name}: has no rows; export the file again")
        start = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(columns)):
            yield Chunk(name, start, batch, _ADVICE)
            start += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: damaged or not a Parquet file ({one_line(error)})") from error


def require_columns(wanted: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raises a UserError unless a table has each wanted column once."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(f"{where}: lacks column {missing[0]!r}; it has {', '.join(names)}")
    repeated = [name for name in wanted if list(names).count(name) > 1]
    if repeated:
        raise UserError(f"{where}: has column {repeated[0]!r} twice; rename or remove one of them")


def _group_ids(values: pa.Array) -> np.ndarray:
    """A 63-bit hash of each group's text: int64 [row], the same in every file and run."""
    return (hashes(values) >> np.uint64(1)).astype(np.int64)


@SOURCES.register("csv")
def csv_command() -> SourceCommand:
    """The arguments of `hyperrec prepare csv`."""
    return SourceCommand(
        summary="your own CSV or Parquet files, described by a small YAML or JSON file",
        description="Reads the files that a description names; paths in it are relative to it. "
        f"For example:\n\n{SCHEMA_EXAMPLE}",
        add_arguments=add_input("the description, a .yaml or .json file"),
        make=lambda chosen: csv_source(chosen.input),
    )
