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
from hyperrec_jax.data.csv_reader import COMMAS, Dialect, header_of, plain_file, read_csv
from hyperrec_jax.data.files import explain_write_errors, written_whole
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.marginal_gain import MARGINAL_GAIN, add_variety, list_fusion
from hyperrec_jax.evaluation.ranks import ranks
from hyperrec_jax.evaluation.varied import varied_of
from hyperrec_jax.serving.groups import group_ids
from hyperrec_jax.serving.predictor import Predictor

logger = logging.getLogger(__name__)

_PARQUET_ROWS = 1 << 16


def predict_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    preferences: np.ndarray,
    keep: Sequence[str] | None = None,
    dialect: Dialect = COMMAS,
) -> int:
    """Writes the probabilities and the list scores of all rows of a file, in its order.

    The columns are those of `keep`, then one for each goal and `score`: `click`, or
    `click@0.3,0.7` for each of several preferences. A model without a list scorer gives no score.

    Args:
      predictor: A model.
      source: A `.csv`, `.csv.gz` or `.parquet` file.
      target: A `.parquet` or `.csv` file; it appears once complete.
      preferences: Preferences, `[preference, goal]`.
      keep: Columns of the input to copy, such as a row's id; None for the column that the training
        data named as the list of a row, if the input has it.

    Returns:
      The number of rows.

    Raises:
      UserError: the input is not as the model needs it, or the output can't be written.
    """
    keep = check_files(predictor, source, target, keep, dialect)
    names = _names(predictor, preferences, keep)
    rows = 0
    with explain_write_errors(target), written_whole(target) as file:
        writer = None
        for result in score_batches(predictor, source, preferences, keep, names, dialect=dialect):
            writer = writer or _writer(file, target, result.schema)
            writer.write_table(result)
            rows += result.num_rows
        if writer is not None:
            writer.close()
    return rows


def rank_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    preference: np.ndarray,
    group: str | None = None,
    keep: Sequence[str] | None = None,
    fusion: str | None = None,
    dialect: Dialect = COMMAS,
) -> int:
    """Writes the rows of a file ordered within their lists, lists in order of appearance.

    The columns are those of `keep`, the list, then `row` (the number of the row in the input, from
    1), one for each goal, `score` and `rank`. Memory grows with the number of rows, by what is
    written of each.

    Args:
      predictor: A model.
      source: A `.csv`, `.csv.gz` or `.parquet` file.
      target: A `.parquet` or `.csv` file; it appears once complete.
      preference: `[goal]`.
      group: The column that names a row's list; None for that of the training data.
      keep: Other columns of the input to copy.
      fusion: How the score is made; see `evaluation.list_scorer`. None for the marginal gain
        where variety is a goal, else the expected gain.
      dialect: How a CSV input is written.

    Returns:
      The number of rows.

    Raises:
      UserError: the input is not as the model needs it, has no such column, or the model has no
        list scorer.
    """
    schema = predictor.preprocess.schema
    scorer = predictor.require_scorer()
    order_by = list_fusion(schema, scorer, fusion)
    group = group or schema.group
    if group is None:
        raise UserError("--group: the data names no column that tells which rows are a list; do so")
    keep = list(dict.fromkeys([*(keep or ()), group]))
    check_files(predictor, source, target, keep, dialect)
    preferences = preference[None]
    names = _names(predictor, preferences, [*keep, "row", "rank"])
    categories: list[np.ndarray] = []
    batches = score_batches(
        predictor, source, preferences, keep, names, order_by, dialect, categories
    )
    table = pa.concat_tables(list(batches))
    ids = group_ids(table, group, len(table), where=str(source))
    assert ids is not None
    score = table[names[-1]].to_numpy()
    if order_by == MARGINAL_GAIN:
        varied = varied_of(schema, np.concatenate(categories))
        score = add_variety(score, preference, scorer.scales, varied, ids)
        table = table.set_column(table.column_names.index(names[-1]), names[-1], pa.array(score))
    rank = ranks(score, ids)
    order = pa.array(np.lexsort((rank, ids)))
    table = table.add_column(len(keep), "row", pa.array(np.arange(1, len(table) + 1)))
    table = table.append_column("rank", pa.array(rank)).take(order)
    with explain_write_errors(target), written_whole(target) as file:
        writer = _writer(file, target, table.schema)
        writer.write_table(table)
        writer.close()
    return len(table)


