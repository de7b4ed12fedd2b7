"""Cells that hold several values: read as lists, cut to their length, and made into one matrix.

A cell is a list (Parquet, Arrow, pandas, Polars, JSON), or text with a separator between two
values, as CSV files have it. Both become the same list of texts, each of them made by `data.text`,
so that a value has one id wherever it stands. What is missing in a list is left out: a null, an
empty text. A missing cell is the empty list.
"""

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.text import UnreadableValue, advice_on, fits, to_numbers, to_text

PADDING = -1
"""Stands where a row has no more values; ids begin at 0."""

_NO_LIST = "is of type {}; give lists of values, or text with a separator"
_NO_SEPARATOR = (
    "is text, and it is not known what separates its values; name the separator under sets, "
    'sequences or vectors, such as `separator: "|"`, or give lists'
)


class Cut(Protocol):
    """What is known of a multi-valued field before its vocabulary is."""

    @property
    def kind(self) -> Any:
        """`set` or `sequence`."""

    @property
    def length(self) -> int:
        """Values that are kept of a row."""


def to_lists(values: pa.Array, separator: str | None) -> pa.LargeListArray:
    """The texts of each cell: a list of strings for each row, no nulls.

    Args:
      values: Lists of anything that has a text, or text with a separator; `[row]`.
      separator: What stands between two values of a text; None where a text is no list.

    Raises:
      UnreadableValue: A cell is neither, or an element has no text.
    """
    flat, offsets = _elements(values, separator)
    try:
        texts = to_text(flat)
    except UnreadableValue as error:
        raise _of_row(error, offsets) from error
    kept = pc.not_equal(texts, "")
    if not pc.all(kept).as_py():
        before = np.concatenate([[0], np.cumsum(kept.to_numpy(zero_copy_only=False))])
        texts, offsets = texts.filter(kept), before[offsets]
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), texts)


def to_vectors(values: pa.Array, width: int, separator: str | None) -> np.ndarray:
    """The numbers of each cell: float64 `[row, width]`, finite, also as float32.

    Args:
      values: Lists of numbers, or text with a separator; `[row]`.
      width: Numbers of each cell.
      separator: As for `to_lists`.

    Raises:
      UnreadableValue: A cell is missing, has another number of elements, or one that is no number.
    """
    if values.null_count:
        row = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False)))
        raise UnreadableValue(row, f"is missing; each row needs {width} numbers")
    flat, offsets = _elements(values, separator)
    lengths = np.diff(offsets)
    if (wrong := lengths != width).any():
        row = int(np.argmax(wrong))
        raise UnreadableValue(row, f"has {lengths[row]} numbers instead of {width}")
    try:
        numbers = to_numbers(flat)
    except UnreadableValue as error:
        raise _of_row(error, offsets) from error
    matrix = numbers.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(values), width)
    if not (fine := fits(matrix).all(axis=1)).all():
        row = int(np.argmin(fine))
        why = "is too large; numbers are kept as float32"
        if not np.isfinite(matrix[row]).all():
            why = "is missing or not a finite number"
        odd = matrix[row][~fits(matrix[row])][0]
        raise UnreadableValue(row, f"has an element that {why} ({odd})")
    return matrix


def cut_to_length(lists: pa.LargeListArray, field: Cut) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Leaves out what is too much of each row: a set keeps its first values, a sequence its last.

    Args:
      lists: From `to_lists`.
      field: Says what is kept.

    Returns:
      The values of all rows one after the other; how many of them each row has, int64 `[row]`; and
      whether a row had more, bool `[row]`.
    """
    offsets = lists.offsets.to_numpy()
    values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets = offsets - offsets[0]
    lengths = np.diff(offsets)
    long = lengths > field.length
    if not long.any():
        return values, lengths, long
    kept = np.minimum(lengths, field.length)
    starts = offsets[:-1] if field.kind == "set" else offsets[1:] - kept
    return values.take(pa.array(starts.repeat(kept) + _places(kept))), kept, long


def padded(ids: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """Ids of all rows one after the other as a matrix, int32 `[row, width]`, with `PADDING`.

    Args:
      ids: `[value]`.
      lengths: Values of each row, `[row]`, at most `width`.
      width: Columns of the matrix.
    """
    matrix = np.full((len(lengths), width), PADDING, np.int32)
    matrix[np.arange(len(lengths)).repeat(lengths), _places(lengths)] = ids
    return matrix


def _places(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... for the values of each row, one after the other."""
    return np.arange(lengths.sum()) - (np.cumsum(lengths) - lengths).repeat(lengths)


def _elements(values: pa.Array, separator: str | None) -> tuple[pa.Array, np.ndarray]:
    """The elements of all cells, and where those of each row begin: int64 `[row + 1]`."""
    kind, types = values.type, pa.types
    if types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if types.is_null(kind):
        return pa.array([], pa.string()), np.zeros(len(values) + 1, np.int64)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        values = _split(values.cast(pa.large_string()), separator)
    elif not _is_list(kind):
        parts = advice_on(kind) if types.is_nested(kind) else ""
        raise UnreadableValue(0, _NO_LIST.format(kind) + parts)
    elif _is_list(kind.value_type) or types.is_struct(kind.value_type):
        raise UnreadableValue(
            0, f"is of type {kind}; lists of values can't be nested, give a column for each part"
        )
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    return values.flatten(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _split(texts: pa.Array, separator: str | None) -> pa.Array:
    """Text as lists; without a separator, text that is not empty is refused."""
    try:
        texts = pc.fill_null(pc.utf8_trim_whitespace(texts), "")
    except pa.ArrowInvalid:
        raise UnreadableValue(0, "or a value after it is not UTF-8 text") from None
    empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    if separator is None and not empty.all():
        raise UnreadableValue(int(np.argmin(empty)), _NO_SEPARATOR)
    texts = pc.if_else(pa.array(empty), None, texts)
    if separator == " ":
        return pc.utf8_split_whitespace(texts)
    return pc.split_pattern(texts, separator or "|")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _of_row(error: UnreadableValue, offsets: np.ndarray) -> UnreadableValue:
    """An error about an element as one about its row."""
    row = int(np.searchsorted(offsets, error.row, side="right")) - 1
    return UnreadableValue(row, f"has an element that {error.why}")
