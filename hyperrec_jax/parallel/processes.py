"""What the processes of a run do together; with one process, what it does alone."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hyperrec_jax.errors import UserError

_MESSAGE_BYTES = 4096


def is_first() -> bool:
    """Whether this is the process that writes logs and tables."""
    return jax.process_index() == 0


def on_first(action: Callable[[], None]) -> None:
    """Runs an action in process 0; the others wait for it.

    Raises:
      UserError: the action's, in all processes.
    """
    if jax.process_count() == 1:
        action()
        return
    message = ""
    if is_first():
        try:
            action()
        except UserError as error:
            message = str(error)
    message = from_first(message.encode()).decode(errors="replace")
    if message:
        raise UserError(message)


def from_first(message: bytes) -> bytes:
    """What process 0 says, in all processes.

    Args:
      message: In process 0: without trailing zeros; what is over 4 KiB is cut off.
    """
    message = message[:_MESSAGE_BYTES]
    sent = np.zeros(_MESSAGE_BYTES, np.uint8)
    sent[: len(message)] = np.frombuffer(message, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent)).astype(np.uint8)
    return received.tobytes().rstrip(b"\0")


def check_same(values: Mapping[str, str]) -> None:
    """Checks that all processes have the same values, without which they would wait forever.

    Args:
      values: By what they are, for the error.

    Raises:
      UserError: they differ.
    """
    for what, value in values.items():
        digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
        if not (gathered(digest) == digest).all():
            raise UserError(f"the processes differ in {what}; give the same to all of them")


def all_agree(value: bool) -> bool:
    """Whether a value is true in every process."""
    return bool(gathered(np.array(value)).all())


def gathered(value: np.ndarray) -> np.ndarray:
    """The array that each process has, `[process, ...]`."""
    return np.asarray(multihost_utils.process_allgather(value))


def local(tree: Any) -> Any:
    """A pytree of global arrays on a device of this process; with one process, as it is."""
    return tree if jax.process_count() == 1 else jax.device_put(fetch(tree))


def fetch(tree: Any) -> Any:
    """A pytree of global arrays as NumPy arrays, whole in every process."""
    return jax.tree.map(
        lambda leaf: (
            np.asarray(leaf)
            if not isinstance(leaf, jax.Array)
            or leaf.is_fully_addressable
            or leaf.is_fully_replicated
            else multihost_utils.process_allgather(leaf, tiled=True)
        ),
        tree,
    )
