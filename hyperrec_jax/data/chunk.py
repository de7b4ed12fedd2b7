"""Some rows of a table, and errors that name file, row, column and value."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.text import UnreadableValue, all_fit, fill_missing, fits, to_numbers, to_text
from hyperrec_jax.errors import UserError

CORRECT_IT = "correct or remove that row"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some rows of a file or a frame; each accessor checks what it returns.

    Attributes:
      name: Name of the file, for messages.
      start: Row number of the first row (rows count from 0 here, from 1 in messages).
      batch: The parsed columns.
      advice: What to do about a value that is refused.
    """

    name: str
    start: int
    batch: pa.RecordBatch
    advice: str = CORRECT_IT

    def __len__(self) -> int:
        return self.batch.num_rows

    def strings(self, column: str) -> pa.Array:
        """The one text of each value (see `data.text`): string [row].

        Raises:
          UserError: A value has no text.
        """
        with self.explained(column):
            return to_text(self.batch[column])

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

    def numbers(
        self,
        columns: Sequence[str],
        dtype: type = np.float32,
        missing: Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """Numbers that are finite, also as float32: [row, column].

        Args:
          columns: Names.
          dtype: Type of the result.
          missing: What stands for a missing number, for the columns that may have any.

        Raises:
          UserError: A number is missing, infinite, or too large for float32.
        """
        matrix: np.ndarray = np.empty((len(self), len(columns)), dtype)
        missing = missing or {}
        for i, column in enumerate(columns):
            values = self.batch[column]
            if column in missing or values.type not in (pa.float32(), pa.float64()):
                with self.explained(column):
                    values = to_numbers(values)
            if column in missing:
                values = fill_missing(values, missing[column])
            elif values.null_count:
                valid = values.is_valid().to_numpy(zero_copy_only=False)
                self.require(column, valid, "is missing or not a number")
            numbers = values.to_numpy(zero_copy_only=False)
            if not all_fit(numbers):
                self.require(column, np.isfinite(numbers), "is not a finite number")
                self.require(column, fits(numbers), "is too large; numbers are kept as float32")
            matrix[:, i] = numbers
        return matrix

    @contextlib.contextmanager
    def explained(self, column: str) -> Iterator[None]:
        """Turns an unreadable value of a column into a UserError that names its place."""
        try:
            yield
        except UnreadableValue as error:
            value = shown(self.batch[column][error.row])
            refuse(self.name, self.start + error.row, column, value, error.why, self.advice)

    def require(self, column: str, fine: np.ndarray, otherwise: str) -> None:
        """Raises a UserError about the first row of `column` that is not fine."""
        if not np.all(fine):
            row = int(np.argmin(fine))
            value = shown(self.batch[column][row])
            refuse(self.name, self.start + row, column, value, otherwise, self.advice)


def shown(value: pa.Scalar) -> str:
    """A value for a message, in ASCII and short."""
    try:
        plain = value.as_py()
    except (ValueError, OverflowError):  # such as text that is not UTF-8, or a far date
        if _is_text(value.type):
            return shortened(value.cast(pa.binary()).as_py())
        return f"a value of type {value.type}"
    return "an empty cell" if plain in (None, "") else shortened(plain)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def refuse(name: str, row: int, column: str, value: str, why: str, advice: str) -> NoReturn:
    """Raises the UserError about a value; rows count from 0 here, from 1 in the message."""
    raise UserError(f"{name}: row {row + 1}, column {column!r}: {value} {why}; {advice}")


def shortened(value: object) -> str:
    """A value for a message: in ASCII, at most 80 characters."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
