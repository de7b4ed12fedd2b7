"""Scores files of raw rows of any number, a few megabytes at a time."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from tqdm import tqdm

from hyperrec_jax.data.checks import unseen_warnings
from hyperrec_jax.data.csv_reader import plain_file, read_csv
from hyperrec_jax.data.files import explain_write_errors, written_whole
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.predictor import Predictor

logger = logging.getLogger(__name__)

_PARQUET_ROWS = 1 << 16


def predict_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    preferences: np.ndarray,
    keep: Sequence[str] = (),
) -> int:
    """Writes the probabilities of all rows of a file, in its order.

    The columns are those of `keep`, then one per goal: `click`, or `click@0.3,0.7` for each of
    several preferences.

    Args:
      predictor: A model.
      source: A `.csv`, `.csv.gz` or `.parquet` file.
      target: A `.parquet` or `.csv` file; it appears once complete.
      preferences: Preferences, `[preference, goal]`.
      keep: Columns of the input to copy, such as a row's id.

    Returns:
      The number of rows.

    Raises:
      UserError: the input is not as the model needs it, or the output can't be written.
    """
    if target.suffix not in (".parquet", ".csv"):
        raise UserError(f"--output {target}: must end in .parquet or .csv")
    if not target.parent.is_dir():
        raise UserError(f"--output {target}: there is no folder {target.parent}; make it first")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"--output {target}: is the input; choose another file")
    labels = [",".join(f"{weight:.4g}" for weight in preference) for preference in preferences]
    names = [
        task if len(preferences) == 1 else f"{task}@{label}"
        for label in labels
        for task in predictor.tasks
    ]
    repeated = sorted({name for name in [*keep, *names] if [*keep, *names].count(name) > 1})
    if repeated:
        raise UserError(f"column {repeated[0]!r} would be written twice; see --keep, --preference")
    rows, unseen = 0, np.zeros(len(predictor.preprocess.schema.categorical), np.int64)
    with explain_write_errors(target), written_whole(target) as file:
        writer = None
        for table in _read(source, predictor, keep):
            encoded = predictor.preprocess(table, str(source), rows)
            scores = predictor.predict_encoded(encoded, preferences)
            columns = {name: table[name] for name in keep}
            flat = scores.transpose(0, 2, 1).reshape(len(names), -1)
            columns |= {name: pa.array(values) for name, values in zip(names, flat, strict=True)}
            result = pa.table(columns)
            writer = writer or _writer(file, target, result.schema)
            writer.write_table(result)
            rows += result.num_rows
            unseen += encoded.unseen
        if writer is not None:
            writer.close()
    for line in unseen_warnings(predictor.preprocess.schema, unseen.tolist(), rows, str(source)):
        logger.warning(line)
    return rows


def _read(source: Path, predictor: Predictor, keep: Sequence[str]) -> Iterator[pa.RecordBatch]:
    types = {name: pa.string() for name in keep} | predictor.preprocess.column_types()
    if source.suffix != ".parquet":
        if not source.is_file():
            raise UserError(f"--input {source}: no such file")
        nullable = predictor.preprocess.nullable()
        for chunk in read_csv(
            plain_file(source), types, header=True, exact=False, nullable=nullable
        ):
            yield chunk.batch
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(source))
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"--input {source}: no readable Parquet file ({error})") from error
        present = [name for name in types if name in file.schema_arrow.names]
        absent = [name for name in keep if name not in present]
        if absent:
            raise UserError(f"--keep: {source} has no column {absent[0]!r}")
        bar = stack.enter_context(
            tqdm(
                total=file.metadata.num_rows,
                unit="row",
                unit_scale=True,
                desc=f"reading {source.name}",
                disable=None,  # as when a CSV file is read: only in a terminal
            )
        )
        for batch in file.iter_batches(_PARQUET_ROWS, columns=present):
            yield batch
            bar.update(len(batch))


def _writer(file: BinaryIO, target: Path, schema: pa.Schema) -> Any:
    kind = pq.ParquetWriter if target.suffix == ".parquet" else pa_csv.CSVWriter
    return kind(file, schema)
