"""Trains some steps on sets, histories and own tables on a mesh: what `test_fields.py` compares.

python -m tests.training.run_fields_mesh STORE DEVICES
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from benchmarks.parts import make_parts
from hyperrec_jax.data.store import Store
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.dispatch import make_dispatch
from tests.conftest import tiny_config


def run(store: Store, devices: int) -> list[float]:
    """The losses of eight steps on the same batches, split over some devices."""
    config = tiny_config(
        store,
        mesh__data=devices,
        model__name="mmoe",
        model__embedding_dims={"item": 6, "tags": 3},
        train__batch_size=64,
        optimizer__lazy_rows=8,
        # Small steps: large ones make another trajectory of the last bit of a sum.
        optimizer__learning_rate=1e-4,
    )
    training = make_parts(config, store)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, training.template)
    dispatch = make_dispatch(training.step, shardings)
    batches = place_batch(training.reader.read(0, 8), training.mesh, axis=1)
    return np.asarray(dispatch(training.init(), batches)[1].loss).tolist()


if __name__ == "__main__":
    print(json.dumps(run(Store.open(Path(sys.argv[1])), int(sys.argv[2]))))
