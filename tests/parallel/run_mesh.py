"""Trains, restores and scores on a mesh, and prints the results: what `test_sharding.py` compares.

python -m tests.parallel.run_mesh '{"store": ..., "workdir": ..., "data": 2, "expert": 1, ...}'
"""

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.parts import Parts, make_parts
from hyperrec_jax.data.readers.rows import TrainingReader
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.parallel import distributed, processes
from hyperrec_jax.parallel import mesh as sharding
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.dispatch import make_dispatch
from tests.conftest import tiny_config

STEPS = 10
"""Steps a call."""
ROWS_A_DEVICE = 48
"""Scored in one call; no divisor of the rows, so that the last batch is padded."""


def main(
    store: str,
    workdir: str,
    data: int,
    expert: int,
    calls: int,
    scored: str | None = None,
    restored: str | None = None,
) -> dict[str, Any]:
    """Trains on a mesh, saves, and repeats parts with the checkpoints of other meshes.

    Args:
      store: Folder of the data.
      workdir: Folder to save to.
      data: Devices along `data`.
      expert: Devices along `expert`.
      calls: Calls of `STEPS` steps to train.
      scored: Workdir of another mesh whose best parameters to score.
      restored: Workdir of another mesh whose latest state to go on from, by one call.
    """
    opened = Store.open(Path(store))
    config = tiny_config(
        opened,
        mesh__data=data,
        mesh__expert=expert,
        model__num_experts=4,
        model__layout="batched",  # as on accelerators; compiles in half the time
        # Small steps: large ones make another trajectory of the last bit of a sum.
        optimizer__learning_rate=1e-4,
    )
    training = make_parts(config, opened)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, training.template)
    dispatch = make_dispatch(training.step, shardings)
    losses: list[float] = []

    def train(state: Any) -> Any:
        step = int(state.step)
        batches = place_batch(training.reader.read(step, STEPS), training.mesh, axis=1)
        state, values = dispatch(state, batches)
        losses.extend(processes.fetch(values.loss).tolist())
        return state

    state = training.init()
    for _ in range(calls):
        state = train(state)
    kernel = state.params["experts"]["layer_0"]["kernel"]
    result = {
        "losses": losses.copy(),
        "experts_a_device": kernel.addressable_shards[0].data.shape[0],
    }
    checkpoints = Checkpoints(Path(workdir))
    checkpoints.save_best(state.variables, int(state.step), Progress())
    if restored:
        found = Checkpoints(Path(restored), read_only=True).restore_latest(training.template)
        assert found is not None
        state = found[0]
        result["restored"] = _bits(state)
        losses.clear()
        state = train(state)
        result["losses_after_restoring"] = losses
    result["saved"] = _bits(state)
    checkpoints.save_latest(state, Progress())
    checkpoints.close()
    result["shared_batch"] = _shared_batch(opened)
    return result | _score(training, opened, Path(scored or workdir))


def _shared_batch(store: Store) -> list[int]:
    """A training batch on a mesh that has all devices along `expert`."""
    mesh = sharding.make_mesh(1, jax.device_count())
    reader = TrainingReader(store.split("train"), 64, 0, *sharding.batch_part(mesh, 64))
    return _bits(place_batch(reader.read(0, 1), mesh, axis=1))


def _score(training: Parts, store: Store, workdir: Path) -> dict[str, Any]:
    """AUC of a workdir's best parameters on all devices, none of them split over `expert`.

    Every device gets the same number of rows, so that all meshes run one program on it, which
    computes each row by itself: what it gives for a row does not depend on the mesh.
    """
    mesh = sharding.make_mesh()
    variables = {
        name: jax.tree.map(
            lambda leaf: leaf.update(sharding=NamedSharding(mesh, PartitionSpec())), tree
        )
        for name, tree in training.template.variables.items()
    }
    found = Checkpoints(workdir, read_only=True).restore_best(variables)
    assert found is not None
    scores = score_split(
        make_score_fn(training.model),
        found[0],
        store.split("test"),
        np.array([[0.8, 0.2], [0.2, 0.8]]),
        mesh,
        batch_size=ROWS_A_DEVICE * jax.device_count(),
    )
    auc = [
        [metrics.auc(*pair) for pair in zip(scores.labels, preference, strict=True)]
        for preference in scores.logits
    ]
    return {"auc": auc, "logits": _bits(scores.logits)}


def _bits(tree: Any) -> list[int]:
    """A checksum of each array."""
    return [zlib.crc32(leaf.tobytes()) for leaf in jax.tree.leaves(processes.fetch(tree))]


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    address = arguments.pop("cluster", None)
    cluster = address and distributed.Cluster(None, *address)
    with distributed.joined(cluster):
        print(json.dumps(main(**arguments)))
