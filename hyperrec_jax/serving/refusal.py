"""What the server says to a request that it does not serve."""

from typing import Any

SHOWN = 80
"""Characters of a user's value that a message repeats at most."""


class Refused(Exception):  # noqa: N818 - an answer, no error
    """A request that is not served.

    Attributes:
      status: The HTTP status, 400 to 599.
      close: Whether the connection is closed after the answer, because a part of the request was
        left unread.
    """

    def __init__(self, status: int, why: str, close: bool = False) -> None:
        super().__init__(why)
        self.status = status
        self.close = close


def shown(value: Any) -> str:
    """A value as a message repeats it: ASCII, on one line, and cut where it is long."""
    long = isinstance(value, str) and len(value) > SHOWN
    text = ascii(value[:SHOWN] if long else value)
    return f"{text[:SHOWN]}..." if long or len(text) > SHOWN else text
