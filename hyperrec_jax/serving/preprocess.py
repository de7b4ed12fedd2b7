"""Raw rows, in whatever table they come, to the arrays that a model reads."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.chunk import shown
from hyperrec_jax.data.encode import ValueEncoder, scale_vectors, table_encoders
from hyperrec_jax.data.hashing import BucketEncoder
from hyperrec_jax.data.multivalued import cut_to_length, padded, to_lists, to_vectors
from hyperrec_jax.data.schema import CategoricalField, MultivaluedField, Schema, VectorField
from hyperrec_jax.data.text import UnreadableValue, fill_missing, fits, to_numbers, to_text
from hyperrec_jax.data.time_fields import age_days, hour_and_weekday
from hyperrec_jax.data.times import to_times
from hyperrec_jax.data.vocabulary_file import read_vocabulary
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.encoded import Encoded
from hyperrec_jax.serving.quick import QuickEncoder
from hyperrec_jax.serving.raw_rows import RawRows, column_of, wanted_columns

_INTEGER_OR_NOTHING = "^(-?[0-9]+)?$"
_INTEGERS = 2.0**63
_TOO_LARGE = "is too large; a model reads numbers as float32"


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """The encoding of the training rows, for rows that come later.

    Attributes:
      schema: Fields and the transforms of numbers.
      vocabulary: Per table of the schema the values that have the ids 1, 2, ..., sorted; of hashed
        ones none.
    """

    schema: Schema
    vocabulary: tuple[pa.Array, ...]
    _encoders: tuple[ValueEncoder | BucketEncoder, ...] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoders", tuple(table_encoders(self.schema, self.vocabulary)))

    @classmethod
    def open(cls, schema: Schema, path: Path) -> "Preprocessor":
        """With the vocabulary in a file that `data.store.write_vocabulary` wrote.

        Raises:
          UserError: the file is missing or damaged.
        """
        if not schema.tables:
            return cls(schema, ())
        try:
            fields = read_vocabulary(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path}: no readable vocabulary ({error}); train again, or copy vocabulary.arrow "
                "from the prepared data"
            ) from error
        return cls(schema, tuple(fields[table.name].values for table in schema.tables))

    def column_types(self) -> dict[str, pa.DataType]:
        """The columns that it reads, with the types it wants: for readers of files."""
        types = {
            field.name: self.vocabulary[self.schema.table_of(field)].type
            for field in self.schema.id_fields
        }
        types |= {field.name: pa.float64() for field in self.schema.numerical}
        types = {name: kind for name, kind in types.items() if name not in self.schema.derived}
        types |= {field.name: pa.string() for field in self.schema.vectors}
        return types | {field.name: pa.string() for field in self.schema.times}

    def several(self) -> list[str]:
        """The columns whose values may be lists."""
        return [f.name for f in self.schema.multivalued] + [f.name for f in self.schema.vectors]

    def values_of(self, field: CategoricalField | MultivaluedField) -> pa.Array:
        """The values of a field that have the ids 1, 2, ..., sorted; none of a hashed one."""
        return self.vocabulary[self.schema.table_of(field)]

    def nullable(self) -> list[str]:
        """The columns that may have missing values where a reader of files asks for numbers."""
        return [field.name for field in self.schema.numerical if field.missing is not None]

    @property
    def has_quick(self) -> bool:
        """Whether `look_up` ever encodes: fields of one value alone have tables."""
        return not (self.schema.multivalued or self.schema.vectors or self.schema.times)

    @functools.cached_property
    def quick(self) -> QuickEncoder:
        """What encodes a few rows; its tables are built when it is first asked for."""
        return QuickEncoder(self.schema, self.vocabulary)

    def __call__(self, rows: RawRows, where: str = "rows", first: int = 0) -> Encoded:
        """As `exact`, by look-ups where values are plain: equal bit for bit, and messages too."""
        encoded = self.look_up(rows)
        return self.exact(rows, where, first) if encoded is None else encoded

    def look_up(self, rows: RawRows) -> Encoded | None:
        """As `exact` for dictionaries of plain values; None where it must be asked."""

        def exact_ids(index: int, values: list[Any]) -> np.ndarray | None:
            if any(type(value) is float and not abs(value) < _INTEGERS for value in values):
                return None  # a decoder may have made it from an integer of more digits
            field = self.schema.categorical[index]
            column = _Column(column_of(values, field.name, "rows", 0), field.name, "rows", 0)
            encode = self._encoders[self.schema.table_of(field)]
            return encode(column.ids(self.values_of(field).type))

        if not self.has_quick:
            return None
        encoded = None
        with contextlib.suppress(UserError):  # told by the exact rules, which find the first one
            if type(rows) is list and rows and set(map(type, rows)) == {dict}:
                encoded = self.quick.rows(rows, exact_ids)
            elif type(rows) is dict and set(map(type, rows.values())) == {list}:
                encoded = self.quick.columns(rows, exact_ids)
        return None if encoded is None else Encoded(*encoded)

    def exact(self, rows: RawRows, where: str = "rows", first: int = 0) -> Encoded:
        """Encodes rows; values that training never saw get the out-of-vocabulary id 0.

        Args:
          rows: A frame, an Arrow table, one dictionary per row, or a dictionary of columns; other
            columns are ignored.
          where: What the rows are, for messages.
          first: Number of the first row, for messages.

        Raises:
          UserError: a column is missing, an id is not of the field's type, or a number is
            not finite, not a number, or missing in a column that has nothing for that.
        """
        columns = wanted_columns(rows, self.column_types(), where, first)
        num_rows = len(next(iter(columns.values())))
        for time in self.schema.times:
            times = _Column(columns[time.name], time.name, where, first).times()
            derived = (*hour_and_weekday(times), pa.array(age_days(times, time.newest)))
            columns |= zip(time.derived, derived, strict=True)
        categorical = np.empty((num_rows, len(self.schema.categorical)), np.int32)
        for index, field in enumerate(self.schema.categorical):
            column = _Column(columns[field.name], field.name, where, first)
            encode = self._encoders[self.schema.table_of(field)]
            categorical[:, index] = encode(column.ids(self.values_of(field).type))
        numerical = np.empty((num_rows, self.schema.num_numerical), np.float32)
        for index, number in enumerate(self.schema.numerical):
            column = _Column(columns[number.name], number.name, where, first)
            values = column.numbers(number.missing)
            if number.log1p:
                column.require(values > -1, "has no log(1 + x)")
                values = np.log1p(values)
            values = (values - number.mean) / number.std
            column.require(fits(values), f"{_TOO_LARGE}, also after the column is scaled")
            numerical[:, index] = values
        return Encoded(
            categorical,
            numerical,
            tuple(
                self._multivalued(field, _Column(columns[field.name], field.name, where, first))
                for field in self.schema.multivalued
            ),
            tuple(
                _Column(columns[field.name], field.name, where, first).vectors(field)
                for field in self.schema.vectors
            ),
        )

    def _multivalued(self, field: MultivaluedField, column: "_Column") -> np.ndarray:
        """Ids of a multi-valued field: int32 `[row, length]`."""
        values, lengths, _ = cut_to_length(column.lists(field.separator), field)
        ids = self._encoders[self.schema.table_of(field)](values)
        return padded(ids, lengths, field.length)


@dataclasses.dataclass(frozen=True)
class _Column:
    values: pa.Array
    name: str
    where: str
    first: int

    def ids(self, wanted: pa.DataType) -> pa.Array:
        """The values in the vocabulary's type: texts as `prepare` writes them, or integers.

        A missing one is out of a vocabulary of integers.
        """
        if pa.types.is_string(wanted):
            return self._read(to_text)
        if pa.types.is_integer(self.values.type):
            values = self.values
        else:
            values = self._read(to_text)
            number = pc.match_substring_regex(values, _INTEGER_OR_NOTHING)
            self.require(number.to_numpy(zero_copy_only=False), "is not an integer")
            values = pc.if_else(pc.equal(values, ""), None, values)
        try:
            return pc.fill_null(values.cast(wanted), -1)  # ids begin at 0
        except pa.ArrowInvalid:
            fine = [_fits_integer(value) for value in values.to_pylist()]
            self.require(np.array(fine), "is not an integer of 64 bits")
            raise

    def numbers(self, missing: float | None) -> np.ndarray:
        """Finite numbers, `missing` in the place of those that are missing: float64 [row]."""
        if missing is None:
            self.require(self.values.is_valid().to_numpy(zero_copy_only=False), "is no number")
        values = self._read(to_numbers)
        if missing is not None:
            values = fill_missing(values, missing)
        numbers = values.to_numpy(zero_copy_only=False)
        self.require(np.isfinite(numbers), "is not a finite number")
        self.require(fits(numbers), _TOO_LARGE)
        return numbers

    def lists(self, separator: str | None) -> pa.LargeListArray:
        """The texts of each row."""
        return self._read(lambda values: to_lists(values, separator))

    def times(self) -> np.ndarray:
        """Microseconds since 1970: int64 [row]."""
        return self._read(to_times)

    def vectors(self, field: VectorField) -> np.ndarray:
        """Scaled numbers: float32 `[row, width]`."""
        numbers = self._read(lambda values: to_vectors(values, field.width, field.separator))
        scaled = scale_vectors(numbers, (field,))
        self.require(
            np.all(fits(scaled), axis=1), f"has a number that {_TOO_LARGE}, also once scaled"
        )
        return scaled.astype(np.float32)

    def require(self, fine: np.ndarray, otherwise: str) -> None:
        if not fine.all():
            self._refuse(int(np.argmin(fine)), otherwise)

    def _read(self, read: Callable[[pa.Array], Any]) -> Any:
        try:
            return read(self.values)
        except UnreadableValue as error:
            self._refuse(error.row, error.why)

    def _refuse(self, row: int, otherwise: str) -> NoReturn:
        value = self.values[row]
        told = shown(value) if value.is_valid else "a missing value"
        raise UserError(
            f"{self.where}: row {self.first + row + 1}, column {self.name!r}: {told} {otherwise}"
        )


def _fits_integer(value: Any) -> bool:
    return value is None or -(2**63) <= int(value) < 2**63
