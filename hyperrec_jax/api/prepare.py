"""From a frame to a store."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from hyperrec_jax.data.encode import prepare_store
from hyperrec_jax.data.files import explain_write_errors
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.preprocess import RawRows, to_table


def prepare(
    rows: RawRows,
    folder: str | Path,
    *,
    labels: Sequence[str],
    categorical: Sequence[str] = (),
    numerical: Sequence[str] = (),
    log1p: Sequence[str] = (),
    missing: Mapping[str, float] | None = None,
    group: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> Store:
    """Makes a frame into a store that `fit` reads.

    Args:
      rows: A pandas or Polars frame, an Arrow table, or a list with a dictionary a row; also kept
        in the folder as Parquet.
      folder: A new folder, or one that an earlier call wrote.
      labels: Columns of 0 and 1 or of true and false, one a task.
      categorical: Columns of text or integers.
      numerical: Columns of numbers; standardised on the training rows.
      log1p: Those of them of which `log(1 + x)` is taken first.
      missing: The number that stands for a missing one, by column; elsewhere it is an error.
      group: Column of the list that a row belongs to, such as a search; a group stays whole.
      validation_fraction: Share of the groups (rows without any) that selects the model, in (0, 1).
      test_fraction: Share that is kept for the test, in (0, 1).

    Raises:
      UserError: a column is missing or a value is not as its column needs it.
    """
    folder = Path(folder)
    missing = missing or {}
    for key, names in (("log1p", log1p), ("missing", missing)):
        unknown = [name for name in names if name not in numerical]
        if unknown:
            raise UserError(f"{key}: {unknown[0]!r} is not among the numerical columns")
    description = {
        "name": folder.name,
        "files": {"train": "rows.parquet"},
        "test_fraction": test_fraction,
        "categorical": list(categorical),
        "numerical": [
            {"name": name, "log1p": name in log1p, "missing": missing.get(name)}
            for name in numerical
        ],
        "labels": list(labels),
        "group": group,
    }
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table(rows), folder / "rows.parquet")
        path = folder / "description.json"
        path.write_text(json.dumps(description, indent=1), "utf-8")
    return prepare_store(csv_source(path), folder / "store", validation_fraction)
