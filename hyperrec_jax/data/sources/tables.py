"""Sources that first build tables: Parquet files, and the description that the source csv reads.

The tables stay beside the store, so that a benchmark or another library can read the same rows.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from hyperrec_jax.data.files import explain_write_errors, replace_folder, written_whole
from hyperrec_jax.data.staging import open_staging
from hyperrec_jax.errors import UserError

DESCRIPTION = "description.yaml"
_PROVENANCE = "provenance"

Columns = Mapping[str, type[pl.DataType]]
"""Names and types of a table's columns."""


def build_once(folder: Path, provenance: str, build: Callable[[Path], None]) -> Path:
    """Builds a folder of tables, unless it is there already from the very same input.

    Args:
      folder: Takes its name only when it is complete.
      provenance: One line of text that changes when the input or an option does.
      build: Writes the tables and `DESCRIPTION` into a given folder. What an interrupted call left
        there is still there when the same provenance is built again.

    Returns:
      The description in the folder.

    Raises:
      UserError: The folder holds something else, or can't be written.
    """
    mark = folder / _PROVENANCE
    if folder.exists() and not mark.exists() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: exists and holds no tables of this command; choose another folder"
        )
    if mark.exists() and mark.read_text() == provenance:
        return folder / DESCRIPTION
    staging = folder.with_name(folder.name + ".staging")
    with explain_write_errors(folder), open_staging(staging, provenance):
        build(staging)
        replace_folder(staging, folder)
    return folder / DESCRIPTION


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Writes a frame under its name only once it is complete."""
    with written_whole(path) as file:
        frame.write_parquet(file)


def join_parquet(parts: Iterable[Path], path: Path) -> None:
    """Writes the rows of several Parquet files, one after the other, as one file."""
    temporary = path.with_name(path.name + ".writing")
    try:
        pl.scan_parquet(list(parts)).sink_parquet(temporary, maintain_order=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_description(folder: Path, comment: str, values: Mapping[str, Any]) -> None:
    """Writes the description that `csv_source` reads.

    Args:
      folder: Folder of the tables.
      comment: Its first lines: what the columns are that the description does not name.
      values: Its keys, as `csv_files.SCHEMA_EXAMPLE` shows them.
    """
    text = "".join(f"# {line}\n" for line in comment.splitlines())
    text += yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    with written_whole(folder / DESCRIPTION) as file:
        file.write(text.encode())


def scan_table(path: Path, columns: Columns) -> pl.LazyFrame:
    """A Parquet file's columns, in given types.

    Raises:
      UserError: The file is missing, damaged, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; put the table there")
    with explain_damage(path):
        frame = pl.scan_parquet(path)
        present = frame.collect_schema().names()
    for name in columns:
        if name not in present:
            raise UserError(f"{path}: lacks column {name!r}; it has {', '.join(present)}")
    return frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())


@contextlib.contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turns what Polars says of a damaged file or a value of another type into a `UserError`."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable ({reason[:200]}); download it again") from error
