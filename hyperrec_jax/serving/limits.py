"""What one server takes, and how it ends."""

import dataclasses
import math

from hyperrec_jax.errors import UserError

MAX_BODY_BYTES = 8 << 20
MAX_QUEUED_ROWS = 1 << 16
"""Rows that may wait for the model; a request beyond them is told to come back."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server, each an option of `hyperrec serve`.

    Attributes:
      max_rows: Rows that one request may hold, 1 to `MAX_QUEUED_ROWS`.
      max_in_flight: Requests that may be decoded or scored, or wait for that, at a time, 1 or more;
        others are told to come back.
      body_seconds: Time in which the body of a request must have arrived, above 0.
      body_mib: MiB that the bodies of all requests may hold together, at least one body's.
      drain_seconds: After the first SIGTERM or Ctrl-C, time in which new requests are still
        answered, 0 or more.
      graceful_seconds: After that, time in which requests that are under way may finish, 1 or more.

    Raises:
      UserError: one of them is out of its range.
    """

    max_rows: int = 1024
    max_in_flight: int = 512
    body_seconds: float = 30.0
    body_mib: int = 64
    drain_seconds: float = 1.0
    graceful_seconds: int = 20

    def __post_init__(self) -> None:
        _require(
            1 <= self.max_rows <= MAX_QUEUED_ROWS,
            f"--max-rows {self.max_rows}: give 1 to {MAX_QUEUED_ROWS:,}",
        )
        _require(self.max_in_flight >= 1, f"--max-in-flight {self.max_in_flight}: give 1 or more")
        _require(
            0 < self.body_seconds < math.inf,
            f"--body-seconds {self.body_seconds:g}: give a number above 0",
        )
        _require(
            self.body_mib >= MAX_BODY_BYTES >> 20,
            f"--body-mib {self.body_mib}: give {MAX_BODY_BYTES >> 20} or more, the size of the "
            "largest body",
        )
        _require(
            0 <= self.drain_seconds < math.inf,
            f"--drain-seconds {self.drain_seconds:g}: give 0 or more",
        )
        _require(
            self.graceful_seconds >= 1,
            f"--graceful-seconds {self.graceful_seconds}: give 1 or more",
        )


def _require(fine: bool, otherwise: str) -> None:
    if not fine:
        raise UserError(otherwise)
