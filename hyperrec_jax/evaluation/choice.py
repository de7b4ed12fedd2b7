"""Picks the preference of a front for a goal.

Goals, over the preferences of a front that `hyperrec evaluate` wrote:

  best:buy               highest AUC of a goal
  best:buy,click=1%      the same, among those that lose at most 1 % of the best AUC of the other
                         goals that are named (click=0.01 is the absolute difference)
  knee                   the point farthest from the line (plane) between the ends of the front,
                         both scaled to their ranges (Das 1999, doi 10.1007/s001580050111)
  ratio:click=2,buy=1    normalised losses in this ratio: losses of 1 - AUC, scaled so that the best
                         of each goal is 0 and its worst 1
"""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import pareto

_SEE_HELP = "see `hyperrec suggest --help`"


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A preference and what it gives.

    Attributes:
      tasks: Names of the goals.
      preference: Weight of each goal, `[goal]`.
      auc: Its AUC, `[goal]`.
      best_auc: The best AUC that any preference has, `[goal]`.
    """

    tasks: tuple[str, ...]
    preference: np.ndarray
    auc: np.ndarray
    best_auc: np.ndarray

    def __str__(self) -> str:
        lines = [f"--preference {','.join(f'{weight:.4g}' for weight in self.preference)}"]
        lines += [
            f"  {task}: weight {weight:.4f}, AUC {auc:.4f}, {auc - best:+.4f} to the best"
            for task, weight, auc, best in zip(
                self.tasks, self.preference, self.auc, self.best_auc, strict=True
            )
        ]
        return "\n".join(lines)


def suggest_preference(front: Any, goal: str) -> Suggestion:
    """The preference of a front that serves a goal best.

    Args:
      front: An `evaluation.Front`, or the dictionary in `front.json`.
      goal: `best:TASK[,OTHER=LOSS...]`, `knee` or `ratio:TASK=SHARE,...`; see the module.

    Raises:
      UserError: the goal is malformed, no preference meets it, or the front has no choice: the
        model takes no preference, or an AUC is undefined.
    """
    tasks, preferences, auc = _points(front)
    name, _, rest = goal.partition(":")
    if name not in _GOALS:
        raise UserError(f"--goal {goal}: unknown; there are {', '.join(_GOALS)}; {_SEE_HELP}")
    chosen = _GOALS[name](tasks, auc, rest)
    return Suggestion(tasks, preferences[chosen], auc[chosen], auc.max(axis=0))


def _points(front: Any) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    values = front if isinstance(front, dict) else front.to_dict()
    tasks = tuple(values["tasks"])
    records = values["preferences"]
    if f"preference/{tasks[0]}" not in records[0]:
        raise UserError("the model takes no preference, so that there is nothing to choose")
    auc = np.array([[record[f"auc/{task}"] for task in tasks] for record in records], np.float64)
    undefined = [task for index, task in enumerate(tasks) if np.isnan(auc[:, index]).any()]
    if undefined:
        raise UserError(
            f"AUC of {undefined[0]} is undefined (one class only): evaluate on another split"
        )
    preferences = np.array([[record[f"preference/{task}"] for task in tasks] for record in records])
    return tasks, preferences, auc


def _best(tasks: tuple[str, ...], auc: np.ndarray, rest: str) -> int:
    task, *limits = rest.split(",")
    goal = _index(tasks, task)
    allowed = np.ones(len(auc), bool)
    for other, text in map(_pair, limits):
        column = auc[:, _index(tasks, other)]
        relative = text.endswith("%")
        loss = _number(text.removesuffix("%")) / (100 if relative else 1)
        best = column.max()
        # The tolerance is for the rounding of `best - loss`.
        allowed &= column >= (best * (1 - loss) if relative else best - loss) - 1e-12
    if not allowed.any():
        raise UserError(
            f"no preference gives up so little at once ({', '.join(limits)}); allow more"
        )
    return int(np.argmax(np.where(allowed, auc[:, goal], -math.inf)))


def _knee(tasks: tuple[str, ...], auc: np.ndarray, rest: str) -> int:
    if rest:
        raise UserError(f"--goal knee takes nothing after it, not {rest!r}")
    losses = _scaled_losses(auc)
    front = pareto.non_dominated(1 - auc)
    # With every goal scaled to [0, 1] the plane through the ends has the normal (1, ..., 1).
    return int(np.argmin(np.where(front, losses.sum(axis=1), math.inf)))


def _ratio(tasks: tuple[str, ...], auc: np.ndarray, rest: str) -> int:
    shares = {_index(tasks, task): _number(text) for task, text in map(_pair, rest.split(","))}
    if len(shares) != len(tasks) or sum(shares.values()) <= 0:
        raise UserError(f"--goal ratio needs a share for each of {', '.join(tasks)}; {_SEE_HELP}")
    target = np.array([shares[index] for index in range(len(tasks))])
    losses = _scaled_losses(auc)
    total = losses.sum(axis=1, keepdims=True)
    parts = np.divide(losses, total, out=np.full_like(losses, math.inf), where=total > 0)
    distance = np.abs(parts - target / target.sum()).sum(axis=1)
    distance[total[:, 0] == 0] = 0  # best in every goal: no ratio to keep
    return int(np.argmin(np.where(pareto.non_dominated(1 - auc), distance, math.inf)))


_GOALS: dict[str, Callable[[tuple[str, ...], np.ndarray, str], int]] = {
    "best": _best,
    "knee": _knee,
    "ratio": _ratio,
}


def _scaled_losses(auc: np.ndarray) -> np.ndarray:
    """`1 - AUC` with the best of each goal at 0 and the worst of the front at 1."""
    best = auc.max(axis=0)
    span = best - auc[pareto.non_dominated(1 - auc)].min(axis=0)
    return np.divide(best - auc, span, out=np.zeros_like(auc), where=span > 0)


def _index(tasks: tuple[str, ...], task: str) -> int:
    if task not in tasks:
        raise UserError(f"--goal: no goal {task!r}; there are {', '.join(tasks)}")
    return tasks.index(task)


def _pair(text: str) -> tuple[str, str]:
    task, equals, value = text.rpartition("=")
    if not equals:
        raise UserError(f"--goal: {text!r} is not of the form TASK=NUMBER; {_SEE_HELP}")
    return task, value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"--goal: {text!r} is not a number of 0 or more; {_SEE_HELP}")
    return value


def read_front(workdir: Path, split: str) -> dict[str, Any]:
    """The `front.json` that `hyperrec evaluate` wrote; an undefined AUC reads as NaN.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = workdir / "evaluation" / split / "front.json"
    try:
        values = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path}: missing; write it with `hyperrec evaluate --workdir {workdir} "
            f"--split {split}`"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error}); evaluate again") from error
    for record in values["preferences"]:
        record |= {name: math.nan for name, value in record.items() if value is None}
    return values
