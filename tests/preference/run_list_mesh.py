"""The loss of a packed batch on one device and on a mesh of four: prints both, and the gradients.

python -m tests.preference.run_list_mesh
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hyperrec_jax.preference.list_losses import (
    has_positive,
    lambda_ndcg,
    mean_over_lists,
    to_lists,
)

LENGTHS = (10, 7, 9, 20, 15)
ROWS = 64  # 16 a device, so that three of the lists lie across two devices


def loss(
    scores: jax.Array,
    labels: jax.Array,
    exists: jax.Array,
    list_index: jax.Array,
    position: jax.Array,
) -> jax.Array:
    """Sum over the preferences of a mixed list loss of flat rows."""

    def grid(values: jax.Array) -> jax.Array:
        return to_lists(values, list_index, position, len(LENGTHS), max(LENGTHS))

    preferences = jnp.array([[1.0, 0], [0.5, 0.5], [0.1, 0.9]])
    gains, mask = jnp.moveaxis(grid(labels), 0, -1), grid(exists)
    losses = lambda_ndcg(grid(scores), gains, mask, preferences)
    return mean_over_lists(losses, has_positive(gains, mask).any(-1)).sum()


def main() -> None:
    rng = np.random.default_rng(0)
    real = sum(LENGTHS)
    list_index = np.full(ROWS, len(LENGTHS), np.int32)
    list_index[:real] = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    position = np.zeros(ROWS, np.int32)
    position[:real] = np.concatenate([np.arange(length) for length in LENGTHS])
    batch = (
        rng.normal(size=(3, ROWS)).astype(np.float32),
        (rng.random((2, ROWS)) < 0.3).astype(np.float32),
        (np.arange(ROWS) < real).astype(np.float32),
        list_index,
        position,
    )
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    placed = [
        jax.device_put(
            column, NamedSharding(mesh, PartitionSpec(*(None,) * (column.ndim - 1), "data"))
        )
        for column in batch
    ]
    step = jax.jit(jax.value_and_grad(loss))
    results = [step(*batch), step(*placed)]
    assert len(results[1][1].sharding.device_set) == 4
    print(json.dumps([[float(value), np.asarray(slope).tolist()] for value, slope in results]))


if __name__ == "__main__":
    main()
