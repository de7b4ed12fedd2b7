"""The exceptions that end a command with one line."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from importlib import metadata


class UserError(Exception):
    """Something the user can put right: a bad file, value, preference or option.

    The message is one line that says what is wrong, where (file, column, row, value) and what to
    do. Command lines print it without a traceback and exit with code 2.
    """


class TrainingError(Exception):
    """Training can't go on (a loss that is not finite, a lost process); says at which step."""


class Preempted(BaseException):
    """SIGTERM came: what is done is saved, the same command goes on from it.

    As `KeyboardInterrupt`, no error: code that deals with any error must not take it for one.
    """


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports of what an extra of the package installs.

    Raises:
      UserError: the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # By their names: the package itself may have come from a checkout, not from an index.
        needed = [
            text.partition(";")[0].strip()
            for text in metadata.requires("hyperrec-jax") or ()
            if re.search(rf"extra == ['\"]{extra}['\"]", text)
        ]
        packages = " ".join(f"'{package}'" for package in needed)
        raise UserError(
            f"{error.name} is not installed: python -m pip install {packages}"
        ) from error


def suggestion(name: str, known: Iterable[str]) -> str:
    """'did you mean ...?' with the nearest names, or the list of all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 3, 0.65)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(names)}" if names else "there are none"
