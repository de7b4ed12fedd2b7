"""Compiles validation in a thread while the first steps are compiled and run."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import jax

from hyperrec_jax.training.checkpoint import Progress
from hyperrec_jax.training.hooks import Hook

logger = logging.getLogger(__name__)


class CompiledAhead:
    """A function of `jax.jit` whose program may be compiled before it is first called.

    A call waits for a program that is being compiled. Arguments of other shapes than it was
    compiled for, and a program that could not be compiled, go to the function itself.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Takes a function that `jax.jit` returned."""
        self._function: Any = function
        self._compiled: Any = None
        self._thread: threading.Thread | None = None

    def start(self, arguments: Callable[[], tuple[Any, ...]]) -> None:
        """Begins to compile in a thread, if that has not been done.

        Args:
          arguments: Called in the thread, gives the arguments or their shapes and shardings.
        """
        if self._compiled is not None:
            return
        self._thread = threading.Thread(target=self._compile, args=(arguments,), daemon=True)
        self._thread.start()

    def _compile(self, arguments: Callable[[], tuple[Any, ...]]) -> None:
        try:
            self._compiled = self._function.lower(*arguments()).compile()
        except Exception:  # the call will say what is wrong, where it can be handled
            logger.debug("not compiled ahead", exc_info=True)

    def wait(self) -> None:
        """Waits until nothing is being compiled."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __call__(self, *arguments: Any) -> Any:
        self.wait()
        if self._compiled is not None:
            try:
                return self._compiled(*arguments)
            except (TypeError, ValueError):  # other shapes, types or placements
                self._compiled = None
        return self._function(*arguments)


class CompileAhead(Hook):
    """Compiles a function beside the first steps of a run of one process.

    Several processes compile in one order, so that none waits for another.
    """

    def __init__(self, function: CompiledAhead, arguments: Callable[[], tuple[Any, ...]]) -> None:
        self._function, self._arguments = function, arguments

    def begin(self, progress: Progress, first: int, total: int) -> None:
        if first < total and jax.process_count() == 1:
            self._function.start(self._arguments)

    def close(self) -> None:
        self._function.wait()  # an interpreter that ends while a thread compiles may crash
