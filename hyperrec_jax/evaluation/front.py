"""The front of a grid of preferences: what each preference costs and gains each goal."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperrec_jax.data.records import to_csv
from hyperrec_jax.evaluation import pareto
from hyperrec_jax.evaluation.bootstrap import Bootstrap, interval, resample
from hyperrec_jax.evaluation.list_front import Lists
from hyperrec_jax.evaluation.measures import constant_losses, mean_losses, measure
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary


@dataclasses.dataclass(frozen=True)
class Front:
    """Metrics of a grid of preferences on a split; every table has one row for each preference.

    Attributes:
      split: Name of the split.
      tasks: Names of the goals.
      rows: Number of rows.
      labelled: Number of rows that have the label of each goal, `[goal]`.
      positives: Number of positive labels of each goal, `[goal]`.
      preferences: `[preference, goal]`, rows on the simplex; None for a model that takes none.
      kinds: Kind of each goal.
      primary: Name of the main metric of each goal, such as 'auc'.
      better: For each metric whether 'higher', 'lower' or nearer to 'one' is better, by names such
        as `auc/click`.
      measures: All metrics by those names, `[preference]`; NaN where labels leave one undefined.
      loss: `[preference, goal]`; of a binary goal the log loss in nats.
      non_dominated: Whether no other preference is better in one of the values of the hypervolume
        and at least as good in the others, `[preference]`.
      hypervolume: Where higher is better in the main metrics of all goals, none of which exceeds 1,
        the hypervolume of `1 - metric` from the reference point (1, ..., 1), over the goals whose
        metric is defined; `loss_hypervolume` otherwise. NaN where no goal is defined.
      relative_loss: Loss over that of the best constant prediction on the split, `[preference,
        goal]`: 1 is what a constant prediction reaches; NaN where the main metric is undefined.
      loss_hypervolume: Hypervolume of `relative_loss` from the reference point (1, ..., 1), over
        the same goals.
      spacing: Spacing of `relative_loss` (Schott 1995): 0 is an even front; NaN for fewer than
        three preferences.
      span: Smallest range of `relative_loss` over the goals.
      angle: Mean angle, in radians, between the losses, scaled to [0, 1] within the grid, and the
        direction `1 / r` that balances them; NaN without a grid.
      obedience: Spearman correlation of each goal's loss with its weight, `[goal]`; -1 where
        more weight always means less loss, NaN without a grid.
      samples: Metrics on resamples of the rows; None if no bootstrap was asked for.
      lists: What the preferences' lists are worth; None where rows were not ranked in lists.
    """

    split: str
    tasks: tuple[str, ...]
    rows: int
    labelled: tuple[int, ...]
    positives: tuple[int, ...]
    preferences: np.ndarray | None
    kinds: tuple[str, ...]
    primary: tuple[str, ...]
    better: dict[str, str]
    measures: dict[str, np.ndarray]
    loss: np.ndarray
    non_dominated: np.ndarray
    hypervolume: float
    relative_loss: np.ndarray
    loss_hypervolume: float
    spacing: float
    span: float
    angle: float
    obedience: np.ndarray
    samples: Bootstrap | None = None
    lists: Lists | None = None

    @property
    def has_grid(self) -> bool:
        """Whether there are preferences to compare."""
        return self.preferences is not None and len(self.preferences) > 1

    def table(self, metric: str) -> np.ndarray:
        """A metric of all goals, `[preference, goal]`; NaN for goals that do not have it."""
        nothing = np.full(len(self.loss), math.nan)
        return np.stack([self.measures.get(f"{metric}/{t}", nothing) for t in self.tasks], axis=1)

    @property
    def auc(self) -> np.ndarray:
        """AUC, `[preference, goal]`; NaN for goals that are not binary."""
        return self.table("auc")

    @property
    def log_loss(self) -> np.ndarray:
        """Log loss in nats, `[preference, goal]`; NaN for goals that are not binary."""
        return self.table("log_loss")

    @property
    def calibration(self) -> np.ndarray:
        """Sum of predictions over sum of labels, `[preference, goal]`; 1 is calibrated."""
        return self.table("calibration")

    @property
    def value(self) -> np.ndarray:
        """The main metric of each goal, `[preference, goal]`."""
        names = [f"{metric}/{t}" for metric, t in zip(self.primary, self.tasks, strict=True)]
        return np.stack([self.measures[name] for name in names], axis=1)

    @property
    def by_metric(self) -> bool:
        """Whether the hypervolume is that of the main metrics, not of the relative losses."""
        names = zip(self.primary, self.tasks, strict=True)
        return all(self.better[f"{metric}/{task}"] == "higher" for metric, task in names)

    @property
    def objective(self) -> str:
        """What the hypervolume is of, for people: '1 - AUC' where all goals are binary."""
        if not self.by_metric:
            return "loss over that of the best constant"
        return "1 - AUC" if set(self.primary) == {"auc"} else "1 - main metric"

    def label(self, goal: int) -> str:
        """The main metric of a goal, by its position, with the goal's name: 'AUC click'."""
        metric = self.primary[goal]
        return f"{'AUC' if metric == 'auc' else metric} {self.tasks[goal]}"

    @property
    def plain(self) -> bool:
        """Whether all goals are binary and every row has all labels."""
        return set(self.kinds) == {"binary"} and set(self.labelled) == {self.rows}

    @functools.cached_property
    def auc_interval(self) -> np.ndarray | None:
        """95% bootstrap interval of the AUC, `[2, preference, goal]`; NaN where there is none."""
        return None if self.samples is None else interval(self.samples.auc)

    @functools.cached_property
    def loss_interval(self) -> np.ndarray | None:
        """95% bootstrap interval of the loss, `[2, preference, goal]`."""
        return None if self.samples is None else interval(self.samples.loss)

    @functools.cached_property
    def trade_off(self) -> pareto.TradeOff | None:
        """Whether the grid trades off beyond the noise of the rows; None without bootstrap."""
        if self.samples is None or self.preferences is None or not self.has_grid:
            return None
        return pareto.trade_off(self.preferences, self.samples.loss)

    @functools.cached_property
    def non_dominated_beyond_noise(self) -> float | None:
        """Part of the grid that no other preference dominates in loss in 95% of the resamples.

        None without bootstrap.
        """
        if self.samples is None:
            return None
        return pareto.non_dominated_fraction(self.loss, self.samples.loss)

    @property
    def undefined_tasks(self) -> tuple[str, ...]:
        """Goals whose labels leave their main metric undefined, as one class does the AUC."""
        undefined = np.isnan(self.value).any(axis=0)
        return tuple(task for task, bad in zip(self.tasks, undefined, strict=True) if bad)

    def best(self) -> dict[str, float]:
        """The best value of each metric and loss over the preferences, such as `auc/click`.

        Metrics that are best at 1 from either side, such as calibration, are left out.
        """
        return {
            name: float(values.max() if self.direction(name) == "higher" else values.min())
            for name, values in self._columns().items()
            if self.direction(name) != "one"
        }

    def direction(self, name: str) -> str:
        """Whether 'higher', 'lower' or nearer to 'one' is better, of a metric or a loss."""
        return self.better.get(name, "lower")

    def _columns(self) -> dict[str, np.ndarray]:
        """Metrics by name, goal by goal; the loss, too, where it is not among a goal's metrics."""
        columns: dict[str, np.ndarray] = {}
        for index, task in enumerate(self.tasks):
            own = {k: v for k, v in self.measures.items() if k.split("/", 1)[1] == task}
            columns |= own
            if f"log_loss/{task}" not in own:
                columns[f"loss/{task}"] = self.loss[:, index]
        return columns

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary for each preference, for tables."""
        records = []
        columns = self._columns()
        for place in range(len(self.loss)):
            record: dict[str, Any] = {}
            if self.preferences is not None:
                for task, weight in zip(self.tasks, self.preferences[place], strict=True):
                    record[f"preference/{task}"] = float(weight)
            record |= {name: float(values[place]) for name, values in columns.items()}
            record["non_dominated"] = bool(self.non_dominated[place])
            records.append(record)
        return records

    def to_csv(self) -> str:
        """The records as CSV."""
        return to_csv(self.records())

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        lists = {"lists": self.lists.to_dict()} if self.lists else {}
        return {
            "split": self.split,
            "tasks": self.tasks,
            "rows": self.rows,
            "labelled": self.labelled,
            "positives": self.positives,
            "goals": {
                task: {
                    "kind": kind,
                    "metric": f"{metric}/{task}",
                    "better": self.better[f"{metric}/{task}"],
                }
                for task, kind, metric in zip(self.tasks, self.kinds, self.primary, strict=True)
            },
            "hypervolume_of": self.objective,
            "hypervolume": self.hypervolume,
            "hypervolume_reference": [1.0] * len(self.tasks),
            "hypervolume_method": pareto.hypervolume_method(len(self.tasks)),
            "non_dominated_fraction": float(self.non_dominated.mean()),
            "non_dominated_fraction_beyond_noise": self.non_dominated_beyond_noise,
            "relative_loss": {
                "definition": (
                    "log loss over the entropy of the base rate"
                    if set(self.kinds) == {"binary"}
                    else "loss over that of the best constant prediction"
                ),
                "hypervolume": self.loss_hypervolume,
                "hypervolume_reference": [1.0] * len(self.tasks),
                "spacing": self.spacing,
                "span": self.span,
                "angle_to_preference": self.angle,
            },
            "undefined_tasks": self.undefined_tasks,
            "loss_weight_correlation": dict(zip(self.tasks, self.obedience.tolist(), strict=True)),
            "trade_off": self.trade_off
            and {
                "found": self.trade_off.found,
                "gain": dict(zip(self.tasks, self.trade_off.gain.tolist(), strict=True)),
                "deviation": dict(zip(self.tasks, self.trade_off.deviation.tolist(), strict=True)),
            },
            "preferences": self.records(),
        } | lists


def evaluate_front(
    scores: Scores,
    split: str,
    tasks: tuple[str, ...],
    preferences: np.ndarray | None,
    *,
    goals: Sequence[RowGoal] | None = None,
    resamples: int = 0,
    groups: np.ndarray | None = None,
) -> Front:
    """Turns scores into metrics.

    Args:
      scores: From `score_split`.
      split: Name of the split.
      tasks: Names of the goals.
      preferences: `[preference, goal]`, or None for a model that takes none.
      goals: The goals; all binary by default.
      resamples: Number of bootstrap resamples, at least 2; with 0 the front has neither intervals
        nor a test for a trade-off.
      groups: The group of each row, `[row]`; whole groups are resampled then, since their rows are
        not independent.
    """
    goals = goals or [Binary(task) for task in tasks]
    measures = measure(goals, scores)
    loss, row_losses = mean_losses(goals, scores, keep_rows=bool(resamples))
    value = np.stack([measures[f"{goal.primary}/{goal.name}"] for goal in goals], axis=1)
    defined = ~np.isnan(value).any(axis=0)
    constants = constant_losses(goals, scores)
    defined &= ~np.isnan(constants)
    relative = np.full(loss.shape, math.nan)
    relative[:, defined] = loss[:, defined] / constants[defined]
    losses = relative[:, defined]
    by_metric = all(goal.metrics[goal.primary].better == "higher" for goal in goals)
    points = 1.0 - value[:, defined] if by_metric else losses
    any_defined = bool(defined.any())
    grid = preferences if preferences is not None and len(preferences) > 1 else None
    labelled = (~np.isnan(scores.labels)).sum(axis=1, dtype=np.int64)
    return Front(
        split=split,
        tasks=tasks,
        rows=scores.labels.shape[1],
        labelled=tuple(labelled.tolist()),
        positives=tuple((scores.labels > 0).sum(axis=1, dtype=np.int64).tolist()),
        preferences=preferences,
        kinds=tuple(goal.kind for goal in goals),
        primary=tuple(goal.primary for goal in goals),
        better={
            f"{name}/{goal.name}": metric.better
            for goal in goals
            for name, metric in goal.metrics.items()
        },
        measures=measures,
        loss=loss,
        non_dominated=(pareto.non_dominated(points) if any_defined else np.ones(len(points), bool)),
        hypervolume=pareto.hypervolume(points, 1.0) if any_defined else math.nan,
        relative_loss=relative,
        loss_hypervolume=pareto.hypervolume(losses, 1.0) if any_defined else math.nan,
        spacing=pareto.spacing(losses) if any_defined else math.nan,
        span=pareto.span(losses) if any_defined else math.nan,
        angle=math.nan if grid is None else _mean_angle(grid, loss),
        obedience=(
            np.full(len(tasks), math.nan)
            if grid is None
            else pareto.preference_correlation(grid, loss)
        ),
        samples=(
            resample(goals, scores, row_losses, groups=groups, resamples=resamples)
            if row_losses is not None
            else None
        ),
    )


def _mean_angle(preferences: np.ndarray, losses: np.ndarray) -> float:
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1)
    angles = pareto.angle_to_preference(preferences, scaled)
    return float(np.nanmean(angles)) if np.isfinite(angles).any() else math.nan
