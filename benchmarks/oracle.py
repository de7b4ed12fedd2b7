"""The oracle of a front: one model for each preference, trained apart for it alone.

The models run side by side (`vmap`) on the same batches, each with its own parameters, optimizer
and preference: the same as one run after another, without compiling each.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts import make_parts
from hyperrec_jax.data.readers.rows import prefetch
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.outputs import Scores, make_score_fn, score_split
from hyperrec_jax.preference.normalisation import entropy_scale
from hyperrec_jax.training.dispatch import make_step


def train_apart(
    config: dict[str, Any], store: Store, preferences: np.ndarray, together: int
) -> np.ndarray:
    """Trains a model for each preference and keeps the epoch that is best for it on validation.

    Args:
      config: Config of an unconditioned model; its objective is the weighted sum of losses.
      store: Data.
      preferences: `[preference, goal]`.
      together: Models side by side, as many as fit the memory.

    Returns:
      Logits of the test rows, `[preference, goal, row]`.
    """
    parts = [
        preferences[start : start + together] for start in range(0, len(preferences), together)
    ]
    return np.concatenate([_train_together(config, store, part) for part in parts])


def _train_together(config: dict[str, Any], store: Store, preferences: np.ndarray) -> np.ndarray:
    training = make_parts(config, store)
    weights = jnp.asarray(preferences, jnp.float32)

    def step(state: Any, preference: jax.Array, batch: Any) -> Any:
        run = dataclasses.replace(
            training.run, sampler=lambda key, count, progress: preference[None]
        )
        return make_step(run)(state, batch)[0]

    def advance(states: Any, batch: Any) -> Any:
        if len(preferences) == 1:  # a plain product is faster than a batch of one
            state = step(jax.tree.map(lambda leaf: leaf[0], states), weights[0], batch)
            return jax.tree.map(lambda leaf: leaf[None], state)
        return jax.vmap(step, in_axes=(0, 0, None))(states, weights, batch)

    @jax.jit
    def dispatch(states: Any, batches: Any) -> Any:
        return jax.lax.scan(lambda s, b: (advance(s, b), None), states, batches)[0]

    states = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (len(preferences), *leaf.shape)), training.init()
    )
    score = make_score_fn(training.model)
    train = store.split("train")
    scale = entropy_scale(np.array(train.positives) / len(train))
    best: list[tuple[float, Any]] = [(np.inf, None)] * len(preferences)
    settings, per_epoch = config["train"], training.reader.steps_per_epoch

    def scores(index: int, split: str) -> Scores:
        variables = jax.tree.map(lambda leaf: leaf[index], states.variables)
        return score_split(
            score,
            variables,
            store.split(split),
            preferences[:1],
            training.mesh,
            batch_size=settings["batch_size"],
        )

    count = settings["steps_per_dispatch"]
    for start in range(0, settings["epochs"] * per_epoch, per_epoch):
        stop = start + per_epoch
        schedule = [(first, min(count, stop - first)) for first in range(start, stop, count)]
        for batches in prefetch(training.reader, schedule):
            states = dispatch(states, batches)
        for index, preference in enumerate(preferences):
            losses = scores(index, "validation").table(metrics.log_loss)[0]
            loss = float(preference @ (losses / scale))
            if loss < best[index][0]:
                best[index] = loss, scores(index, "test").logits[0]
    return np.stack([logits for _, logits in best])
