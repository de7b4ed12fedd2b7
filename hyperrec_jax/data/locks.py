"""One process at a time in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hyperrec_jax.errors import UserError


@contextlib.contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Holds a lock file for this process; the system lets go of it however the process ends.

    Args:
      path: The lock file; made where it is missing, never changed.
      taken: What to say where another process holds it.

    Raises:
      UserError: another process holds it, or the system has no such locks.
    """
    with path.open("a") as handle:
        try:
            take(handle.fileno())
        except BlockingIOError:
            raise UserError(taken) from None
        yield


def take(handle: int) -> None:
    """Locks an open file or folder until it is closed.

    Raises:
      BlockingIOError: another process holds it.
      UserError: the system has no such locks.
    """
    try:
        import fcntl  # here and not at the top: Windows has none, and says so in one line
    except ModuleNotFoundError:
        raise UserError(
            "this system can't lock a file (fcntl): hyperrec_jax prepares and trains on Linux and "
            "macOS; on Windows run it in WSL 2"
        ) from None
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
