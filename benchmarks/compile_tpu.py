"""What the TPU compiler says of a training step and of validation, without a TPU.

`pip install 'hyperrec-jax[tpu-compile]'` brings the compiler (libtpu); no device is needed:

    python -m benchmarks.compile_tpu --output benchmarks/results/compile_tpu.md

Compiles one step, and the scores of 25 preferences, for each topology and type, at the shape of
AliExpress, and prints what a chip holds, arithmetic and bytes moved for each row, collectives and
the time to compile. Figures of the compiler's own cost model: loops over batches are left out,
since it counts their body once.
"""

import argparse
import dataclasses
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.generate import FIELD_SIZES, NUM_NUMERICAL, write_store
from benchmarks.measure import MIB, machine
from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.config.run import Run
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.grid import grid_for
from hyperrec_jax.evaluation.outputs import make_score_fn
from hyperrec_jax.reports.tables import table
from hyperrec_jax.training.dispatch import make_step
from hyperrec_jax.training.state import state_template

TOPOLOGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "v5e 1": ("v5e:1x1", {"chips_per_host_bounds": (1, 1, 1)}),
    "v5e 2x2": ("v5e:2x2", {}),
    "v5e 16x16": ("v5e:16x16", {}),
    "v6e 2x2": ("v6e:2x2", {}),
}
"""Names of topologies, and how libtpu calls them."""
PREFERENCES = 25
_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"(pred|[suf]\d+|bf16)\[([\d,]*)\]")


def compile_without_devices() -> None:
    """Keeps JAX on the CPU, and libtpu from asking a cloud that is not there."""
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_ID", "0")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def topology_mesh(name: str, expert: int = 1) -> Mesh:
    """A mesh over the devices of a topology that is not there.

    Args:
      name: One of `TOPOLOGIES`.
      expert: Devices along `expert`.
    """
    libtpu_name, options = TOPOLOGIES[name]
    devices = topologies.get_topology_desc(libtpu_name, "tpu", **options).devices
    array = np.array(devices).reshape(-1, expert)
    return Mesh(array, ("data", "expert"), (AxisType.Auto,) * 2)


def collectives(text: str) -> tuple[int, int]:
    """Number of the collectives of a compiled program, and bytes of what comes out of them."""
    count = total = 0
    for match in _COLLECTIVE.finditer(text):
        count += 1
        for kind, dimensions in _ARRAY.findall(match[1]):
            width = 1 if kind == "pred" else int(kind.lstrip("bsuf")) // 8
            total += width * int(np.prod([int(size) for size in dimensions.split(",") if size]))
    return count, total


def batch_shapes(run: Run, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of a run as shapes, its rows split over the mesh."""
    place = NamedSharding(run.mesh, PartitionSpec("data"))
    numbers = "bfloat16" if run.model.compute_dtype == "bfloat16" else "float32"
    return {
        "categorical": jax.ShapeDtypeStruct((rows, len(FIELD_SIZES)), np.int32, sharding=place),
        "numerical": jax.ShapeDtypeStruct((rows, NUM_NUMERICAL), numbers, sharding=place),
        "labels": jax.ShapeDtypeStruct((rows, run.schema.num_tasks), np.uint8, sharding=place),
    }


def compiled(function: Any, rows: int, chips: int, *arguments: Any) -> list[str]:
    """Cells of the table for one program.

    Args:
      function: From `jax.jit`.
      rows: Rows of a global batch.
      chips: Number of devices.
      *arguments: Shapes of the arguments.
    """
    begin = time.perf_counter()
    lowered = function.trace(*arguments).lower(lowering_platforms=("tpu",))
    program = lowered.compile()
    seconds = time.perf_counter() - begin
    memory, cost = program.memory_analysis(), program.cost_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    held -= memory.alias_size_in_bytes
    cost = cost if isinstance(cost, Mapping) else cost[0]
    share = rows // chips  # the compiler's figures are those of one chip
    count, size = collectives(program.as_text())
    return [
        f"{held / MIB:,.0f}",
        f"{cost['flops'] / share / 1e6:,.1f}",
        f"{cost['bytes accessed'] / share / 1e6:,.3f}",
        f"{count}",
        f"{size / 1e6:,.1f}",
        f"{seconds:,.0f}",
    ]


def rows_of(
    name: str, store: Store, model: str, dtype: str, rows_a_chip: int, expert: int
) -> list[list[str]]:
    """The rows of the table for one topology, model and type; of the store, the schema counts."""
    mesh = topology_mesh(name, expert)
    options = {"data.store": str(store.path), "model.name": model, "model.compute_dtype": dtype,
               "model.layout": "batched", "model.fold": "never"}  # fmt: skip
    rows = rows_a_chip * mesh.shape["data"]
    config = overridden(defaults.get_config().to_dict(), options)
    run = dataclasses.replace(resolve(config, store.schema, store.split("train")), mesh=mesh)
    state, batch = state_template(run), batch_shapes(run, rows)
    step = jax.jit(make_step(run), donate_argnums=0)
    head = [name if expert == 1 else f"{name}, expert {expert}", model, dtype]
    chips = mesh.size
    grid = grid_for(run.model.conditioned, run.schema.num_tasks, PREFERENCES).astype(np.float32)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    everywhere = NamedSharding(mesh, PartitionSpec())
    asked = jax.ShapeDtypeStruct(grid.shape, grid.dtype, sharding=everywhere)
    return [
        [*head, "step", *compiled(step, rows, chips, state, batch)],
        [
            *head, f"{len(grid)} preferences",
            *compiled(make_score_fn(run.model), rows, chips, state.variables, inputs, asked),
        ],
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e 1", "v5e 2x2"], choices=TOPOLOGIES)
    parser.add_argument("--models", nargs="+", default=["pomoe", "mmoe"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rows-a-chip", type=int, default=2048)
    parser.add_argument("--expert", type=int, default=1, help="devices along `expert`")
    parser.add_argument("--output", type=Path, help="Markdown file to write as well")
    arguments = parser.parse_args(argv)
    compile_without_devices()
    header = ["topology", "model", "type", "program", "MiB a chip", "MFLOP a row", "MB moved a row",
              "collectives", "MB of them", "seconds to compile"]  # fmt: skip
    lines: list[list[str]] = []
    choices = itertools.product(arguments.topologies, arguments.models, arguments.dtypes)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", 4096)
        for name, model, dtype in choices:
            found = rows_of(name, store, model, dtype, arguments.rows_a_chip, arguments.expert)
            lines += found
            for line in found:
                print(" | ".join(line), flush=True)
    text = table(header, lines)
    print(text)
    if arguments.output:
        arguments.output.write_text(
            "# What the TPU compiler says\n\n`python -m benchmarks.compile_tpu`: one training "
            f"step, and the scores of {PREFERENCES} preferences, at {arguments.rows_a_chip:,} rows "
            "a chip, with AliExpress' 16 fields and 63 numbers; two goals. No TPU was there: "
            f"figures of the compiler's cost model.\n\n{text}\n\n{machine(('jax', 'libtpu'), 1)}\n",
            "utf-8",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
