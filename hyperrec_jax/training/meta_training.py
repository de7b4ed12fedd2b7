"""Meta-training: the parameters adapt on one half of a batch and are judged on the other."""

import jax
import optax

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import BatchLoss, Forward


def adapted(loss: BatchLoss) -> BatchLoss:
    """One gradient step on the support half of a batch, then the loss of its query half.

    Differentiated through, as in MAML (Finn et al. 2017, arXiv 1703.03400). The size of the inner
    step is the model's `inner_learning_rate`.

    Args:
      loss: Loss of a batch, as `step.batch_loss`.
    """

    def query_loss(
        run: Run, params: optax.Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        half = batch["labels"].shape[0] // 2
        support = {name: values[:half] for name, values in batch.items()}
        query = {name: values[half : 2 * half] for name, values in batch.items()}
        support_key, query_key = jax.random.split(key)

        def support_loss(params: optax.Params) -> tuple[jax.Array, Forward]:
            return loss(run, params, state, support, support_key)

        gradients, forward = jax.grad(support_loss, has_aux=True)(params)
        rate = run.model.inner_learning_rate
        moved = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
        state = state.replace(batch_stats=forward.batch_stats)
        return loss(run, moved, state, query, query_key)

    return query_loss
