"""What the TPU compiler says of embedding tables that are split over the chips, without a TPU.

`pip install 'hyperrec-jax[tpu-compile]'` brings the compiler (libtpu); no device is needed:

    python -m benchmarks.compile_tables --topologies "v5e 2x2" --ids 100_000_000

Compiles one training step with one field of many ids (`lazy` Adam, or `dense` on all rows), or
the rows of one table alone, read and written back (`rows`, which compiles fast), where rows are
looked up by a sum over all chips and where they are exchanged. The exchange is counted with one
round, as the compiler counts the body of a loop once.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.compile_tpu import (
    TOPOLOGIES,
    batch_shapes,
    collectives,
    compile_without_devices,
    topology_mesh,
)
from benchmarks.generate import write_store
from benchmarks.measure import MIB
from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.store import Store
from hyperrec_jax.parallel.exchange import AXES, Exchange, gather_rows, write_rows
from hyperrec_jax.parallel.tables import table_rows
from hyperrec_jax.reports.tables import table
from hyperrec_jax.training.dispatch import make_step
from hyperrec_jax.training.state import state_template

LOOKUPS = ("sum", "exchange")
OPTIMIZERS = {"lazy": 100_000, "dense": 0}
"""Names of the two ways of Adam, and the option `optimizer.lazy_rows` of each."""
PROGRAMS = ("rows", *OPTIMIZERS)


def rows_alone(name: str, ids: int, exchange: bool, rows_a_chip: int) -> jax.stages.Traced:
    """Reads the rows of a batch from one table of 128 columns, halves them, and writes them."""
    mesh = topology_mesh(name)
    chosen = Exchange(mesh) if exchange else None

    def halve(table: jax.Array, rows: jax.Array) -> jax.Array:
        return write_rows(table, rows, gather_rows(table, rows, chosen) / 2, chosen)

    split, of_batch = (NamedSharding(mesh, PartitionSpec(axes)) for axes in (AXES, "data"))
    table = jax.ShapeDtypeStruct((table_rows([ids]), 128), np.float32, sharding=split)
    rows = jax.ShapeDtypeStruct((rows_a_chip * mesh.size,), np.int32, sharding=of_batch)
    return jax.jit(halve, donate_argnums=0, out_shardings=split).trace(table, rows)


def step_of(
    store: Store, name: str, ids: int, optimizer: str, lookup: str, rows_a_chip: int
) -> jax.stages.Traced:
    """A training step.

    Args:
      store: Any with AliExpress' fields; the first of them gets so many ids.
      name: One of `benchmarks.compile_tpu.TOPOLOGIES`.
      ids: Number of ids of the first field.
      optimizer: One of `OPTIMIZERS`.
      lookup: One of `LOOKUPS`.
      rows_a_chip: Rows of a batch for each chip.
    """
    mesh = topology_mesh(name)
    first, *others = store.schema.categorical
    large = dataclasses.replace(first, size=ids)
    schema = dataclasses.replace(store.schema, categorical=(large, *others))
    options = {"data.store": str(store.path), "model.name": "mmoe", "model.layout": "batched",
               "optimizer.lazy_rows": OPTIMIZERS[optimizer]}  # fmt: skip
    config = overridden(defaults.get_config().to_dict(), options)
    run = resolve(config, schema, store.split("train"))
    exchange = Exchange(mesh) if lookup == "exchange" else None
    run = dataclasses.replace(run, mesh=mesh, model=run.model.clone(exchange=exchange))
    batch = batch_shapes(run, rows_a_chip * mesh.size)
    return jax.jit(make_step(run), donate_argnums=0).trace(state_template(run), batch)


def figures(traced: jax.stages.Traced) -> list[str]:
    """What the compiler says of a program."""
    begin = time.perf_counter()
    program = traced.lower(lowering_platforms=("tpu",)).compile()
    seconds = time.perf_counter() - begin
    memory = program.memory_analysis()
    count, size = collectives(program.as_text())
    return [
        f"{memory.argument_size_in_bytes / MIB:,.0f}",
        f"{memory.temp_size_in_bytes / MIB:,.0f}",
        f"{count}", f"{size / 1e6:,.1f}", f"{seconds:,.0f}",
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e 2x2"], choices=TOPOLOGIES)
    parser.add_argument("--ids", nargs="+", type=int, default=[100_000_000])
    parser.add_argument("--programs", nargs="+", default=["rows", "lazy"], choices=PROGRAMS)
    parser.add_argument("--lookups", nargs="+", default=LOOKUPS, choices=LOOKUPS)
    parser.add_argument("--rows-a-chip", type=int, default=2048)
    arguments = parser.parse_args(argv)
    compile_without_devices()
    header = ["topology", "ids", "program", "lookup", "MiB of state a chip", "MiB besides",
              "collectives", "MB of them", "seconds to compile"]  # fmt: skip
    lines: list[list[str]] = []
    choices = itertools.product(
        arguments.topologies, arguments.ids, arguments.programs, arguments.lookups
    )
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", 4096)
        for name, ids, program, lookup in choices:
            if program == "rows":
                traced = rows_alone(name, ids, lookup == "exchange", arguments.rows_a_chip)
            else:
                traced = step_of(store, name, ids, program, lookup, arguments.rows_a_chip)
            lines.append([name, f"{ids:,}", program, lookup, *figures(traced)])
            print(" | ".join(lines[-1]), flush=True)
    print(table(header, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
