"""What was fitted to a selected model, and lies beside it in the run's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar


class Fitted(Protocol):
    """Knows the training step of the model that it was fitted to."""

    @property
    def step(self) -> int: ...


T = TypeVar("T", bound=Fitted)


def kept_fit(load: Callable[[Path], T], path: Path, step: int | None) -> T | None:
    """What a file holds; None where there is none, or one of another step.

    Args:
      load: Reads the file.
      path: The file.
      step: Training step of the selected model.

    Raises:
      UserError: the file is damaged.
    """
    try:
        found = load(path)
    except FileNotFoundError:
        return None
    return found if found.step == step else None
