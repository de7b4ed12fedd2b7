"""Files that appear whole or not at all, and disk errors said in one line."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from hyperrec_jax.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}


@contextlib.contextmanager
def explain_write_errors(path: Path, kept: str = "finished stages are kept") -> Iterator[None]:
    """Turns a full disk or a missing permission under `path` into a `UserError`.

    Args:
      path: What is written.
      kept: What the same command goes on from.
    """
    try:
        yield
    except Exception as error:  # TensorStore tells the number of the error in a text
        told = re.search(r"os_error_code='(\d+)'", str(error))
        number = error.errno if isinstance(error, OSError) else told and int(told[1])
        if number in _FULL:
            raise UserError(
                f"{path}: no space left on the disk; free some and run the same command again, "
                f"{kept}"
            ) from error
        if number in _FORBIDDEN:
            raise UserError(
                f"{path}: cannot be written ({os.strerror(number)}); choose another output folder"
            ) from error
        raise


def is_of_the_disk(error: UserError) -> bool:
    """Whether an error is one that `explain_write_errors` told, and no refusal of the input."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _FULL | _FORBIDDEN


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes its name only once complete.

    On any error the half-written file is removed, and what stood under the name before stays. Two
    that write one file at once do not see each other: the last to end has its file there, whole.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.writing")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written_together(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A folder for files that take their places in another one all at once, once all are complete.

    Args:
      folder: Where they go; made where it is missing.
      names: All files that may be written so. Those of an earlier time are removed just before, so
        that files of two times never stand side by side; other files stay as they are.

    Yields:
      The folder to write to.

    Raises:
      UserError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror})") from error
    try:
        with explain_write_errors(folder):
            yield temporary
            for name in names:
                (folder / name).unlink(missing_ok=True)
            for path in sorted(temporary.iterdir()):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, path: Path) -> None:
    """Puts a complete folder in the place of another, which is removed."""
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def file_checksum(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
