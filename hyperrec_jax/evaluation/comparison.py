"""One model for all preferences against the models that it is to replace.

A team that trains one model for each compromise has runs of them: single-task models, a shared
bottom, the same model trained for one preference. On the same rows, what does the front lose at its
ends, how much of the way between theirs does it cover, and which hypervolume has each?
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import pareto
from hyperrec_jax.evaluation.front import Front

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A front against other models.

    Attributes:
      front: The front of the one model.
      others: The other models' fronts, by name; one point each where a model takes no preference.
      regret: Loss of the front where it weighs a goal most, minus that of the other model that
        is best in the goal, `[goal]`; negative where the front is better.
      deviation: Its standard deviation over paired resamples of the rows, `[goal]`; None without
        bootstrap.
      covered: Part of the way between the others' ends that the front covers, `[goal]` in [0, 1];
        the end of a goal is the point that is best in it. NaN where all ends are equally good.
    """

    front: Front
    others: dict[str, Front]
    regret: Floats
    deviation: Floats | None
    covered: Floats

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary for each model, best over its preferences, the front's first."""
        return [
            {
                "model": name,
                **front.best(),
                "hypervolume": front.hypervolume,
                "loss_hypervolume": front.loss_hypervolume,
            }
            for name, front in {"this model": self.front, **self.others}.items()
        ]

    def regrets(self) -> dict[str, str]:
        """The regret of each goal as people read it, with its deviation if there is one."""
        texts = {}
        for index, task in enumerate(self.front.tasks):
            texts[task] = f"{self.regret[index]:+.5f}"
            if self.deviation is not None:
                texts[task] += f" ± {self.deviation[index]:.5f}"
        return texts

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""

        def by_task(values: Floats) -> dict[str, float]:
            return dict(zip(self.front.tasks, values.tolist(), strict=True))

        return {
            "models": self.records(),
            "end_point_regret": by_task(self.regret),
            "end_point_regret_deviation": None
            if self.deviation is None
            else by_task(self.deviation),
            "range_covered": by_task(self.covered),
        }


def _rows(front: Front) -> tuple[Any, ...]:
    """What tells the rows of a front and their labels from others."""
    return front.tasks, front.kinds, front.rows, front.labelled, front.positives


def compare(front: Front, others: Mapping[str, Front]) -> Comparison:
    """Compares fronts of the same rows.

    Args:
      front: The front of the model for all preferences.
      others: The fronts of other models, at least one, by name.

    Raises:
      UserError: a front is of other rows or goals.
    """
    for name, other in others.items():
        if _rows(other) != _rows(front):
            raise UserError(
                f"{name}: was scored on other rows than the model that it is held against"
            )
    points = np.concatenate([other.loss for other in others.values()])
    tasks = np.arange(len(front.tasks))
    best = points.argmin(axis=0)
    most = 0 * tasks if front.preferences is None else front.preferences.argmax(axis=0)
    deviation = None
    if front.samples and all(other.samples for other in others.values()):
        apart = np.concatenate(
            [other.samples.loss for other in others.values() if other.samples], axis=1
        )
        # The resamples are paired, whatever the number of preferences.
        gaps = front.samples.loss[:, most, tasks] - apart[:, best, tasks]
        deviation = gaps.std(axis=0, ddof=1)
    return Comparison(
        front=front,
        others=dict(others),
        regret=front.loss[most, tasks] - points[best, tasks],
        deviation=deviation,
        covered=pareto.range_covered(front.loss, points[best]),
    )
