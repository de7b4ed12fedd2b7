"""Trains some steps of a lazy table on a mesh: what `test_lazy_tables.py` compares.

python -m tests.training.run_lazy_mesh STORE DATA EXPERT
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.parts import make_parts
from hyperrec_jax.data.store import Store
from hyperrec_jax.parallel import tables
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.dispatch import make_dispatch
from tests.conftest import tiny_config

LARGE = 30_000
"""Rows of a large table here; a million of them take seconds to draw."""


def run(store: Store, data: int, expert: int) -> dict[str, Any]:
    """Losses, what is held of the table, and norms of the rows that were trained."""
    config = tiny_config(
        store,
        mesh__data=data,
        mesh__expert=expert,
        model__name="sharedbottom",
        train__batch_size=32,
        optimizer__lazy_rows=1000,
        # Small steps: large ones make another trajectory of the last bit of a sum.
        optimizer__learning_rate=1e-4,
    )
    training = make_parts(config, store)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, training.template)
    batches = place_batch(training.reader.read(0, 8), training.mesh, axis=1)
    compiled = make_dispatch(training.step, shardings).lower(training.init(), batches).compile()
    text = compiled.as_text()
    lengths = map(int, re.findall(r"f32\[(\d+),\d+\]", text))
    state, metrics = compiled(training.init(), batches)
    table = state.params["embedding"]["embedding"]
    rows = np.unique(batches["categorical"][..., 0])
    return {
        "losses": np.asarray(metrics.loss).tolist(),
        "rows_a_device": table.addressable_shards[0].data.shape[0],
        "longest_array": max(lengths),
        "exchanged": "all-to-all" in text,
        "row_norms": np.linalg.norm(np.asarray(table[rows]), axis=1).tolist(),
    }


if __name__ == "__main__":
    path, *mesh = sys.argv[1:]
    tables.LARGE_TABLE_ROWS = LARGE
    print(json.dumps(run(Store.open(Path(path)), *map(int, mesh))))
