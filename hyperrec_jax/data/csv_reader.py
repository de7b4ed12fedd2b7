"""Streaming CSV with typed columns, and errors that name file, row, column and value."""

import codecs
import contextlib
import csv
import dataclasses
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
import pyarrow.csv as pa_csv
from tqdm import tqdm

from hyperrec_jax.data.chunk import CORRECT_IT, Chunk, refuse, shortened
from hyperrec_jax.errors import UserError

_BLOCK_BYTES = 8 << 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a text of rows is written.

    Attributes:
      separator: The character between two cells.
      encoding: A name that Python knows, such as `utf-8`, `utf-16` or `latin-1`.
      from_options: Whether both are options of a command, and not keys of a description.
    """

    separator: str = ","
    encoding: str = "utf-8"
    from_options: bool = False

    @property
    def is_utf8(self) -> bool:
        return codecs.lookup(self.encoding).name == "utf-8"

    def advice(self, name: str, value: str) -> str:
        """How the user says that a file has another separator or encoding."""
        told = (
            f"`--{name} {value}`" if self.from_options else f"`{name}: {value}` to the description"
        )
        return f"add {told}, or convert the file to UTF-8 with commas"


def make_dialect(
    where: str, separator: Any = ",", encoding: Any = "utf-8", from_options: bool = False
) -> Dialect:
    """A dialect of what a user wrote; `\\t` stands for the tab.

    Args:
      where: Begins the messages.

    Raises:
      UserError: the separator is not one character, or there is no such encoding.
    """
    separator = "\t" if separator == "\\t" else separator
    one = isinstance(separator, str) and len(separator) == 1 and separator.isascii()
    if not one or separator in '"\r\n':
        raise UserError(
            f'{where}separator: {separator!r} is not one character, such as ";" or "\\t"'
        )
    try:
        known = "a".encode(encoding).decode(encoding) == "a"
    except (LookupError, TypeError, ValueError, AttributeError):
        known = False
    if not known:
        raise UserError(f"{where}encoding: {encoding!r} is not one, such as utf-16 or latin-1")
    return Dialect(separator, str(encoding), from_options)


COMMAS = Dialect()
"""What a CSV file is unless something else is said."""


def plain_file(path: Path) -> TextFile:
    """A file on disk, decompressed on the fly where its name ends in `.gz`, in any case."""
    if path.suffix.lower() == ".gz":
        return TextFile(str(path), None, lambda: gzip.open(path))  # type: ignore[arg-type,return-value]
    return TextFile(str(path), path.stat().st_size, lambda: open(path, "rb"))


def file_identity(path: Path) -> str:
    """Changes when a file does: its absolute path, size and modification time."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def read_csv(
    file: TextFile,
    columns: Mapping[str, pa.DataType],
    header: bool,
    exact: bool = True,
    nullable: Collection[str] = (),
    advice: str = CORRECT_IT,
    dialect: Dialect = COMMAS,
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
      dialect: How the text is written.

    Raises:
      UserError: The file is empty, truncated or in another encoding, lacks a column, has a row of
        another length, or has a cell that is missing or not of its column's type.
    """
    with _explain_damage(file.name):
        if header:
            _check_header(file, columns, exact, dialect)
        start = 0
        with file.open() as raw:
            try:
                for batch in _parse(raw, file, columns, header, exact, dialect):
                    chunk = Chunk(file.name, start, batch, advice)
                    for name in batch.schema.names:
                        if batch[name].null_count and name not in nullable:
                            missing = batch[name].is_null().to_numpy(zero_copy_only=False)
                            chunk.require(name, ~missing, "is missing or not a number")
                    yield chunk
                    start += batch.num_rows
            except pa.ArrowInvalid as error:
                _diagnose(file, columns, header, nullable, advice, dialect, start, str(error))
            except UnicodeError:
                raise _not_in_encoding(file, dialect) from None
        if start == 0:
            raise UserError(f"{file.name}: has no rows; download or export the file again")


def header_of(file: TextFile, dialect: Dialect = COMMAS) -> list[str]:
    """The names in the first line of a file; none if it can't be read, which `read_csv` tells."""
    try:
        return next((cells for cells in _cells(file, dialect) if cells), [])
    except (csv.Error, UnicodeError, OSError, EOFError, zlib.error):
        return []


