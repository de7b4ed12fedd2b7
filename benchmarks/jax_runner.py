"""This package's own training and evaluation, ready to be timed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import timed
from benchmarks.parts import make_parts
from benchmarks.profile_step import Piece, profile
from hyperrec_jax.config import defaults
from hyperrec_jax.data.readers.rows import prefetch
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.front import evaluate_front
from hyperrec_jax.evaluation.grid import grid_for
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.dispatch import make_dispatch
from hyperrec_jax.training.torch_import.convert import convert


class JaxRunner:
    """A run of the preset `original` on a store.

    Args:
      store_path: The data.
      overrides: Values that the config gets, by dotted key.
      threads: Not read: XLA takes the cores that the process may use.
    """

    def __init__(
        self,
        store_path: Path,
        overrides: Mapping[str, Any],
        *,
        threads: int = 0,
    ):
        del threads
        config = defaults.get_config("original")
        config.update_from_flattened_dict(overrides)
        self._store = Store.open(store_path)
        self._split = self._store.split("train")
        self._split.verify()  # else the first reads would, once an opened store
        self._training = make_parts(config.to_dict(), self._store)
        self._steps = config.train.steps_per_dispatch
        self._batch_size = self._training.reader.batch_size
        self._reader = self._training.reader
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self._training.template)
        self._dispatch: Any = make_dispatch(self._training.step, shardings)
        self._state = self._training.init()
        self._score = make_score_fn(self._training.model)
        self._step = 0

    def train(self, dispatches: int) -> float:
        """Seconds of some dispatches, from the store to the updated state."""
        return timed(lambda: self._train(self._schedule(dispatches)))

    def epoch(self) -> float:
        """Seconds of an epoch."""
        dispatches = -(-self._reader.steps_per_epoch // self._steps)
        return timed(lambda: self._train(self._schedule(dispatches)))

    def _schedule(self, dispatches: int) -> list[tuple[int, int]]:
        first = self._step
        self._step += dispatches * self._steps
        return [(step, self._steps) for step in range(first, self._step, self._steps)]

    def _train(self, schedule: list[tuple[int, int]]) -> None:
        pending = None
        for batch in prefetch(self._reader, schedule):
            self._state, metrics = self._dispatch(self._state, self._place(batch))
            jax.device_get(pending)  # as the loop does: the former call's, while this one runs
            pending = metrics
        jax.block_until_ready(self._state)

    def _place(self, batch: dict[str, Any]) -> dict[str, jax.Array]:
        return place_batch(batch, self._training.mesh, axis=1)

    def step_alone(self, dispatches: int) -> float:
        """Seconds of some dispatches on batches that are on the device already."""
        batch = self._place(self._reader.read(0, self._steps))

        def run() -> None:
            for _ in range(dispatches):
                self._state, _ = self._dispatch(self._state, batch)
            jax.block_until_ready(self._state)

        return timed(run)

    def read_alone(self, dispatches: int) -> float:
        """Seconds of reading and placing the batches of some dispatches, with nothing else."""
        schedule = self._schedule(dispatches)

        def run() -> None:
            for batch in prefetch(self._reader, schedule):
                jax.block_until_ready(self._place(batch))

        return timed(run)

    def evaluate(self, num_preferences: int) -> float:
        """Seconds of scoring the test rows under a grid, and of all metrics."""
        schema = self._store.schema
        preferences = grid_for(self._training.model.conditioned, schema.num_tasks, num_preferences)

        def run() -> None:
            scores = score_split(
                self._score,
                self._state.variables,
                self._store.split("test"),
                preferences,
                self._training.mesh,
                batch_size=self._batch_size,
            )
            evaluate_front(scores, "test", schema.tasks, preferences)

        return timed(run)

    def curve(self, weights: Mapping[str, np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Trains from a peer's weights.

        Returns:
          Goal losses `[step, goal]` and the preferences drawn `[step, goal]`.
        """
        model = self._training.model
        vocabularies = [range(1, size) for size in model.field_sizes]
        variables = convert(weights, "pomoe", model, vocabularies, model.field_sizes)
        state = self._training.init()
        params = jax.tree.map(
            lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding),
            variables["params"],
            state.params,
        )
        state = state.replace(params=params)
        losses, preferences = [], []
        for step in range(0, steps, self._steps):
            batch = self._place(self._reader.read(step, self._steps))
            state, metrics = self._dispatch(state, batch)
            losses.append(metrics.goal_losses)
            preferences.append(metrics.preferences[:, 0])
        return np.concatenate(losses)[:steps], np.concatenate(preferences)[:steps]

    def product_flops(self) -> float:
        """Floating-point operations of a step's matrix products, for each row of the batch."""
        batch = jax.eval_shape(lambda: self._place(self._reader.read(0, 1)))
        one = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batch.items()}
        jaxpr = jax.make_jaxpr(self._training.step)(self._training.template, one)
        return _product_flops(jaxpr.jaxpr) / self._batch_size

    def product_limit(self, size: int) -> float:
        """Floating-point operations a second of a large matrix product, the best of a few."""
        dtype = self._training.model.compute_dtype
        x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
        product = jax.jit(jnp.matmul)

        def run() -> None:
            jax.block_until_ready(product(x, x))

        run()
        return 2 * size**3 / min(timed(run) for _ in range(5))

    def profile(self, dispatches: int) -> tuple[list[Piece], float]:
        """Where the time of the compiled dispatch goes; see `benchmarks.profile_step`."""
        batch = self._place(self._reader.read(0, self._steps))
        compiled = self._dispatch.lower(self._state, batch).compile()

        def run() -> None:
            self._state, _ = compiled(self._state, batch)
            jax.block_until_ready(self._state)

        return profile(compiled, run, dispatches, self._batch_size, self._steps)

    def description(self) -> tuple[str, float]:
        """The device, and the most of its memory that was used in bytes (NaN on a CPU)."""
        device = jax.local_devices()[0]
        stats = device.memory_stats() or {}
        return device.device_kind, stats.get("peak_bytes_in_use", math.nan)


def _product_flops(jaxpr: Any) -> float:
    """Operations of all `dot_general` in a jaxpr, those of its sub-expressions included."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        repeats = equation.params.get("length", 1)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(value, "eqns"):
                total += repeats * _product_flops(getattr(value, "jaxpr", value))
    return total
