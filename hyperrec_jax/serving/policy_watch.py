"""The policy of a running server, read again whenever its file changes."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.policy import Policy
from hyperrec_jax.serving.policy_file import parse_policy, read_policy

SECONDS = 1.0
"""How often the file is looked at."""

_LOGGER = logging.getLogger(__name__)


class WatchedPolicy:
    """A policy that is replaced as a whole: a request takes `current` once and keeps it.

    Attributes:
      current: The policy in force.
    """

    def __init__(self, path: Path, goals: tuple[str, ...]) -> None:
        """Reads the file.

        Args:
          path: The file.
          goals: Names of the model's goals.

        Raises:
          UserError: it can't be read, or does not fit the model.
        """
        self.current: Policy = read_policy(path, goals)
        self._seen = b""
        self._stamp = _stamp(path)

    async def watch(self, changed: Callable[[bool], None]) -> None:
        """Looks for changes until it is cancelled.

        Args:
          changed: Told of each change whether the new policy is in force.
        """
        while True:
            await asyncio.sleep(SECONDS)
            stamp = _stamp(self.current.path)
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            told = await asyncio.to_thread(self.look)
            if told is not None:
                changed(told)

    def look(self) -> bool | None:
        """Reads the file again; a bad one leaves the policy as it is, and a line in the log.

        Returns:
          Whether a new policy is in force; None where the content is as before.
        """
        path = self.current.path
        try:
            content = path.read_bytes()
            if content == self._seen:
                return None
            self._seen = content
            found = parse_policy(path, content, self.current.goals)
            if found.digest == self.current.digest:
                return None
            if found.version == self.current.version:
                raise UserError(
                    f"{path}: other content under version {found.version} again; give it a new "
                    "version"
                )
        except (UserError, OSError) as error:
            _LOGGER.error("policy %s stays in force: %s", self.current.version, error)
            return False
        before, self.current = self.current.version, found
        _LOGGER.warning("policy %s is in force, after %s", found.version, before)
        return True


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
