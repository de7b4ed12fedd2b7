"""The training step: a pure function of state and batch.

rays ~ sampler                      preferences of this batch
L    = model(batch, rays)           task losses [ray, task]
l    = normaliser(L)
loss = objective(l, rays)
params <- optimizer(grad loss)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import PERTURBATIONS
from hyperrec_jax.training.state import Batch, TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, "StepMetrics"]]


class StepMetrics(NamedTuple):
    """What a step reports.

    Attributes:
      loss: The objective's value, `[]`.
      task_losses: Mean binary cross-entropy of each task over rows and rays, `[task]`.
      rays: The preferences drawn, `[ray, task]` (the first 16 of a ray a row).
      skipped: Steps left out so far, `[]`.
    """

    loss: jax.Array
    task_losses: jax.Array
    rays: jax.Array
    skipped: jax.Array


class _Forward(NamedTuple):
    loss: jax.Array
    losses: jax.Array  # [ray, task]
    rays: jax.Array
    batch_stats: Any


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    objective: Any,
    normaliser: Any,
    sampler: Callable[[jax.Array, int, jax.Array], jax.Array],
    key: jax.Array,
    *,
    rays: int = 1,
    ray_per_row: bool = False,
    total_steps: int = 1,
    skip_nonfinite: bool = False,
) -> Step:
    """Builds the step of a run.

    Args:
      model: A model of `hyperrec_jax.models`.
      optimizer: An optax transformation.
      objective: From `objectives.create_objective`.
      normaliser: From `normalisation.create_normaliser`.
      sampler: `sampler(key, num_rays, progress) -> [ray, task]`.
      key: The run's random key; step `s` draws from `fold_in(key, s)`.
      rays: Preferences drawn a batch; every row sees all of them.
      ray_per_row: Draw a preference for each row instead (the objective must be linear in the
        losses, since each row's loss then stands alone).
      total_steps: Length of the run, for samplers with a schedule.
      skip_nonfinite: Keep the old parameters where loss or gradient are not finite.

    Returns:
      `step(state, batch) -> (state, metrics)`.
    """

    def draw(step_key: jax.Array, step: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
        """Rays `[ray, task]`, and the same in the shape that the model broadcasts."""
        drawn = sampler(step_key, rows if ray_per_row else rays, step / total_steps)
        if ray_per_row:
            return drawn, drawn  # [batch, task]: one ray a row
        return drawn, drawn[0] if rays == 1 else drawn[:, None, :]

    def elementwise_losses(logits: jax.Array, batch: Batch) -> jax.Array:
        labels = batch["labels"].astype(jnp.float32)
        losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels)
        return losses if ray_per_row else losses.mean(axis=-2)

    def forward(
        params: Any, state: TrainState, batch_stats: Any, batch: Batch, key: jax.Array
    ) -> _Forward:
        ray_key, dropout_key = jax.random.split(key)
        drawn, preference = draw(ray_key, state.step, batch["labels"].shape[0])

        def apply(collections: Any, mutable: list[str]) -> tuple[jax.Array, Any]:
            return model.apply(
                {"params": params, "batch_stats": batch_stats, **collections},
                batch,
                preference,
                True,
                rngs={"dropout": dropout_key},
                mutable=mutable,
            )

        def normalised_losses(collections: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, updates = apply(collections, ["batch_stats"])
            losses = elementwise_losses(logits, batch)
            # Unconditioned models give one vector of losses, whatever the number of rays.
            losses = jnp.broadcast_to(losses, drawn.shape)
            normalised = normaliser.apply(state.normaliser, losses)
            return normalised, (losses, updates.get("batch_stats", {}))

        if objective.needs_gram:
            nothing = _no_perturbation(model, lambda: apply({}, ["batch_stats", PERTURBATIONS])[1])
            normalised, pullback, (losses, stats) = jax.vjp(
                normalised_losses, nothing, has_aux=True
            )
            gram = _gram(pullback, normalised)
        else:
            normalised, (losses, stats) = normalised_losses({})
            gram = None
        loss = objective.loss(normalised, drawn, gram, state.objective)
        return _Forward(loss, losses, drawn[:16], stats)

    def meta_forward(
        params: Any, state: TrainState, batch_stats: Any, batch: Batch, key: jax.Array
    ) -> _Forward:
        """One gradient step on the support half, then the loss of the query half.

        Differentiated through, as in MAML (Finn et al. 2017, arXiv 1703.03400).
        """
        half = batch["labels"].shape[0] // 2
        support = {name: values[:half] for name, values in batch.items()}
        query = {name: values[half : 2 * half] for name, values in batch.items()}
        support_key, query_key = jax.random.split(key)

        def support_loss(params: Any) -> tuple[jax.Array, Any]:
            output = forward(params, state, batch_stats, support, support_key)
            return output.loss, output.batch_stats

        gradients, stats = jax.grad(support_loss, has_aux=True)(params)
        rate = model.inner_learning_rate
        adapted = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
        return forward(adapted, state, stats, query, query_key)

    run = meta_forward if model.inner_learning_rate else forward

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        step_key = jax.random.fold_in(key, state.step)

        def loss_fn(params: Any) -> tuple[jax.Array, _Forward]:
            output = run(params, state, state.batch_stats, batch, step_key)
            return output.loss, output

        gradients, output = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        task_losses = output.losses.mean(axis=0)
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=output.batch_stats,
            opt_state=opt_state,
            normaliser=normaliser.update(state.normaliser, output.losses),
            objective=objective.update(state.objective, task_losses),
        )
        if skip_nonfinite:
            finite = jnp.isfinite(output.loss) & jnp.isfinite(optax.global_norm(gradients))
            kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
            new_state = kept.replace(
                step=state.step + 1, skipped=state.skipped + jnp.where(finite, 0, 1)
            )
        return new_state, StepMetrics(output.loss, task_losses, output.rays, new_state.skipped)

    return train_step


def _no_perturbation(model: Any, updates: Callable[[], Any]) -> Any:
    """Zeros to add to the representations that the model's tasks share.

    Raises:
      UserError: the model marks none.
    """
    shapes = jax.eval_shape(updates).get(PERTURBATIONS)
    if not shapes:
        raise UserError(
            f"the objective compares the tasks' gradients where they meet, and model "
            f"{type(model).__name__} marks no such place: call its mark_shared there"
        )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return {PERTURBATIONS: zeros}


def _gram(pullback: Callable[[jax.Array], Any], task_losses: jax.Array) -> jax.Array:
    """Inner products of the tasks' gradients at the shared representation, `[task, task]`.

    Args:
      pullback: From a cotangent of the losses to one of the representation.
      task_losses: `[ray, task]`; a task's loss is the mean over the rays.
    """
    num_rays, num_tasks = task_losses.shape
    cotangents = jnp.eye(num_tasks, dtype=task_losses.dtype)[:, None] / num_rays
    gradients = jax.vmap(pullback)(jnp.broadcast_to(cotangents, (num_tasks, *task_losses.shape)))
    products = [
        jnp.einsum("i...,j...->ij", leaf, leaf, precision="highest")
        for leaf in jax.tree.leaves(gradients)
    ]
    return jax.lax.stop_gradient(jnp.stack(products).sum(axis=0))


def make_dispatch(step: Step, shardings: Any = None) -> Step:
    """Compiles several steps into one call: `dispatch(state, batches [count, batch, ...])`.

    The state is donated: its buffers are reused, the caller's reference is dead.

    Args:
      step: From `make_train_step`.
      shardings: Of the state that comes out, a pytree; with those that go in, calls never compile
        anew for a placement that the compiler chose.
    """

    def dispatch(state: TrainState, batches: Batch) -> tuple[TrainState, StepMetrics]:
        return jax.lax.scan(step, state, batches)

    return jax.jit(dispatch, donate_argnums=0, out_shardings=(shardings, None))
