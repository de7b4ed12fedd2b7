"""Generated rows of any shape, as a store and as the CSV file that the PyTorch peer reads.

Labels follow a random linear function of all features, so that there is something to learn.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from hyperrec_jax.data.schema import CategoricalField, NumericalField, Schema
from hyperrec_jax.data.sources.synthetic import (
    ITEM_FIELD_SIZES,
    ITEM_NUMBERS,
    USER_FIELD_SIZES,
    USER_NUMBERS,
)
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.store_writer import StoreWriter

FIELD_SIZES = tuple(size + 1 for size in USER_FIELD_SIZES + ITEM_FIELD_SIZES)
"""AliExpress' 16 fields, with an out-of-vocabulary id each."""
NUM_NUMERICAL = len(USER_NUMBERS + ITEM_NUMBERS)

_CHUNK_ROWS = 1 << 18
_SLOPE, _BIAS = 1.5, -1.5


def write_store(
    path: Path,
    rows: int,
    other_rows: int = 2048,
    *,
    field_sizes: Sequence[int] = FIELD_SIZES,
    num_numerical: int = NUM_NUMERICAL,
    num_tasks: int = 2,
) -> Store:
    """Writes a store of random rows.

    Args:
      path: Folder of the store.
      rows: Number of rows of the training split.
      other_rows: Number of rows of the validation split, and of the test split.
      field_sizes: Ids of each field; id 0, of values never seen, is not drawn.
      num_numerical: Numbers a row.
      num_tasks: Labels a row.
    """
    schema = Schema(
        source="generated",
        categorical=tuple(
            CategoricalField(f"categorical_{i + 1}", size) for i, size in enumerate(field_sizes)
        ),
        numerical=tuple(NumericalField(f"numerical_{i + 1}") for i in range(num_numerical)),
        tasks=tuple(f"task_{i + 1}" for i in range(num_tasks)),
    )
    rng = np.random.default_rng(0)
    scale = (len(field_sizes) + num_numerical) ** -0.5
    tables = [scale * rng.normal(size=(size, num_tasks)) for size in field_sizes]
    weights = scale * rng.normal(size=(num_numerical, num_tasks)).astype(np.float32)
    vocabulary = [pa.array(np.arange(1, size)) for size in field_sizes]
    with StoreWriter(path, schema, vocabulary) as writer:
        for split, count in (("train", rows), ("validation", other_rows), ("test", other_rows)):
            for start in range(0, count, _CHUNK_ROWS):
                chunk = min(_CHUNK_ROWS, count - start)
                ids = np.stack([rng.integers(1, size, chunk) for size in field_sizes], axis=1)
                numbers = rng.standard_normal((chunk, num_numerical), np.float32)
                scores = numbers @ weights
                for table, column in zip(tables, ids.T, strict=True):
                    scores += table[column]
                chance = 1 / (1 + np.exp(-_SLOPE * scores - _BIAS))
                labels = (rng.random(chance.shape) < chance).astype(np.uint8)
                writer.append(split, {"categorical": ids, "numerical": numbers, "labels": labels})
    return Store.open(path)


def write_csv(split: Split, schema: Schema, path: Path) -> None:
    """Writes a split in the processed form: search id, ids, numbers, labels."""
    batch = split.slice(0, len(split))
    names = {
        "categorical": [field.name for field in schema.categorical],
        "numerical": [field.name for field in schema.numerical],
        "labels": schema.tasks,
    }
    columns = {"search_id": np.arange(len(split)) // 10}
    for part, part_names in names.items():
        columns |= dict(zip(part_names, batch[part].T.copy(), strict=True))
    pl.DataFrame(columns).write_csv(path)
