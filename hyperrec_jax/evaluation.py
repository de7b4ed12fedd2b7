"""A model over a split and a whole grid of preferences.

The experts run once a batch; gates and towers run for every preference. Logits go into arrays
that are allocated once (float32 `[ray, task, row]`), so that memory is known beforehand.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from hyperrec_jax import metrics, pareto
from hyperrec_jax.data.pipeline import evaluation_batches
from hyperrec_jax.errors import UserError
from hyperrec_jax.training.sharding import place_batch

RAY_CHUNK = 8
"""Preferences decoded at once: enough to fill the cores, few enough to stay in the cache."""

ScoreFn = Callable[[Any, dict[str, jax.Array], jax.Array], jax.Array]


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
    process, processes = jax.process_index(), jax.process_count()
    batches = evaluation_batches(split, batch_size, process, processes)
    rays = jnp.asarray(preferences, jnp.float32)
    logits: np.ndarray | None = None
    num_tasks = preferences.shape[1]
    labels = np.empty((num_tasks, len(split)), np.uint8)
    start = 0
    pending: tuple[jax.Array, np.ndarray, np.ndarray] | None = None

    def settle() -> None:
        nonlocal logits, start
        if pending is None:
            return
        device_values, batch_labels, mask = pending
        values = _local(device_values, processes)
        if logits is None:
            logits = np.empty((values.shape[0], values.shape[1], len(split)), np.float32)
        real = mask > 0
        stop = start + int(real.sum())
        logits[..., start:stop] = values[..., real]
        labels[:, start:stop] = batch_labels[real].T
        start = stop

    total = -(-len(split) // batch_size)
    for batch in tqdm(batches, total=total, unit="batch", disable=not progress, desc="scoring"):
        truth, mask = _gathered(batch["labels"], batch["mask"], processes)
        features = {name: batch[name] for name in ("categorical", "numerical")}
        values = score(variables, place_batch(features, mesh), rays)
        settle()  # the former batch, while this one runs
        pending = values, truth, mask
    settle()
    assert logits is not None
    return Scores(logits, labels)


def _local(values: jax.Array, processes: int) -> np.ndarray:
    if processes == 1:
        return np.asarray(values)
    return multihost_utils.process_allgather(values, tiled=True)


def _gathered(
    labels: np.ndarray, mask: np.ndarray, processes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and mask of the global batch; processes hold contiguous parts in order."""
    if processes == 1:
        return labels, mask
    return multihost_utils.process_allgather((labels, mask), tiled=True)


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
      obedience: Spearman correlation of each task's log loss with its weight, `[task]`; -1 where
        more weight always means less loss, NaN without a grid.
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
    obedience: np.ndarray

    @property
    def undefined_tasks(self) -> tuple[str, ...]:
        """Tasks of one class only, whose AUC is undefined."""
        pairs = zip(self.tasks, self.positives, strict=True)
        return tuple(task for task, count in pairs if count in (0, self.rows))

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
            "undefined_tasks": self.undefined_tasks,
            "loss_weight_correlation": dict(zip(self.tasks, self.obedience.tolist(), strict=True)),
            "preferences": self.records(),
        }


def evaluate_front(
    scores: Scores, split: str, tasks: tuple[str, ...], preferences: np.ndarray | None
) -> Front:
    """Turns scores into metrics.

    Args:
      scores: From `score_split`.
      split: Name of the split.
      tasks: Names of the tasks.
      preferences: `[ray, task]`, or None for a model that takes none.
    """

    def table(metric: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        pairs = [
            [metric(labels, logits) for labels, logits in zip(scores.labels, ray, strict=True)]
            for ray in scores.logits
        ]
        return np.array(pairs, np.float64)

    auc = table(metrics.auc)
    defined = ~np.isnan(auc).any(axis=0)
    points = 1.0 - auc[:, defined]
    any_defined = bool(defined.any())
    log_loss = table(metrics.log_loss)
    return Front(
        split=split,
        tasks=tasks,
        rows=scores.labels.shape[1],
        positives=tuple(int(count) for count in scores.labels.sum(axis=1, dtype=np.int64)),
        preferences=preferences,
        auc=auc,
        log_loss=log_loss,
        calibration=table(metrics.calibration),
        non_dominated=(pareto.non_dominated(points) if any_defined else np.ones(len(points), bool)),
        hypervolume=(
            pareto.hypervolume(points, np.ones(points.shape[1])) if any_defined else math.nan
        ),
        obedience=(
            pareto.preference_correlation(preferences, log_loss)
            if preferences is not None and len(preferences) > 1
            else np.full(len(tasks), math.nan)
        ),
    )
