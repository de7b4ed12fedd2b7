"""What the TPU compiler says of embedding tables that are split over the chips, without a TPU.

`pip install 'hyperrec-jax[tpu-compile]'` brings the compiler (libtpu); no device is needed:

    python -m benchmarks.compile_tables --topologies "v5e 2x2" --ids 100_000_000

Compiles one training step with one field of many ids, where rows are looked up by a sum over all
chips and where they are exchanged, with lazy Adam and with Adam on all rows. The exchange is
counted with one round, as the compiler counts the body of a loop once.
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
from hyperrec_jax.parallel.exchange import Exchange
from hyperrec_jax.reports.tables import table
from hyperrec_jax.training.dispatch import make_step
from hyperrec_jax.training.state import state_template

LOOKUPS = ("sum", "exchange")
OPTIMIZERS = {"lazy": 100_000, "dense": 0}
"""Names of the two ways of Adam, and the option `optimizer.lazy_rows` of each."""


def row_of(
    store: Store, name: str, ids: int, optimizer: str, lookup: str, rows_a_chip: int
) -> list[str]:
    """One row of the table.

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
    begin = time.perf_counter()
    step = jax.jit(make_step(run), donate_argnums=0).trace(state_template(run), batch)
    program = step.lower(lowering_platforms=("tpu",)).compile()
    seconds = time.perf_counter() - begin
    memory = program.memory_analysis()
    count, size = collectives(program.as_text())
    return [
        name, f"{ids:,}", optimizer, lookup,
        f"{memory.argument_size_in_bytes / MIB:,.0f}",
        f"{memory.temp_size_in_bytes / MIB:,.0f}",
        f"{count}", f"{size / 1e6:,.1f}", f"{seconds:,.0f}",
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--topologies", nargs="+", default=["v5e 2x2"], choices=TOPOLOGIES)
    parser.add_argument("--ids", nargs="+", type=int, default=[100_000_000])
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    parser.add_argument("--lookups", nargs="+", default=LOOKUPS, choices=LOOKUPS)
    parser.add_argument("--rows-a-chip", type=int, default=2048)
    arguments = parser.parse_args(argv)
    compile_without_devices()
    header = ["topology", "ids", "Adam", "lookup", "MiB of state a chip", "MiB besides",
              "collectives", "MB of them", "seconds to compile"]  # fmt: skip
    lines: list[list[str]] = []
    choices = itertools.product(
        arguments.topologies, arguments.ids, arguments.optimizers, arguments.lookups
    )
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", 4096)
        for name, ids, optimizer, lookup in choices:
            lines.append(row_of(store, name, ids, optimizer, lookup, arguments.rows_a_chip))
            print(" | ".join(lines[-1]), flush=True)
    print(table(header, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