def _parse(
    raw: BinaryIO,
    file: TextFile,
    columns: Mapping[str, pa.DataType],
    header: bool,
    exact: bool,
    dialect: Dialect,
) -> Iterator[pa.RecordBatch]:
    # To find the ends of rows among quoted line breaks costs time; numbers have none.
    has_text = not exact or any(pa.types.is_string(kind) for kind in columns.values())
    with tqdm.wrapattr(
        raw, "read", total=file.size, desc=f"reading {Path(file.name).name}", disable=None
    ) as counted:
        yield from pa_csv.open_csv(
            pa.PythonFile(counted, mode="r"),
            read_options=pa_csv.ReadOptions(
                column_names=None if header else list(columns),
                block_size=_BLOCK_BYTES,
                encoding=dialect.encoding,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=dialect.separator, newlines_in_values=has_text
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


def _check_header(
    file: TextFile, columns: Mapping[str, pa.DataType], exact: bool, dialect: Dialect
) -> None:
    with file.open() as raw:
        start = raw.read(4)
    if start[:2] in _UTF_16 and not dialect.encoding.lower().startswith(("utf-16", "utf16")):
        raise UserError(f"{file.name}: is UTF-16 text; {dialect.advice('encoding', 'utf-16')}")
    try:
        names = next((cells for cells in _cells(file, dialect) if cells), [])
    except csv.Error as error:
        raise UserError(f"{file.name}, line 1: the header is not CSV ({error}); mend it") from error
    except UnicodeError:
        raise _not_in_encoding(file, dialect) from None
    if not any(name.strip() for name in names):
        raise UserError(f"{file.name}: is empty; download or export the file again")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{file.name}: its header names column {repeated[0]!r} twice")
    missing = [name for name in columns if name not in names]
    if missing:
        if any(map(_is_broken, names)):
            raise _not_in_encoding(file, dialect)
        _hint_at_separator(file, columns, names, dialect)
        raise UserError(
            f"{file.name}: its header lacks column {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f"; it has {shortened(names)}"
        )
    extra = [name for name in names if name not in columns]
    if exact and extra:
        raise UserError(f"{file.name}: unexpected column {extra[0]!r}; remove it")


def _cells(file: TextFile, dialect: Dialect) -> Iterator[list[str]]:
    """The rows of a file as Python reads them, slower than Arrow; empty ones are empty lists."""
    with file.open() as raw:
        encoding = "utf-8-sig" if dialect.is_utf8 else dialect.encoding
        text = io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="")
        yield from csv.reader(text, delimiter=dialect.separator)


def _hint_at_separator(
    file: TextFile, columns: Mapping[str, pa.DataType], names: Sequence[str], dialect: Dialect
) -> None:
    """Raises a UserError where a header would be complete with another separator."""
    for separator, told in ((";", '";"'), ("\t", r'"\t"'), ("|", '"|"'), (",", '","')):
        if set(columns) <= {part.strip('" ') for name in names for part in name.split(separator)}:
            raise UserError(
                f"{file.name}: its columns are separated by {told}; "
                + dialect.advice("separator", told)
            )


def _not_in_encoding(file: TextFile, dialect: Dialect) -> UserError:
    return UserError(
        f"{file.name}: is not {dialect.encoding} text; name the encoding it is in; if latin-1, "
        + dialect.advice("encoding", "latin-1")
    )


def _diagnose(
    file: TextFile,
    columns: Mapping[str, pa.DataType],
    header: bool,
    nullable: Collection[str],
    advice: str,
    dialect: Dialect,
    start: int,
    reason: str,
) -> NoReturn:
    """Finds the cell that the parser refused, which does not say where it lies.

    Args:
      start: Rows that were read well.
      reason: The parser's message, for what is not found.
    """
    empty = set(pa_csv.ConvertOptions().null_values)
    rows = (cells for cells in _cells(file, dialect) if cells)
    names = next(rows, []) if header else list(columns)
    with contextlib.suppress(csv.Error, UnicodeError):
        for row, cells in enumerate(rows):
            if row < start:
                continue
            if len(cells) != len(names):
                raise UserError(
                    f"{file.name}: row {row + 1} has {len(cells)} columns instead of "
                    f"{len(names)}; {CORRECT_IT}"
                )
            for name, cell in zip(names, cells, strict=True):
                if name not in columns or (name in nullable and cell in empty):
                    continue
                if why := _refusal(cell, columns[name]):
                    told = shortened(cell) if cell else "an empty cell"
                    refuse(file.name, row, name, told, why, advice)
    if "empty" in reason.lower():
        raise UserError(f"{file.name}: is empty; download or export the file again")
    if "straddling" in reason:
        raise UserError(
            f"{file.name}: a row after row {start} has more than {_BLOCK_BYTES >> 20} MiB; look "
            "for a quote that is never closed"
        )
    raise UserError(
        f"{file.name}: not readable as CSV after row {start} ({' '.join(reason.split())})"
    )


def _is_broken(text: str) -> bool:
    """Whether bytes were no text in the encoding, which `_cells` keeps as surrogates."""
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def _refusal(cell: str, dtype: pa.DataType) -> str | None:
    if _is_broken(cell):
        return "is not UTF-8 text; convert the file, or name its encoding"
    if pa.types.is_string(dtype):
        return None
    try:
        pa.scalar(cell.strip()).cast(dtype)
    except pa.ArrowInvalid:
        return "is not an integer" if pa.types.is_integer(dtype) else "is not a number"
    return None
