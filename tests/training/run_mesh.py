"""Trains some steps on a mesh and prints losses and AUC: what `test_sharding.py` compares.

python tests/training/run_mesh.py STORE STEPS DATA EXPERT
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from hyperrec_jax import experiment, metrics
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation import make_score_fn, score_split
from hyperrec_jax.training.sharding import place_batch
from hyperrec_jax.training.step import make_dispatch
from tests.conftest import tiny_config


def main(path: str, steps: int, data: int, expert: int) -> None:
    store = Store.open(Path(path))
    config = tiny_config(
        store,
        mesh__data=data,
        mesh__expert=expert,
        model__num_experts=4,
        # Small steps: large ones make another trajectory of the last bit of a sum.
        optimizer__learning_rate=1e-4,
    )
    training = experiment.create_training(config, store)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, training.template)
    dispatch = make_dispatch(training.step, shardings)
    state, losses = training.init(), []
    for step in range(0, steps, 10):
        batches = place_batch(training.reader.read(step, 10), training.mesh, axis=1)
        state, values = dispatch(state, batches)
        losses += np.asarray(values.loss).tolist()
    rays = np.array([[0.8, 0.2], [0.2, 0.8]])
    scores = score_split(
        make_score_fn(training.model),
        state.variables,
        store.split("test"),
        rays,
        training.mesh,
        batch_size=96,  # not a divisor of the rows: the last batch is padded
    )
    auc = [[metrics.auc(*pair) for pair in zip(scores.labels, ray)] for ray in scores.logits]  # noqa: B905
    kernel = state.params["experts"]["layer_0"]["kernel"]
    held = kernel.addressable_shards[0].data.shape[0]
    print(json.dumps({"losses": losses, "auc": auc, "experts_a_device": held}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
