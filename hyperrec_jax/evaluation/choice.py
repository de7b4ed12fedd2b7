"""Picks the preference of a front for a goal.

Goals, over the preferences of a front that `hyperrec evaluate` wrote:

  best:buy               the best main metric of a goal: the highest AUC of a binary one
  best:buy,click=1%      the same, among those that lose at most 1 % of the best metric of the other
                         goals that are named (click=0.01 is the absolute difference)
  knee                   the point farthest from the line (plane) between the ends of the front,
                         both scaled to their ranges (Das 1999, doi 10.1007/s001580050111)
  ratio:click=2,buy=1    normalised losses in this ratio: what each goal loses of its best metric,
                         scaled so that its best is 0 and its worst 1
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import pareto
from hyperrec_jax.evaluation.front import Front

_SEE_HELP = "see `hyperrec suggest --help`"


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A preference and what it gives.

    Attributes:
      tasks: Names of the goals.
      preference: Weight of each goal, `[goal]`.
      value: Main metric of each goal, `[goal]`: the AUC of a binary one.
      best_value: The best that any preference has, `[goal]`.
      metrics: Name of the main metric of each goal.
    """

    tasks: tuple[str, ...]
    preference: np.ndarray
    value: np.ndarray
    best_value: np.ndarray
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"--preference {','.join(f'{weight:.4g}' for weight in self.preference)}"]
        lines += [
            f"  {task}: weight {weight:.4f}, {'AUC' if metric == 'auc' else metric} {value:.4f}, "
            f"{value - best:+.4f} to the best"
            for task, weight, metric, value, best in zip(
                self.tasks,
                self.preference,
                self.metrics,
                self.value,
                self.best_value,
                strict=True,
            )
        ]
        return "\n".join(lines)


def suggest_preference(front: Front | Mapping[str, Any], goal: str) -> Suggestion:
    """The preference of a front that serves a goal best.

    Args:
      front: An `evaluation.Front`, or the dictionary in `front.json`.
      goal: `best:TASK[,OTHER=LOSS...]`, `knee` or `ratio:TASK=SHARE,...`; see the module.

    Raises:
      UserError: the goal is malformed, no preference meets it, or the front has no choice: the
        model takes no preference, or a metric is undefined.
    """
    points = _points(front)
    tasks, gain = points.tasks, points.value * points.sign
    name, _, rest = goal.partition(":")
    if name not in _GOALS:
        raise UserError(f"--goal {goal}: unknown; there are {', '.join(_GOALS)}; {_SEE_HELP}")
    chosen = _GOALS[name](tasks, gain, rest)
    best = gain.max(axis=0) * points.sign
    return Suggestion(tasks, points.preferences[chosen], points.value[chosen], best, points.metrics)


class _Points(NamedTuple):
    """The main metrics of a front, `[preference, goal]`, and how they are read.

    Attributes:
      tasks: Names of the goals.
      metrics: Name of the main metric of each.
      preferences: `[preference, goal]`.
      value: `[preference, goal]`.
      sign: 1 where higher is better, -1 where lower is, `[goal]`.
    """

    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    preferences: np.ndarray
    value: np.ndarray
    sign: np.ndarray


def _points(front: Front | Mapping[str, Any]) -> _Points:
    values = front.to_dict() if isinstance(front, Front) else front
    tasks = tuple(values["tasks"])
    # What was written before there were other goals has binary ones.
    goals = values.get("goals", {})
    names = [goals.get(task, {}).get("metric", f"auc/{task}") for task in tasks]
    better = [goals.get(task, {}).get("better", "higher") for task in tasks]
    records = values["preferences"]
    if f"preference/{tasks[0]}" not in records[0]:
        raise UserError("the model takes no preference, so that there is nothing to choose")
    value = np.array([[record[name] for name in names] for record in records], np.float64)
    for index, name in enumerate(names):
        if np.isnan(value[:, index]).any():
            metric = name.partition("/")[0]
            told = f"AUC of {tasks[index]} is undefined (one class only)"
            if metric != "auc":
                told = f"{metric} of {tasks[index]} is undefined (no label, or one value only)"
            raise UserError(f"{told}: evaluate on another split")
    return _Points(
        tasks,
        tuple(name.partition("/")[0] for name in names),
        np.array([[record[f"preference/{task}"] for task in tasks] for record in records]),
        value,
        np.array([1.0 if direction == "higher" else -1.0 for direction in better]),
    )


def _best(tasks: tuple[str, ...], gain: np.ndarray, rest: str) -> int:
    task, *limits = rest.split(",")
    goal = _index(tasks, task)
    allowed = np.ones(len(gain), bool)
    for other, text in map(_pair, limits):
        column = gain[:, _index(tasks, other)]
        relative = text.endswith("%")
        loss = _number(text.removesuffix("%")) / (100 if relative else 1)
        best = column.max()
        # The tolerance is for the rounding of `best - loss`.
        allowed &= column >= (best - abs(best) * loss if relative else best - loss) - 1e-12
    if not allowed.any():
        raise UserError(
            f"no preference gives up so little at once ({', '.join(limits)}); allow more"
        )
    return int(np.argmax(np.where(allowed, gain[:, goal], -math.inf)))


def _knee(tasks: tuple[str, ...], gain: np.ndarray, rest: str) -> int:
    if rest:
        raise UserError(f"--goal knee takes nothing after it, not {rest!r}")
    losses = _scaled_losses(gain)
    front = pareto.non_dominated(-gain)
    # With every goal scaled to [0, 1] the plane through the ends has the normal (1, ..., 1).
    return int(np.argmin(np.where(front, losses.sum(axis=1), math.inf)))


def _ratio(tasks: tuple[str, ...], gain: np.ndarray, rest: str) -> int:
    shares = {_index(tasks, task): _number(text) for task, text in map(_pair, rest.split(","))}
    if len(shares) != len(tasks) or sum(shares.values()) <= 0:
        raise UserError(f"--goal ratio needs a share for each of {', '.join(tasks)}; {_SEE_HELP}")
    target = np.array([shares[index] for index in range(len(tasks))])
    losses = _scaled_losses(gain)
    total = losses.sum(axis=1, keepdims=True)
    parts = np.divide(losses, total, out=np.full_like(losses, math.inf), where=total > 0)
    distance = np.abs(parts - target / target.sum()).sum(axis=1)
    distance[total[:, 0] == 0] = 0  # best in every goal: no ratio to keep
    return int(np.argmin(np.where(pareto.non_dominated(-gain), distance, math.inf)))


_GOALS: dict[str, Callable[[tuple[str, ...], np.ndarray, str], int]] = {
    "best": _best,
    "knee": _knee,
    "ratio": _ratio,
}


def _scaled_losses(gain: np.ndarray) -> np.ndarray:
    """What is lost of the main metrics, the best of each goal at 0, the worst of the front at 1."""
    best = gain.max(axis=0)
    span = best - gain[pareto.non_dominated(-gain)].min(axis=0)
    return np.divide(best - gain, span, out=np.zeros_like(gain), where=span > 0)


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
    """The `front.json` that `hyperrec evaluate` wrote; an undefined metric reads as NaN.

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
