"""Whether the input keeps up with the steps on rows that have a history of 50 items.

    python -m benchmarks.histories --rows 100000

Generates a log of sets and histories, prepares it, and times four things in turn, so that whatever
else the machine does falls on all of them: reading batches, steps on a batch that is there, steps
that read their batch first, and steps whose next batch is read ahead meanwhile, as training does.
The input is no bottleneck where steps with reading ahead are as fast as steps without reading.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import polars as pl

from benchmarks.measure import alternate, machine, table, timed
from benchmarks.parts import make_parts
from hyperrec_jax import prepare
from hyperrec_jax.config.files import load_config
from hyperrec_jax.data.readers.rows import prefetch
from hyperrec_jax.data.store import Store
from hyperrec_jax.parallel.mesh import place_batch
from hyperrec_jax.training.dispatch import make_dispatch

LENGTH, ITEMS, TAGS = 50, 20_000, 300
POOLINGS = ("mean", "target_attention", "transformer")
MODELS = {
    "small": {
        "model.embedding_dim": 16,
        "model.bottom_widths": (64, 32),
        "model.tower_widths": (32,),
    },
    "default": {},
}
STEPS = 4
"""Steps of a call, each on a batch of its own."""


def write_log(rows: int, pooling: str, folder: Path) -> Store:
    """A log in which every row has a full history and some tags."""
    random = np.random.default_rng(0)
    values = random.integers(0, ITEMS, rows * LENGTH).astype(np.int32)
    counts = random.integers(0, 6, rows)
    frame = pl.DataFrame(
        {
            "item": random.integers(0, ITEMS, rows),
            "user": random.integers(0, 1_000, rows),
            "price": random.normal(size=rows),
            "history": pl.Series(values.reshape(rows, LENGTH)).arr.to_list(),
            "tags": [random.integers(0, TAGS, count).tolist() for count in counts],
            "click": random.integers(0, 2, rows),
            "buy": random.integers(0, 2, rows),
        }
    )
    return prepare(
        frame,
        folder,
        categorical=["item", "user"],
        numerical=["price"],
        sets=["tags"],
        sequences=[{"name": "history", "shares": "item", "max_length": LENGTH, "pooling": pooling}],
        labels=["click", "buy"],
    )


def measure(store: Store, model: str, batch_size: int, rounds: int) -> dict[str, float]:
    """Rows per second of each of the four, the median of some rounds."""
    options = MODELS[model] | {"data.store": str(store.path), "train.batch_size": batch_size}
    parts = make_parts(load_config(None, options), store)
    dispatch = make_dispatch(parts.step, jax.tree.map(lambda leaf: leaf.sharding, parts.template))
    state, step = parts.init(), 0

    def stepped(batch: dict[str, np.ndarray]) -> None:
        nonlocal state
        state, metrics = dispatch(state, place_batch(batch, parts.mesh, axis=1))
        jax.block_until_ready(metrics.loss)

    held = parts.reader.read(0, STEPS)
    stepped(held)  # compiles

    def read() -> None:
        nonlocal step
        step += STEPS
        parts.reader.read(step, STEPS)

    def read_and_step() -> None:
        nonlocal step
        step += STEPS
        stepped(parts.reader.read(step, STEPS))

    ahead = prefetch(parts.reader, [(STEPS * call, STEPS) for call in range(10_000)])
    stepped(next(ahead))
    works: dict[str, Callable[[], None]] = {
        "reading": read,
        "steps": lambda: stepped(held),
        "reading, then steps": read_and_step,
        "steps, reading ahead": lambda: stepped(next(ahead)),
    }
    seconds = alternate({name: lambda w=w: timed(w) for name, w in works.items()}, rounds)
    return {name: STEPS * batch_size / each for name, each in seconds.items()}


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", default=",".join(MODELS))
    chosen = parser.parse_args(arguments)
    lines = []
    for pooling in POOLINGS:
        with tempfile.TemporaryDirectory() as folder:
            store = write_log(chosen.rows, pooling, Path(folder) / "store")
            for model in chosen.models.split(","):
                speeds = measure(store, model, chosen.batch_size, chosen.rounds)
                share = speeds["steps, reading ahead"] / speeds["steps"]
                numbers = [f"{value:,.0f}" for value in speeds.values()]
                lines.append([pooling, model, *numbers, f"{share:.2f}"])
    print(f"Rows per second, medians of {chosen.rounds} rounds in turn.", end=" ")
    print(machine(["jax", "numpy"], 2))
    header = ["pooling", "model", "reading", "steps", "reading, then steps"]
    print(table([*header, "steps, reading ahead", "of steps alone"], lines))


if __name__ == "__main__":
    main()
