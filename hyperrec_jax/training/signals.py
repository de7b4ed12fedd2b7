"""SIGTERM and Ctrl-C while the loop runs: noticed between calls, by all processes at once."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from hyperrec_jax.errors import Preempted


class StopSignals:
    """Whether SIGTERM or Ctrl-C came; all processes agree on the call after which they stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._asked = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.signal = number

    def requested(self) -> bool:
        """Whether to stop now."""
        if jax.process_count() > 1:
            # The coordination service took SIGTERM, and names to all the next of these numbers.
            self._asked += 1
            return bool(multihost_utils.reached_preemption_sync_point(self._asked))
        return self.signal is not None

    def exception(self, step: int) -> BaseException:
        """What the loop raises once the state is saved."""
        message = f"stopped at step {step}, the state is saved; run the same command to go on"
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt(message)
        return Preempted(message)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catches SIGTERM and SIGINT while the loop runs."""
    handler = StopSignals()
    numbers: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    if jax.process_count() > 1:
        numbers = ()
    try:
        before = [(number, signal.signal(number, handler)) for number in numbers]
    except ValueError:  # not the main thread (a notebook's worker): signals are not ours
        before = []
    try:
        yield handler
    finally:
        for number, former in before:
            signal.signal(number, former)
