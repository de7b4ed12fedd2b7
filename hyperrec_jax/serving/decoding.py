"""The JSON of a request, piece by piece.

Python's decoder holds the interpreter's lock while it decodes a text, whatever thread it is in:
one text of 8 MiB would stop the whole server, `/healthz` included, for a second. So each row is
decoded by itself, no row may be longer than `MAX_ROW_CHARACTERS`, of each row only the columns that
the model reads are kept, and what comes after the last row that a request may have is not read.

A body of usual size is decoded at once by orjson, ten times as fast; whatever is odd in it is left
to the exact rules.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

import orjson

from hyperrec_jax.serving.refusal import Refused, shown

MAX_ROW_CHARACTERS = 1 << 18
_FIRST_TRY = 1 << 12
_SPACE = re.compile(r"[ \t\n\r]*")
_KEYS = ("rows", "columns", "preference")
_FORM = (
    'the body must be {"rows": [{...}, ...], "preference": [...]}, or have '
    '"columns": {"...": [...], ...} in the place of "rows"'
)
QUICK_BYTES = 1 << 20
"""Bytes of the largest body that is decoded at once: some milliseconds."""

Decoded = list[dict[str, Any]] | dict[str, list[Any]]
"""One dictionary for each row, or a dictionary of columns."""


def decode_quickly(body: bytes | bytearray, max_rows: int) -> tuple[Decoded, Any] | None:
    """The rows and the preference in the body of a request, where nothing in it is odd.

    Args:
      body: As for `decode_request`.
      max_rows: Rows that the body may have.

    Returns:
      As `decode_request`, but with all columns, whose values are not checked, and with integers
      beyond 64 bits as floats; None where `decode_request` must be asked.
    """
    if len(body) > QUICK_BYTES or b"\\u00" in body:  # which could spell a key
        return None
    if any(body.count(b'"%s"' % key.encode()) > 1 for key in _KEYS):  # it may be given twice
        return None
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(values, dict) or not values.keys() <= set(_KEYS):
        return None
    rows, columns = values.get("rows"), values.get("columns")
    if isinstance(rows, list) and "columns" not in values:
        if not 0 < len(rows) <= max_rows:
            return None
        return rows, values.get("preference")
    if isinstance(columns, dict) and "rows" not in values:
        if not all(isinstance(c, list) and 0 < len(c) <= max_rows for c in columns.values()):
            return None
        return columns, values.get("preference")
    return None


def decode_request(
    body: bytes | bytearray, columns: Sequence[str], max_rows: int, lists: Collection[str] = ()
) -> tuple[Decoded, Any]:
    """The rows and the preference in the body of a request.

    Args:
      body: JSON in UTF-8, `{"rows": [{...}, ...], "preference": ...}`, or with
        `"columns": {"...": [...], ...}` in the place of the rows.
      columns: The columns that are kept.
      max_rows: Rows that the body may have.
      lists: Those of the columns whose values may be lists.

    Returns:
      The rows, one dictionary each, or the columns, in which every value is text, a number, a
      boolean or None, or where it may be a list of such; and the preference as it is, None where
      there is none.

    Raises:
      Refused: the body is not that.
    """
    try:
        text = _Text(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 (byte {error.start + 1})") from None
    found: dict[str, Any] = {}
    if not text.skip("{"):
        text.value()  # what is not even JSON is called so
        raise Refused(400, _FORM)
    for key in _keys(text):
        if key not in _KEYS:
            raise Refused(400, f"unknown key {shown(key)}; there are rows, columns and preference")
        if key in found:
            raise Refused(400, f"{key}: given twice")
        if key == "preference":
            found[key] = text.value()
        else:
            found[key] = (_rows if key == "rows" else _columns)(text, columns, max_rows, lists)
    text.end()
    if ("rows" in found) == ("columns" in found):
        raise Refused(400, _FORM)
    return found["rows" if "rows" in found else "columns"], found.get("preference")


def _keys(text: "_Text") -> Iterator[Any]:
    """The keys of the object that has begun; the caller reads the value of each."""
    if text.skip("}"):
        return
    while True:
        key = text.value()
        if not isinstance(key, str) or not text.skip(":"):
            text.fail('expecting "key": value')
        yield key
        if text.skip("}"):
            return
        if not text.skip(","):
            text.fail("expecting , or }")


def _rows(
    text: "_Text", columns: Sequence[str], max_rows: int, lists: Collection[str]
) -> list[dict[str, Any]]:
    if not text.skip("["):
        text.value()
        raise Refused(400, _FORM)
    if text.skip("]"):
        raise Refused(400, "rows: empty; give at least one")
    rows: list[dict[str, Any]] = []
    while True:
        if len(rows) == max_rows:
            raise Refused(413, f"rows: more than the {max_rows} that a request may have")
        row = text.value(f"row {len(rows) + 1}")
        if not isinstance(row, dict):
            raise Refused(
                400, f"rows: row {len(rows) + 1}: {shown(row)} is not an object, {{column: value}}"
            )
        kept = {name: row[name] for name in columns if name in row}
        for name, value in kept.items():
            _require_plain(value, len(rows), name, lists)
        rows.append(kept)
        if text.skip("]"):
            return rows
        if not text.skip(","):
            text.fail("expecting , or ]")


def _columns(
    text: "_Text", columns: Sequence[str], max_rows: int, lists: Collection[str]
) -> dict[str, list[Any]]:
    if not text.skip("{"):
        text.value()
        raise Refused(400, _FORM)
    found: dict[str, list[Any]] = {}
    for name in _keys(text):
        values = text.value(f"column {shown(name)}")
        if name not in columns:
            continue
        if not isinstance(values, list):
            raise Refused(400, f"columns: {name}: {shown(values)} is not a list of values")
        if not values:
            raise Refused(400, f"columns: {name}: empty; give at least one row")
        if len(values) > max_rows:
            raise Refused(413, f"columns: more than the {max_rows} rows that a request may have")
        for row, value in enumerate(values):
            _require_plain(value, row, name, lists)
        found[name] = values
    return found


def _require_plain(value: Any, row: int, name: str, lists: Collection[str]) -> None:
    if name in lists and isinstance(value, list):
        odd = next((each for each in value if isinstance(each, list | dict)), None)
        why = "has an element that is neither text nor a number"
    else:
        odd = value if isinstance(value, list | dict) else None
        why = "is neither text nor a number"
    if odd is not None:
        raise Refused(400, f"rows: row {row + 1}, column {name!r}: {shown(value)} {why}")


class _Text:
    """A JSON text, read from its beginning on."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._move(0)

    def skip(self, token: str) -> bool:
        """Whether a token comes next; it is passed then."""
        if not self._text.startswith(token, self._at):
            return False
        self._move(self._at + len(token))
        return True

    def value(self, what: str = "a part of it") -> Any:
        """The value that comes next; `what` it is, for the message about one that is too long."""
        for size in (_FIRST_TRY, MAX_ROW_CHARACTERS):
            piece = self._text[self._at : self._at + size]
            whole = self._at + size >= len(self._text)
            try:
                value, end = _DECODER.raw_decode(piece)
            except json.JSONDecodeError as error:
                if whole:
                    self.fail(error.msg, error.pos)
            except RecursionError:
                raise Refused(
                    400, "the body is not JSON that can be read: it is nested too deeply"
                ) from None
            except ValueError as error:  # NaN, or an integer of thousands of digits
                self.fail(str(error).partition(";")[0])
            else:
                # The piece may end within a number.
                if whole or end < len(piece) or piece[-1] in '"]}':
                    self._move(self._at + end)
                    return value
        raise Refused(
            400,
            f"the body is not JSON, or {what} is longer than {MAX_ROW_CHARACTERS:,} characters",
        )

    def end(self) -> None:
        if self._at < len(self._text):
            self.fail("expecting the end")

    def fail(self, why: str, further: int = 0) -> NoReturn:
        raise Refused(400, f"the body is not JSON ({why}, at character {self._at + further + 1:,})")

    def _move(self, at: int) -> None:
        match = _SPACE.match(self._text, at)
        assert match is not None
        self._at = match.end()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON; null stands for a missing one")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
