"""The state of a run: one pytree, all that a step reads and writes."""

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.parallel import mesh as sharding

Batch = dict[str, jax.Array]
"""`categorical` int `[row, field]`, `numerical` float `[row, number]`, `labels` `[row, goal]`, and
where there are such fields `multivalued` int `[row, id]` and `vectors` float `[row, number]`."""


ArrayTree: TypeAlias = optax.Params
"""Arrays in dictionaries and tuples."""


class TrainState(struct.PyTreeNode):
    """What changes from step to step.

    The run's random key is no part of it: every draw comes from `fold_in(key, step)`, so that a
    restored step draws what it would have drawn. The data position is the step, too.

    Attributes:
      step: Batches seen, int32 `[]`.
      params: The model's parameters.
      batch_stats: Running statistics of batch norm.
      opt_state: Optimizer state.
      normaliser: State of the loss normalisation.
      objective: State of the objective (empty for most).
      skipped: Steps left out because the loss was not finite, int32 `[]`.
      average: Running mean of the parameters in the second stage of lists; empty for runs without.
    """

    step: jax.Array
    params: optax.Params
    batch_stats: ArrayTree
    opt_state: optax.OptState
    normaliser: ArrayTree
    objective: ArrayTree
    skipped: jax.Array
    average: ArrayTree = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """The collections that `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def example_batch(schema: Schema, rows: int = 2) -> Batch:
    """Zeros in the shape of a batch, for shape inference."""
    return {
        **{c.name: jnp.zeros((rows, c.width), c.dtype) for c in input_columns(schema)},
        "labels": jnp.zeros((rows, schema.num_tasks), jnp.uint8),
    }


def init_state(run: Run) -> TrainState:
    """The state before the first step."""
    params_key, dropout_key = jax.random.split(run.init_key)
    num_goals = run.schema.num_tasks
    preference = jnp.full((num_goals,), 1 / num_goals)
    keys = {"params": params_key, "dropout": dropout_key}
    variables = run.model.init(keys, example_batch(run.schema), preference, False)
    params = variables["params"]
    if run.constants is not None:
        params = run.model.with_prior(params, run.constants)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=run.optimizer.init(params),
        normaliser=run.normaliser.init(),
        objective=run.objective.init(num_goals),
        skipped=jnp.zeros((), jnp.int32),
        # Present from the start, so that the states of both stages have one form.
        average=params if run.lists is not None and run.lists.average else {},
    )


@functools.lru_cache(maxsize=4)  # several parts of a start ask for it, and it traces the model
def state_template(run: Run) -> TrainState:
    """Shapes and shardings of the state, without making it."""
    return sharding.template(lambda: init_state(run), run.mesh)


def first_state(run: Run) -> TrainState:
    """The state before the first step, made where it belongs."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state_template(run))
    # Unoptimised: it runs once, and a compiler that optimises the draws takes longer than they do.
    fast_compile = {"xla_backend_optimization_level": 0}
    make = jax.jit(lambda: init_state(run), out_shardings=shardings, compiler_options=fast_compile)
    return make()
