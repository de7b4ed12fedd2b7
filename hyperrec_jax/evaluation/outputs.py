"""The outputs of a model for every row of a split under a grid of preferences.

The experts run once for each batch; gates and towers run for every preference. Outputs go into
arrays that are allocated once (float32 `[preference, output, row]`), so that the memory that they
take is known beforehand. A binary goal has one output, its logit.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from hyperrec_jax.data.readers.rows import Batch, evaluation_batches
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.models.decoding import decode, encode
from hyperrec_jax.parallel.mesh import batch_part, place_batch
from hyperrec_jax.parallel.processes import fetch

PREFERENCES_AT_ONCE = 8
"""Preferences decoded at once: enough to fill the cores, few enough to stay in the cache."""

ScoreFn = Callable[[Any, dict[str, jax.Array], jax.Array | np.ndarray], jax.Array]


def make_score_fn(model: MultiTaskModel) -> ScoreFn:
    """Compiles `score(variables, batch, preferences [preference, goal]) -> outputs [preference,
    output, batch]`.

    A model that ignores the preference gives the outputs of one. Equal models share one function,
    so that what validation has traced is not traced again for an evaluation.
    """
    try:
        hash(model)
    except TypeError:  # a model of the user's own with a field that has no hash
        return _score_fn.__wrapped__(model)
    return _score_fn(model)


@functools.lru_cache(maxsize=8)
def _score_fn(model: MultiTaskModel) -> ScoreFn:

    def score(variables: Any, batch: dict[str, jax.Array], preferences: jax.Array) -> jax.Array:
        features = encode(model, variables, batch)

        def outputs(several: jax.Array) -> jax.Array:
            return decode(model, variables, features, several).swapaxes(-1, -2)

        if not model.conditioned:
            return outputs(preferences)
        num_preferences, num_tasks = preferences.shape
        chunk = min(PREFERENCES_AT_ONCE, num_preferences)
        chunks = -(-num_preferences // chunk)
        padded = jnp.resize(preferences, (chunks * chunk, num_tasks))
        logits = jax.lax.map(outputs, padded.reshape(chunks, chunk, num_tasks))
        return logits.reshape(chunks * chunk, *logits.shape[2:])[:num_preferences]

    return jax.jit(score)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Outputs and truth of a split.

    Attributes:
      logits: float32 `[preference, output, row]`.
      labels: uint8 `[goal, row]`, or float32 with NaN for a missing label.
      weights: float32 `[row]`; None where every row counts the same.
      calibrated: The outputs that predictions are made of, `[preference, output, row]`, where these
        are not the model's own; lists are made of the model's own.
    """

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    calibrated: np.ndarray | None = None

    @property
    def outputs(self) -> np.ndarray:
        """What predictions are made of, float32 `[preference, output, row]`."""
        return self.logits if self.calibrated is None else self.calibrated

    def of_rows(self, rows: np.ndarray) -> "Scores":
        """Those of some rows, by position or by mask."""
        return Scores(
            self.logits[..., rows],
            self.labels[:, rows],
            None if self.weights is None else self.weights[rows],
            None if self.calibrated is None else self.calibrated[..., rows],
        )

    def table(self, metric: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        """`metric(labels, logits)` of each preference and task, float64 `[preference, task]`.

        For binary goals without missing labels; `measures.measure` serves all.
        """
        values = [
            [metric(labels, logits) for labels, logits in zip(self.labels, under, strict=True)]
            for under in self.logits
        ]
        return np.array(values, np.float64)


def example_call(
    split: Split, preferences: np.ndarray, mesh: Mesh, batch_size: int
) -> tuple[dict[str, jax.Array], np.ndarray]:
    """A batch and preferences as `score_split` gives them to the score function, to compile it by.

    Args:
      split: A split of a store, one row at least.
      preferences: `[preference, goal]`.
      mesh: Devices.
      batch_size: As for `score_split`.
    """
    rows, asked = _call_rows(batch_size, mesh), np.asarray(preferences, np.float32)
    batch = next(evaluation_batches(split, rows, *batch_part(mesh, rows)))
    return _placed(batch, mesh)[0], asked


def _call_rows(batch_size: int, mesh: Mesh) -> int:
    devices = mesh.shape["data"]
    return -(-batch_size // devices) * devices


def _placed(batch: Batch, mesh: Mesh) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """What the model reads of a batch, and the labels and weights, on the devices."""
    placed = place_batch({name: batch[name] for name in batch if name != "mask"}, mesh)
    truth = {name: placed.pop(name) for name in list(placed) if name in ("labels", "weight")}
    return placed, truth


def score_split(
    score: ScoreFn,
    variables: Any,
    split: Split,
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
      preferences: `[preference, goal]`.
      mesh: Devices; each process reads its part of the rows.
      batch_size: Number of rows for each call, over all processes.
      progress: Whether to show a bar in a terminal.

    Raises:
      UserError: the split is empty.
    """
    if len(split) == 0:
        raise UserError(
            f"{split.path}: has no rows to score; prepare the data with some, for validation by "
            "--validation-fraction 0.1"
        )
    batch_size = _call_rows(batch_size, mesh)
    batches = evaluation_batches(split, batch_size, *batch_part(mesh, batch_size))
    asked = np.asarray(preferences, np.float32)
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    weights: np.ndarray | None = None
    start = 0
    pending: dict[str, jax.Array] | None = None

    def settle() -> None:
        nonlocal logits, labels, weights, start
        if pending is None:
            return
        batch = fetch(pending)
        if logits is None:
            logits = np.empty((*batch["logits"].shape[:2], len(split)), np.float32)
            labels = np.empty((batch["labels"].shape[1], len(split)), batch["labels"].dtype)
            weights = np.empty(len(split), np.float32) if "weight" in batch else None
        assert labels is not None
        stop = min(start + batch_size, len(split))  # the rest of the last batch is padding
        logits[..., start:stop] = batch["logits"][..., : stop - start]
        labels[:, start:stop] = batch["labels"][: stop - start].T
        if weights is not None:
            weights[start:stop] = batch["weight"][: stop - start, 0]
        start = stop

    total = -(-len(split) // batch_size)
    shown = None if progress else True  # None: only in a terminal
    for batch in tqdm(batches, total=total, unit="batch", disable=shown, desc="scoring"):
        placed, truth = _placed(batch, mesh)
        values = score(variables, placed, asked)
        settle()  # the former batch, while this one runs
        pending = {"logits": values} | truth
    settle()
    assert logits is not None
    assert labels is not None
    return Scores(logits, labels, weights)
