"""A model over a split and a whole grid of preferences.

The experts run once a batch; gates and towers run for every preference. Logits go into arrays
that are allocated once (float32 `[ray, task, row]`), so that memory is known beforehand.
"""

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from hyperrec_jax.data.readers.rows import evaluation_batches
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import metrics, pareto
from hyperrec_jax.parallel.mesh import batch_part, place_batch
from hyperrec_jax.parallel.processes import fetch
from hyperrec_jax.preference.normalisation import entropy_scale

RAY_CHUNK = 8
"""Preferences decoded at once: enough to fill the cores, few enough to stay in the cache."""

ScoreFn = Callable[[Any, dict[str, jax.Array], jax.Array | np.ndarray], jax.Array]


def make_score_fn(model: Any) -> ScoreFn:
    """Compiles `score(variables, batch, preferences [ray, task]) -> logits [ray, task, batch]`.

    A model that ignores the preference gives one ray.
    """

    def score(variables: Any, batch: dict[str, jax.Array], preferences: jax.Array) -> jax.Array:
        features = model.apply(variables, batch, False, method="encode")

        def decode(rays: jax.Array) -> jax.Array:
            logits = model.apply(variables, features, rays[:, None, :], False, method="decode")
            return logits.astype(jnp.float32).swapaxes(-1, -2)

        if not model.conditioned:
            return decode(preferences[:1])[None]
        num_rays, num_tasks = preferences.shape
        chunk = min(RAY_CHUNK, num_rays)
        chunks = -(-num_rays // chunk)
        padded = jnp.resize(preferences, (chunks * chunk, num_tasks))
        logits = jax.lax.map(decode, padded.reshape(chunks, chunk, num_tasks))
        return logits.reshape(chunks * chunk, num_tasks, -1)[:num_rays]

    return jax.jit(score)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Logits and truth of a split.

    Attributes:
      logits: float32 `[ray, task, row]`.
      labels: uint8 `[task, row]`.
    """

    logits: np.ndarray
    labels: np.ndarray

    def table(self, metric: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        """`metric(labels, logits)` of each ray and task, float64 `[ray, task]`."""
        values = [
            [metric(labels, logits) for labels, logits in zip(self.labels, ray, strict=True)]
            for ray in self.logits
        ]
        return np.array(values, np.float64)


def score_split(
    score: ScoreFn,
    variables: Any,
    split: Any,
    preferences: np.ndarray,
    mesh: Mesh,
    *,
    batch_size: int,
    progress: bool = False,
) -> Scores:
    """Scores every row of a split under every preference.

    Args:
      score: From `make_score_fn`.
      variables: The model's `params` and `batch_stats`.
      split: A split of a store.
      preferences: `[ray, task]`.
      mesh: Devices; each process reads its part of the rows.
      batch_size: Rows a call, over all processes.
      progress: Whether to show a bar.

    Raises:
      UserError: the split is empty.
    """
    if len(split) == 0:
        raise UserError(
            f"{split.path}: has no rows to score; prepare the data with some, for validation by "
            "--validation-fraction 0.1"
        )
    devices = mesh.shape["data"]
    batch_size = -(-batch_size // devices) * devices
    batches = evaluation_batches(split, batch_size, *batch_part(mesh, batch_size))
    rays = np.asarray(preferences, np.float32)
    logits: np.ndarray | None = None
    num_tasks = preferences.shape[1]
    labels = np.empty((num_tasks, len(split)), np.uint8)
    start = 0
    pending: dict[str, jax.Array] | None = None

    def settle() -> None:
        nonlocal logits, start
        if pending is None:
            return
        batch = fetch(pending)
        if logits is None:
            logits = np.empty((*batch["logits"].shape[:2], len(split)), np.float32)
        stop = min(start + batch_size, len(split))  # the rest of the last batch is padding
        logits[..., start:stop] = batch["logits"][..., : stop - start]
        labels[:, start:stop] = batch["labels"][: stop - start].T
        start = stop

    total = -(-len(split) // batch_size)
    for batch in tqdm(batches, total=total, unit="batch", disable=not progress, desc="scoring"):
        names = ("categorical", "numerical", "labels")
        placed = place_batch({name: batch[name] for name in names}, mesh)
        truth = placed.pop("labels")
        values = score(variables, placed, rays)
        settle()  # the former batch, while this one runs
        pending = {"logits": values, "labels": truth}
    settle()
    assert logits is not None
    return Scores(logits, labels)


@dataclasses.dataclass(frozen=True)
class Front:
    """Metrics of a grid of preferences on a split.

    Attributes:
      split: Name of the split.
      tasks: Names of the tasks.
      rows: Number of rows.
      positives: Positives of each task, `[task]`.
      preferences: `[ray, task]`, rows on the simplex; None for a model that takes none.
      auc: `[ray, task]`; NaN where the split holds one class only.
      log_loss: `[ray, task]`, nats.
      calibration: Sum of predicted probabilities over positives, `[ray, task]`; 1 is calibrated.
      non_dominated: Whether no other preference is better in one AUC and no worse in the rest,
        `[ray]`.
      hypervolume: Of `1 - AUC` from the reference point (1, ..., 1), over the tasks whose AUC is
        defined; NaN where none is.
      relative_loss: Log loss over the entropy of the task's base rate on the split, `[ray, task]`:
        1 is a constant prediction's, NaN where the split holds one class only.
      loss_hypervolume: Of `relative_loss` from the reference point (1, ..., 1), as `hypervolume`.
      spacing: Schott's, of `relative_loss`: 0 is an even front; NaN under three preferences.
      span: Smallest range of `relative_loss` over the tasks.
      angle: Mean angle, in radians, of the losses, scaled to [0, 1] within the grid, to the
        direction `1 / r` that balances them; NaN without a grid.
      obedience: Spearman correlation of each task's log loss with its weight, `[task]`; -1 where
        more weight always means less loss, NaN without a grid.
      samples: Metrics on resamples of the rows, or None if no bootstrap was asked for.
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
    samples: metrics.Bootstrap | None = None

    @property
    def has_grid(self) -> bool:
        """Whether there are preferences to compare."""
        return self.preferences is not None and len(self.preferences) > 1

    @functools.cached_property
    def auc_interval(self) -> np.ndarray | None:
        """95% bootstrap interval, `[2, ray, task]`."""
        return None if self.samples is None else metrics.interval(self.samples.auc)

    @functools.cached_property
    def log_loss_interval(self) -> np.ndarray | None:
        """95% bootstrap interval, `[2, ray, task]`."""
        return None if self.samples is None else metrics.interval(self.samples.log_loss)

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
        """One flat dictionary a preference, for tables."""
        records = []
        for ray in range(len(self.auc)):
            record: dict[str, Any] = {}
            if self.preferences is not None:
                for task, weight in zip(self.tasks, self.preferences[ray], strict=True):
                    record[f"preference/{task}"] = float(weight)
            for index, task in enumerate(self.tasks):
                record[f"auc/{task}"] = float(self.auc[ray, index])
                record[f"log_loss/{task}"] = float(self.log_loss[ray, index])
                record[f"calibration/{task}"] = float(self.calibration[ray, index])
            record["non_dominated"] = bool(self.non_dominated[ray])
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
        return {
            "split": self.split,
            "tasks": self.tasks,
            "rows": self.rows,
            "positives": self.positives,
            "hypervolume": self.hypervolume,
            "hypervolume_reference": [1.0] * len(self.tasks),
            "non_dominated_fraction": float(self.non_dominated.mean()),
            "non_dominated_fraction_beyond_noise": self.non_dominated_beyond_noise,
            "relative_loss": {
                "definition": "log loss over the entropy of the base rate",
                "hypervolume": self.loss_hypervolume,
                "hypervolume_reference": [1.0] * len(self.tasks),
                "spacing": self.spacing,
                "span": self.span,
                "angle_to_ray": self.angle,
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
        }


def evaluate_front(
    scores: Scores,
    split: str,
    tasks: tuple[str, ...],
    preferences: np.ndarray | None,
    samples: metrics.Bootstrap | None = None,
) -> Front:
    """Turns scores into metrics.

    Args:
      scores: From `score_split`.
      split: Name of the split.
      tasks: Names of the tasks.
      preferences: `[ray, task]`, or None for a model that takes none.
      samples: Of those scores, from `metrics.bootstrap`.
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
        samples=samples,
    )


def _mean_angle(rays: np.ndarray, losses: np.ndarray) -> float:
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1)
    angles = pareto.angle_to_ray(rays, scaled)
    return float(np.nanmean(angles)) if np.isfinite(angles).any() else math.nan
