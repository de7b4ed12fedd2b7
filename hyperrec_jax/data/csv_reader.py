"""Streaming CSV with typed columns, and errors that name file, row, column and value."""

import contextlib
import csv
import dataclasses
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from tqdm import tqdm

from hyperrec_jax.errors import UserError

_BLOCK_BYTES = 8 << 20
_CORRECT_IT = "correct or remove that row"


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A readable text, wherever it lies.

    Attributes:
      name: For messages, such as `us.zip/us_item_train.zip/us_item_train.csv`.
      size: Bytes that will be read, for the progress bar; None if unknown.
      open: Opens the bytes.
    """

    name: str
    size: int | None
    open: Callable[[], BinaryIO]


def plain_file(path: Path) -> TextFile:
    """A file on disk, decompressed on the fly where its name ends in `.gz`."""
    if path.suffix == ".gz":
        return TextFile(str(path), None, lambda: gzip.open(path))  # type: ignore[arg-type,return-value]
    return TextFile(str(path), path.stat().st_size, lambda: open(path, "rb"))


def file_identity(path: Path) -> str:
    """Changes when a file does: its absolute path, size and modification time."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some rows of a CSV file; each accessor checks what it returns.

    Attributes:
      name: Of the file, for messages.
      start: Row number of the first row (rows count from 0 here, from 1 in messages).
      batch: The parsed columns.
      advice: What to do about a value that is refused.
    """

    name: str
    start: int
    batch: pa.RecordBatch
    advice: str = _CORRECT_IT

    def __len__(self) -> int:
        return self.batch.num_rows

    def strings(self, column: str) -> pa.Array:
        """Text without surrounding white space."""
        return pc.utf8_trim_whitespace(self.batch[column])

    def ids(self, column: str) -> np.ndarray:
        """Non-negative integers: int64 [row].

        Raises:
          UserError: An id is negative.
        """
        values = self.batch[column].to_numpy()
        self.require(column, values >= 0, "is negative; ids begin at 0")
        return values

    def labels(self, column: str, allowed: Sequence[int] = (0, 1)) -> np.ndarray:
        """Labels: uint8 [row].

        Raises:
          UserError: A label is not among the allowed ones.
        """
        values = self.batch[column].to_numpy()
        expected = ", ".join(map(str, allowed))
        self.require(column, np.isin(values, allowed), f"is not a label; labels are {expected}")
        return values.astype(np.uint8)

    def numbers(self, columns: Sequence[str], dtype: type = np.float32) -> np.ndarray:
        """Finite numbers: [row, column].

        Raises:
          UserError: A number is infinite.
        """
        matrix: np.ndarray = np.empty((len(self), len(columns)), dtype)
        for i, column in enumerate(columns):
            matrix[:, i] = self.batch[column].to_numpy()
        if not np.isfinite(matrix).all():
            for i, column in enumerate(columns):
                self.require(column, np.isfinite(matrix[:, i]), "is not a finite number")
        return matrix

    def require(self, column: str, fine: np.ndarray, otherwise: str) -> None:
        """Raises a UserError about the first row of `column` that is not fine."""
        if not np.all(fine):
            row = int(np.argmin(fine))
            value = self.batch[column][row].as_py()
            _fail(self.name, self.start + row, column, value, otherwise, self.advice)


def read_csv(
    file: TextFile,
    columns: Mapping[str, pa.DataType],
    header: bool,
    exact: bool = True,
    nullable: Collection[str] = (),
    advice: str = _CORRECT_IT,
) -> Iterator[Chunk]:
    """Streams a CSV file, parsed on several cores, a few megabytes at a time.

    Args:
      file: The text.
      columns: Names and types: int64, float32, float64 or string. Without a header the columns of
        the file in its order.
      header: Whether the first line names the columns, which may then come in any order.
      exact: Whether a column of the header that is not in `columns` is an error.
      nullable: Columns of numbers whose cells may be missing.
      advice: What to do about a value that is refused.

    Raises:
      UserError: The file is empty, truncated or not UTF-8, lacks a column, has a row of another
        length, or has a cell that is missing or not of its column's type.
    """
    with _explain_damage(file.name):
        if header:
            _check_header(file, columns, exact)
        start = 0
        with file.open() as raw:
            try:
                for batch in _parse(raw, file, columns, header):
                    chunk = Chunk(file.name, start, batch, advice)
                    for name in batch.schema.names:
                        if batch[name].null_count and name not in nullable:
                            missing = batch[name].is_null().to_numpy(zero_copy_only=False)
                            chunk.require(name, ~missing, "is missing or not a number")
                    yield chunk
                    start += batch.num_rows
            except pa.ArrowInvalid as error:
                _diagnose(file, columns, header, nullable, advice, start, str(error))
        if start == 0:
            raise UserError(f"{file.name}: has no rows; download or export the file again")


def _parse(
    raw: BinaryIO, file: TextFile, columns: Mapping[str, pa.DataType], header: bool
) -> Iterator[pa.RecordBatch]:
    with tqdm.wrapattr(
        raw, "read", total=file.size, desc=f"reading {Path(file.name).name}", disable=None
    ) as counted:
        yield from pa_csv.open_csv(
            pa.PythonFile(counted, mode="r"),
            read_options=pa_csv.ReadOptions(
                column_names=None if header else list(columns), block_size=_BLOCK_BYTES
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=columns, include_columns=list(columns), strings_can_be_null=False
            ),
        )


@contextlib.contextmanager
def _explain_damage(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except PermissionError as error:
        raise UserError(f"{name}: not readable; change its permissions") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{name}: truncated or damaged ({error}); download it again") from error


def _check_header(file: TextFile, columns: Mapping[str, pa.DataType], exact: bool) -> None:
    with file.open() as raw:
        first_line = raw.readline(1 << 20).decode("utf-8-sig", errors="replace")
    if not first_line.strip():
        raise UserError(f"{file.name}: is empty; download or export the file again")
    try:
        names = next(csv.reader([first_line]))
    except csv.Error as error:
        raise UserError(f"{file.name}, line 1: the header is not CSV ({error}); mend it") from error
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{file.name}: its header names column {repeated[0]!r} twice")
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(
            f"{file.name}: its header lacks column {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f"; it has {_shortened(names)}"
        )
    extra = [name for name in names if name not in columns]
    if exact and extra:
        raise UserError(f"{file.name}: unexpected column {extra[0]!r}; remove it")


def _diagnose(
    file: TextFile,
    columns: Mapping[str, pa.DataType],
    header: bool,
    nullable: Collection[str],
    advice: str,
    start: int,
    reason: str,
) -> NoReturn:
    """Finds the cell that the parser refused, which does not say where it lies.

    Args:
      start: Rows that were read well.
      reason: The parser's message, for what is not found.
    """
    empty = set(pa_csv.ConvertOptions().null_values)
    with file.open() as raw:
        text = io.TextIOWrapper(raw, "utf-8", errors="surrogateescape", newline="")
        rows = csv.reader(text)
        names = next(rows, []) if header else list(columns)
        with contextlib.suppress(csv.Error):
            for row, cells in enumerate(cells for cells in rows if cells):
                if row < start:
                    continue
                if len(cells) != len(names):
                    raise UserError(
                        f"{file.name}: row {row + 1} has {len(cells)} columns instead of "
                        f"{len(names)}; {_CORRECT_IT}"
                    )
                for name, cell in zip(names, cells, strict=True):
                    if name not in columns or (name in nullable and cell in empty):
                        continue
                    if why := _refusal(cell, columns[name]):
                        _fail(file.name, row, name, cell, why, advice)
    if "empty" in reason.lower():
        raise UserError(f"{file.name}: is empty; download or export the file again")
    raise UserError(
        f"{file.name}: not readable as CSV after row {start} ({' '.join(reason.split())})"
    )


def _refusal(cell: str, dtype: pa.DataType) -> str | None:
    if not cell.isascii() and any("\udc80" <= c <= "\udcff" for c in cell):
        return "is not UTF-8 text; convert the file"
    if pa.types.is_string(dtype):
        return None
    try:
        pa.scalar(cell.strip()).cast(dtype)
    except pa.ArrowInvalid:
        return "is not an integer" if pa.types.is_integer(dtype) else "is not a number"
    return None


def _fail(name: str, row: int, column: str, value: object, why: str, advice: str) -> NoReturn:
    shown = "an empty cell" if value in (None, "") else _shortened(value)
    raise UserError(f"{name}: row {row + 1}, column {column!r}: {shown} {why}; {advice}")


def _shortened(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
