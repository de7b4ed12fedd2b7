"""What a tracker is, and how those that a config names are opened."""

import contextlib
import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hyperrec_jax.errors import UserError
from hyperrec_jax.registry import Registry

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """A place that shows runs.

    A class that needs a package which is not always installed names it as `extra`, the name of the
    package and of the extra of this project that brings it.
    """

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Takes finite values by name.

        Args:
          step: Steps trained so far.
          kind: What they were measured on: `train`, `validation`, or the split of an evaluation.
          values: Values by name, such as `loss/click`.
        """

    def file(self, step: int, kind: str, path: Path) -> None:
        """Takes a file of an evaluation: a picture (`.png`) or a table (`.json`, `.csv`)."""

    def close(self) -> None:
        """Writes what is still held."""


TRACKERS: Registry[Tracker] = Registry("tracker", "hyperrec_jax.training.trackers")


class Guarded:
    """A tracker whose failure ends no run: it is told once, and the run goes on without it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._failed = False

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        self._try(lambda: self._tracker.scalars(step, kind, values))

    def file(self, step: int, kind: str, path: Path) -> None:
        self._try(lambda: self._tracker.file(step, kind, path))

    def close(self) -> None:
        self._try(self._tracker.close)

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # whatever foreign code and networks raise
            self._failed = True
            logger.warning("%s: %s; the run goes on without it", self._name, first_line(error))


def require_trackers(names: Sequence[str]) -> None:
    """Refuses names that no tracker has, and trackers whose package is not installed.

    Raises:
      UserError: there is one.
    """
    for name in names:
        package = getattr(TRACKERS.find(name), "extra", None)
        if package is None:
            continue
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"train.trackers: {name} is not installed: pip install 'hyperrec-jax[{package}]'"
            ) from error


def open_trackers(
    names: Sequence[str], workdir: Path, config: dict[str, Any], step: int
) -> list[Tracker]:
    """The trackers of a run.

    Args:
      names: Their names.
      workdir: The run's folder, whose name is the run's.
      config: The run's config, which MLflow and Weights & Biases show.
      step: Step that the run goes on from.

    Raises:
      UserError: one can't be opened, such as where its server does not answer.
    """
    trackers: list[Tracker] = []
    for name in names:
        try:
            trackers.append(Guarded(name, TRACKERS.find(name)(workdir, config, step)))
        except Exception as error:  # whatever foreign code and networks raise
            raise UserError(
                f"train.trackers: {name} can't be opened: {first_line(error)}; see its settings, "
                "or leave it out"
            ) from error
    return trackers


@contextlib.contextmanager
def opened(
    names: Sequence[str], workdir: Path, config: dict[str, Any], step: int
) -> Iterator[list[Tracker]]:
    """`open_trackers`, closed at the end.

    Raises:
      UserError: as there.
    """
    trackers = open_trackers(names, workdir, config, step)
    try:
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()


def finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that are numbers: trackers draw no other."""
    return {k: value for k, value in values.items() if value is not None and math.isfinite(value)}


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def kept_name(workdir: Path, tracker: str, make: Callable[[], str]) -> str:
    """The run's name at a tracker, made once and kept in the workdir, so that a run that goes on
    goes on there, too."""
    path = workdir / "trackers" / tracker
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(make(), "utf-8")
    return path.read_text("utf-8")
