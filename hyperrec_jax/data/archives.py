"""Zip files from elsewhere, read with suspicion."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from hyperrec_jax.data.csv_reader import TextFile
from hyperrec_jax.errors import UserError

MAX_EXPANSION = 200
"""Text of numbers deflates to a tenth or so; bombs to a thousandth."""

_ALWAYS_FINE_BYTES = 16 << 20
_ENCRYPTED_OR_PATCHED = 0x1 | 0x20 | 0x40


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file after a look at the names and sizes it declares.

    Raises:
      UserError: It is truncated, encrypted, or holds absolute names, names that leave the folder,
        symbolic links, or members that expand absurdly.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path}: truncated or not a zip file ({error}); download it again"
        ) from error
    with archive:
        # A truncated zip of stored zips still ends in a directory: that of an inner one.
        if min((member.header_offset for member in archive.infolist()), default=0) != 0:
            raise UserError(f"{path}: truncated or not a zip file; download it again")
        for member in archive.infolist():
            _refuse_suspicious(path, member)
        yield archive


def _refuse_suspicious(path: Path, member: zipfile.ZipInfo) -> None:
    # Backslashes and drive letters are path syntax on some systems only: refused on all.
    name = PurePosixPath(member.filename.replace("\\", "/"))
    reason = None
    if name.is_absolute() or ".." in name.parts or ":" in member.filename:
        reason = "a name that leaves the folder"
    elif stat.S_ISLNK(member.external_attr >> 16):
        reason = "a symbolic link"
    elif member.flag_bits & _ENCRYPTED_OR_PATCHED:
        reason = "encrypted"
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = f"compressed by method {member.compress_type}, neither stored nor deflated"
    elif member.file_size > max(_ALWAYS_FINE_BYTES, MAX_EXPANSION * member.compress_size):
        reason = f"{member.compress_size} bytes that claim to expand to {member.file_size}"
    if reason is not None:
        raise UserError(
            f"{path}: refused, its member {member.filename!a} is {reason}; "
            "get the archive from its original source"
        )


def member_file(path: Path, member: str) -> TextFile:
    """A member of a zip file as a readable text; no more than its declared size is ever read."""
    with open_zip(path) as archive:
        size = archive.getinfo(member).file_size
    # Closing the member closes the archive, which zipfile keeps open for it.
    return TextFile(f"{path}/{member}", size, lambda: _open_member(path, member))


def _open_member(path: Path, member: str) -> BinaryIO:
    with zipfile.ZipFile(path) as archive:
        return cast(BinaryIO, archive.open(member))


def copy_member(path: Path, member: str, target: IO[bytes]) -> None:
    """Copies a member of a zip file, checking its checksum.

    Raises:
      UserError: The member is damaged.
    """
    file = member_file(path, member)
    try:
        with file.open() as source:
            while block := source.read(1 << 20):
                target.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{file.name}: truncated or damaged; download it again") from error
