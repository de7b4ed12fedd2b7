"""Small results as text: records as CSV, and JSON files that know whether they are whole."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hyperrec_jax.data.files import explain_write_errors, written_whole
from hyperrec_jax.errors import UserError

T = TypeVar("T")


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records of the same keys as CSV with a header; one record at least."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def write_checked(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON with a checksum over itself.

    Raises:
      UserError: the file can't be written.
    """
    content = {"checksum": _checksum(values), **values}
    with explain_write_errors(path), written_whole(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_checked(path: Path, parse: Callable[[dict[str, Any]], T], remedy: str) -> T:
    """Reads what `write_checked` wrote.

    Args:
      path: The file.
      parse: Makes of the values what they stand for.
      remedy: What to do about a damaged file.

    Raises:
      FileNotFoundError: the file is not there.
      UserError: it is damaged.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        checksum = values.pop("checksum")
        if checksum == _checksum(values):
            return parse(values)
        why = "it fails its own checksum"
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
    raise UserError(f"{path}: damaged ({why}); {remedy}") from None


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
