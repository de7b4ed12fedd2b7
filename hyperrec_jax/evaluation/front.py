"""The front of a grid of preferences: what each preference costs and gains each task."""

import csv
import dataclasses
import functools
import io
import math
from typing import Any

import numpy as np

from hyperrec_jax.evaluation import metrics, pareto
from hyperrec_jax.evaluation.bootstrap import Bootstrap, bootstrap, interval
from hyperrec_jax.evaluation.list_front import Lists
from hyperrec_jax.evaluation.scoring import Scores
from hyperrec_jax.preference.normalisation import entropy_scale


@dataclasses.dataclass(frozen=True)
class Front:
    """Metrics of a grid of preferences on a split; every table has one row for each preference.

    Attributes:
      split: Name of the split.
      tasks: Names of the tasks.
      rows: Number of rows.
      positives: Number of positives of each task, `[task]`.
      preferences: `[preference, task]`, rows on the simplex; None for a model that takes none.
      auc: `[preference, task]`; NaN where the split holds one class only.
      log_loss: `[preference, task]`, nats.
      calibration: Sum of predicted probabilities over positives, `[preference, task]`; 1 is
        calibrated.
      non_dominated: Whether no other preference is better in one AUC and at least as good in the
        others, `[preference]`.
      hypervolume: Hypervolume of `1 - AUC` from the reference point (1, ..., 1), over the tasks
        whose AUC is defined; NaN where none is.
      relative_loss: Log loss over the entropy of the task's base rate on the split, `[preference,
        task]`: 1 is what a constant prediction reaches; NaN where the split holds one class only.
      loss_hypervolume: Hypervolume of `relative_loss` from the reference point (1, ..., 1), over
        the same tasks.
      spacing: Spacing of `relative_loss` (Schott 1995): 0 is an even front; NaN for fewer than
        three preferences.
      span: Smallest range of `relative_loss` over the tasks.
      angle: Mean angle, in radians, between the losses, scaled to [0, 1] within the grid, and the
        direction `1 / r` that balances them; NaN without a grid.
      obedience: Spearman correlation of each task's log loss with its weight, `[task]`; -1 where
        more weight always means less loss, NaN without a grid.
      samples: Metrics on resamples of the rows; None if no bootstrap was asked for.
      lists: What the preferences' lists are worth; None where rows were not ranked in lists.
    """

    split: str
    tasks: tuple[str, ...]
    rows: int
    positives: tuple[int, ...]
    preferences: np.ndarray | None
    auc: np.ndarray
    log_loss: np.ndarray
    calibration: np.ndarray
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

    @functools.cached_property
    def auc_interval(self) -> np.ndarray | None:
        """95% bootstrap interval, `[2, preference, task]`."""
        return None if self.samples is None else interval(self.samples.auc)

    @functools.cached_property
    def log_loss_interval(self) -> np.ndarray | None:
        """95% bootstrap interval, `[2, preference, task]`."""
        return None if self.samples is None else interval(self.samples.log_loss)

    @functools.cached_property
    def trade_off(self) -> pareto.TradeOff | None:
        """Whether the grid trades off beyond the noise of the rows; None without bootstrap."""
        if self.samples is None or self.preferences is None or not self.has_grid:
            return None
        return pareto.trade_off(self.preferences, self.samples.log_loss)

    @functools.cached_property
    def non_dominated_beyond_noise(self) -> float | None:
        """Part of the grid that no other preference dominates in log loss in 95% of the resamples.

        None without bootstrap.
        """
        if self.samples is None:
            return None
        return pareto.non_dominated_fraction(self.log_loss, self.samples.log_loss)

    @property
    def undefined_tasks(self) -> tuple[str, ...]:
        """Tasks of one class only, whose AUC is undefined."""
        pairs = zip(self.tasks, self.positives, strict=True)
        return tuple(task for task, count in pairs if count in (0, self.rows))

    def best(self) -> dict[str, float]:
        """The highest AUC and the lowest log loss of each task over the preferences."""
        values = {}
        for index, task in enumerate(self.tasks):
            values[f"auc/{task}"] = float(self.auc[:, index].max())
            values[f"log_loss/{task}"] = float(self.log_loss[:, index].min())
        return values

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary for each preference, for tables."""
        records = []
        for place in range(len(self.auc)):
            record: dict[str, Any] = {}
            if self.preferences is not None:
                for task, weight in zip(self.tasks, self.preferences[place], strict=True):
                    record[f"preference/{task}"] = float(weight)
            for index, task in enumerate(self.tasks):
                record[f"auc/{task}"] = float(self.auc[place, index])
                record[f"log_loss/{task}"] = float(self.log_loss[place, index])
                record[f"calibration/{task}"] = float(self.calibration[place, index])
            record["non_dominated"] = bool(self.non_dominated[place])
            records.append(record)
        return records

    def to_csv(self) -> str:
        """The records as CSV."""
        file = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return file.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        lists = {"lists": self.lists.to_dict()} if self.lists else {}
        return {
            "split": self.split,
            "tasks": self.tasks,
            "rows": self.rows,
            "positives": self.positives,
            "hypervolume": self.hypervolume,
            "hypervolume_reference": [1.0] * len(self.tasks),
            "hypervolume_method": pareto.hypervolume_method(len(self.tasks)),
            "non_dominated_fraction": float(self.non_dominated.mean()),
            "non_dominated_fraction_beyond_noise": self.non_dominated_beyond_noise,
            "relative_loss": {
                "definition": "log loss over the entropy of the base rate",
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
    resamples: int = 0,
    groups: np.ndarray | None = None,
) -> Front:
    """Turns scores into metrics.

    Args:
      scores: From `score_split`.
      split: Name of the split.
      tasks: Names of the tasks.
      preferences: `[preference, task]`, or None for a model that takes none.
      resamples: Number of bootstrap resamples, at least 2; with 0 the front has neither intervals
        nor a test for a trade-off.
      groups: The group of each row, `[row]`; whole groups are resampled then, since their rows are
        not independent.
    """
    auc, log_loss = scores.table(metrics.auc), scores.table(metrics.log_loss)
    defined = ~np.isnan(auc).any(axis=0)
    rows = scores.labels.shape[1]
    positives = scores.labels.sum(axis=1, dtype=np.int64)
    relative = np.full(log_loss.shape, math.nan)
    relative[:, defined] = log_loss[:, defined] / entropy_scale(positives[defined] / rows)
    points, losses = 1.0 - auc[:, defined], relative[:, defined]
    any_defined = bool(defined.any())
    grid = preferences if preferences is not None and len(preferences) > 1 else None
    return Front(
        split=split,
        tasks=tasks,
        rows=rows,
        positives=tuple(int(count) for count in positives),
        preferences=preferences,
        auc=auc,
        log_loss=log_loss,
        calibration=scores.table(metrics.calibration),
        non_dominated=(pareto.non_dominated(points) if any_defined else np.ones(len(points), bool)),
        hypervolume=pareto.hypervolume(points, 1.0) if any_defined else math.nan,
        relative_loss=relative,
        loss_hypervolume=pareto.hypervolume(losses, 1.0) if any_defined else math.nan,
        spacing=pareto.spacing(losses) if any_defined else math.nan,
        span=pareto.span(losses) if any_defined else math.nan,
        angle=math.nan if grid is None else _mean_angle(grid, log_loss),
        obedience=(
            np.full(len(tasks), math.nan)
            if grid is None
            else pareto.preference_correlation(grid, log_loss)
        ),
        samples=(
            bootstrap(scores.labels, scores.logits, groups=groups, resamples=resamples)
            if resamples
            else None
        ),
    )


def _mean_angle(preferences: np.ndarray, losses: np.ndarray) -> float:
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1)
    angles = pareto.angle_to_preference(preferences, scaled)
    return float(np.nanmean(angles)) if np.isfinite(angles).any() else math.nan