def score_batches(
    predictor: Predictor,
    source: Path,
    preferences: np.ndarray,
    keep: Sequence[str],
    names: Sequence[str],
    fusion: str | None = None,
    dialect: Dialect = COMMAS,
    categories: list[np.ndarray] | None = None,
) -> Iterator[pa.Table]:
    """Scores a file a few megabytes at a time: the columns to keep, then those of `names`.

    Args:
      predictor: A model.
      source: The file.
      preferences: `[preference, goal]`.
      keep: Columns of the file.
      names: Names of predictions and scores.
      fusion: How the score of a row is made; None for what the lists were trained by.
      dialect: How a CSV file is written.
      categories: Gets the ids `[row, field]` of each batch, where variety is a goal.

    Raises:
      UserError: the input is not as the model needs it.
    """
    rows, unseen = 0, np.zeros(len(predictor.preprocess.schema.id_fields), np.int64)
    for table in _read(source, predictor, keep, dialect):
        encoded = predictor.preprocess(table, str(source), rows)
        scored = predictor.score_encoded(encoded, preferences, fusion)
        if categories is not None and fusion == MARGINAL_GAIN:
            categories.append(encoded.categorical)
        parts = [scored.probabilities.transpose(0, 2, 1)]
        if scored.score is not None:
            parts.append(scored.score[:, None])
        flat = np.concatenate(parts, axis=1).reshape(len(names), -1)
        columns = {name: table[name] for name in keep}
        columns |= {name: pa.array(values) for name, values in zip(names, flat, strict=True)}
        yield pa.table(columns)
        rows += table.num_rows
        unseen += encoded.unseen
    for line in unseen_warnings(predictor.preprocess.schema, unseen.tolist(), rows, str(source)):
        logger.warning(line)


def check_files(
    predictor: Predictor,
    source: Path,
    target: Path,
    keep: Sequence[str] | None,
    dialect: Dialect = COMMAS,
) -> list[str]:
    """Refuses a target that can't be written; returns the columns to keep.

    Raises:
      UserError: the output has another ending, no folder, or is the input.
    """
    if target.suffix not in (".parquet", ".csv"):
        raise UserError(f"--output {target}: must end in .parquet or .csv")
    if not target.parent.is_dir():
        raise UserError(f"--output {target}: there is no folder {target.parent}; make it first")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"--output {target}: is the input; choose another file")
    if keep is not None:
        return list(keep)
    group = predictor.preprocess.schema.group
    return [group] if group and group in _column_names(source, dialect) else []


def _column_names(source: Path, dialect: Dialect) -> list[str]:
    """The columns of a file; none if it can't be read, which its reader then tells."""
    try:
        if source.suffix.lower() == ".parquet":
            return list(pq.read_schema(source).names)
        return header_of(plain_file(source), dialect) if source.is_file() else []
    except (pa.ArrowInvalid, OSError):
        return []


def _names(predictor: Predictor, preferences: np.ndarray, others: Sequence[str]) -> list[str]:
    """The columns of predictions and scores; none of them may be written twice."""
    columns = list(predictor.tasks)
    if predictor.scorer is not None:
        columns.append("list_score" if "score" in columns else "score")
    labels = [",".join(f"{weight:.4g}" for weight in preference) for preference in preferences]
    names = [
        name if len(preferences) == 1 else f"{name}@{label}" for label in labels for name in columns
    ]
    repeated = sorted({name for name in [*others, *names] if [*others, *names].count(name) > 1})
    if repeated:
        raise UserError(f"column {repeated[0]!r} would be written twice; see --keep, --preference")
    return names


def _read(
    source: Path, predictor: Predictor, keep: Sequence[str], dialect: Dialect
) -> Iterator[pa.RecordBatch]:
    types = {name: pa.string() for name in keep} | predictor.preprocess.column_types()
    if source.suffix.lower() != ".parquet":
        if not source.is_file():
            raise UserError(f"--input {source}: no such file")
        nullable = predictor.preprocess.nullable()
        for chunk in read_csv(
            plain_file(source),
            types,
            header=True,
            exact=False,
            nullable=nullable,
            dialect=dialect,
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
