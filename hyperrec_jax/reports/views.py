"""The ways to look at a front: by its lists, by its predictions, by their losses."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.guards import lower_bounds
from hyperrec_jax.evaluation.list_front import ListFront

Floats = NDArray[np.float64]

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class View:
    """One measure for each goal, under every preference.

    Attributes:
      name: 'lists', 'predictions' or 'losses'.
      goals: Names of the goals.
      measures: Name of the measure of each goal as `hyperrec suggest` takes it.
      labels: The same for people, without the goal: 'NDCG@10'.
      higher: Whether more of it is better, for each goal.
      preferences: `[preference, goal]`; None for a model that takes none.
      values: `[preference, goal]`.
      not_dominated: `[preference]`.
      samples: Values on paired resamples, `[resample, preference, goal]`; None without.
    """

    name: str
    goals: tuple[str, ...]
    measures: tuple[str, ...]
    labels: tuple[str, ...]
    higher: tuple[bool, ...]
    preferences: Floats | None
    values: Floats
    not_dominated: NDArray[np.bool_]
    samples: Floats | None = None

    @property
    def sign(self) -> Floats:
        """1 where more is better, -1 where less is, `[goal]`."""
        return np.where(self.higher, 1.0, -1.0)

    @property
    def interval(self) -> Floats | None:
        """95 % interval of the values, `[2, preference, goal]`; None without resamples."""
        return None if self.samples is None else interval(self.samples)

    @property
    def has_choice(self) -> bool:
        """Whether there are preferences to choose from."""
        return self.preferences is not None and len(self.preferences) > 1

    def centre(self) -> int:
        """The preference that is nearest to equal weights."""
        assert self.preferences is not None
        goals = self.preferences.shape[1]
        return int(np.abs(self.preferences - 1 / goals).max(axis=1).argmin())

    def doubt(self, baseline: int) -> Floats | None:
        """What must be taken off a gain over a baseline so that it is sure.

        The bounds hold for all preferences and goals at once (see `evaluation.guards`).

        Args:
          baseline: Position of the preference that all are compared with.

        Returns:
          `[preference, goal]`; None without resamples that tell.
        """
        if self.samples is None:
            return None
        drawn = self.samples[np.isfinite(self.samples).all(axis=(1, 2))]
        if len(drawn) < 2:
            return None
        change = self.sign * (self.values - self.values[baseline])
        samples = self.sign * (drawn - drawn[:, baseline, None])
        return change - lower_bounds(change, samples, CONFIDENCE)

    def guarded(self, goal: int, allowed: float, baseline: int) -> int | None:
        """The preference that gains a goal most while the others surely lose little.

        Args:
          goal: Position of the goal to improve.
          allowed: Part of the baseline's value that each other goal may lose.
          baseline: Position of the baseline.

        Returns:
          Its position, that of the baseline where nothing is surely better; None without
          resamples.
        """
        doubt = self.doubt(baseline)
        if doubt is None:
            return None
        sure = self.sign * (self.values - self.values[baseline]) - doubt
        limit = -allowed * np.abs(self.values[baseline])
        others = np.arange(len(self.goals)) != goal
        keeps = (sure >= limit - 1e-12)[:, others].all(axis=1) & (sure[:, goal] > 0)
        if not keeps.any():
            return baseline
        merit = self.sign[goal] * self.values[:, goal]
        return int(np.argmax(np.where(keeps, merit, -np.inf)))


def views(front: Front) -> list[View]:
    """All ways to look at a front; the lists come first where there are any."""
    found = [] if front.lists is None else [of_lists(front.lists.first)]
    better = [
        front.direction(f"{metric}/{goal}") == "higher"
        for metric, goal in zip(front.primary, front.tasks, strict=True)
    ]
    plain = set(front.primary) == {"auc"}
    found.append(
        View(
            "predictions",
            front.tasks,
            tuple(f"{m}/{goal}" for m, goal in zip(front.primary, front.tasks, strict=True)),
            tuple("AUC" if metric == "auc" else metric for metric in front.primary),
            tuple(better),
            front.preferences,
            front.value,
            front.non_dominated,
            front.samples.auc if front.samples is not None and plain else None,
        )
    )
    binary = [kind == "binary" for kind in front.kinds]
    found.append(
        View(
            "losses",
            front.tasks,
            tuple(
                f"{'log_loss' if one else 'loss'}/{goal}"
                for one, goal in zip(binary, front.tasks, strict=True)
            ),
            tuple("log loss" if one else "loss" for one in binary),
            (False,) * len(front.tasks),
            front.preferences,
            front.loss,
            front.non_dominated,
            None if front.samples is None else front.samples.loss,
        )
    )
    return found


def of_lists(lists: ListFront) -> View:
    """The lists of one fusion, by the NDCG of each goal."""
    return View(
        "lists",
        lists.goals,
        tuple(f"{lists.measure(at)}/{goal}" for at, goal in enumerate(lists.goals)),
        tuple(lists.measure(at).replace("ndcg", "NDCG") for at in range(len(lists.goals))),
        (True,) * len(lists.goals),
        lists.preferences,
        lists.ndcg,
        lists.not_dominated,
        lists.samples,
    )
