"""Raw columns of any source -> store: staging, survey, encoding.

Three streaming passes, memory bounded by a few chunks of rows and the vocabularies:

  stage   The source is parsed and checked once, into Arrow files of its raw values.
  survey  Vocabularies, means and standard deviations of the training rows, and of them alone:
          a value that only validation or test rows have gets the out-of-vocabulary id 0.
  encode  Values -> ids and standardised numbers, written as a store.

Finished stages are reused when the command is run again after an interruption.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from hyperrec_jax.data.files import explain_write_errors, written_whole
from hyperrec_jax.data.locks import take
from hyperrec_jax.data.mixing import mix64
from hyperrec_jax.data.schema import CategoricalField, GoalField, NumericalField, Schema
from hyperrec_jax.data.store import Store, StoreWriter, refuse_foreign_folder
from hyperrec_jax.data.text import fits
from hyperrec_jax.errors import UserError
from hyperrec_jax.goals.metrics import auc

STAGING_VERSION = 3
_CHUNK_ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class Rows:
    """A chunk of raw rows, in the order of the source.

    Attributes:
      categorical: Per field the values [row]: int64 or string, the same for all chunks.
      numerical: Numbers [row, number], finite.
      labels: [row, goal]; uint8 of 0 and 1 or, where the source may have other labels or none,
        float32 with NaN for a missing one; the same type for all chunks.
      groups: Group of each row, int64 [row], where the source has groups.
      true_probability: f32 [row, goal], where the source knows it.
      weights: Weight of each row, f32 [row], where the source has weights.
    """

    categorical: tuple[pa.Array, ...]
    numerical: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None
    true_probability: np.ndarray | None = None
    weights: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class NumericalColumn:
    """How a numerical column is stored: `(f(x) - mean) / std`, `f` log1p or identity.

    Attributes:
      name: Column name.
      log1p: Whether `log(1 + x)` comes first.
      standardise: Whether to use the training rows' mean and standard deviation, else 0 and 1.
      missing: The `x` that stands for a missing number; None if none may be missing.
    """

    name: str
    log1p: bool = False
    standardise: bool = False
    missing: float | None = None


ReadRows = Callable[[Path], Iterator[Rows]]
"""Yields the rows of a split; may keep intermediate files of its own in the given folder."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Something that can be made into a store.

    Attributes:
      name: Such as `aliexpress_us`.
      categorical: Names of the fields.
      numerical: The columns and their transforms.
      tasks: Names of the goals.
      group: Name of the group column, or None.
      splits: How to read `train` and, where the source has its own, `validation` and `test`;
        without those a part of the training groups (rows, where there is no group) is set aside.
      identity: Changes when the input does (paths, sizes, times, options).
      test_fraction: Share of the training groups that is set aside for a test split that the
        source does not have.
      goals: What the labels are; all binary by default.
      weight: Name of the column of row weights, or None.
    """

    name: str
    categorical: tuple[str, ...]
    numerical: tuple[NumericalColumn, ...]
    tasks: tuple[str, ...]
    group: str | None
    splits: Mapping[str, ReadRows]
    identity: str
    test_fraction: float = 0.0
    goals: tuple[GoalField, ...] = ()
    weight: str | None = None


def prepare_store(source: Source, output: Path, validation_fraction: float = 0.1) -> Store:
    """Makes a store of a source, reusing what an interrupted run finished.

    Args:
      source: The rows.
      output: Folder of the store; a store that is there is replaced, or kept if it is of this
        very source.
      validation_fraction: Share of the training groups that becomes the validation split where
        the source has none of its own, in [0, 1).

    Raises:
      UserError: The input is unusable, or `output` cannot be written.
    """
    set_aside = {
        split: fraction
        for split, fraction in (
            ("validation", validation_fraction),
            ("test", source.test_fraction),
        )
        if split not in source.splits
    }
    if validation_fraction < 0 or not sum(set_aside.values()) < 1:
        raise UserError(
            f"validation fraction {validation_fraction}: must be at least 0 and leave rows to train"
        )
    refuse_foreign_folder(output)
    provenance = _provenance(source, validation_fraction)
    if (output / "schema.json").exists():
        try:
            store = Store.open(output)
        except UserError:
            pass  # of an older version or damaged: made again below
        else:
            if store.provenance == provenance:
                return store
    staging = output.with_name(output.name + ".staging")
    with explain_write_errors(output), open_staging(staging, provenance):
        parts = [
            _Part(
                name,
                _stage(source, name, read, staging),
                len(source.categorical),
                set_aside if name == "train" else {},
            )
            for name, read in source.splits.items()
        ]
        survey = _survey(source, parts)
        schema = Schema(
            source=source.name,
            categorical=tuple(
                CategoricalField(name, len(values) + 1)
                for name, values in zip(source.categorical, survey.vocabulary, strict=True)
            ),
            numerical=survey.numerical,
            tasks=source.tasks,
            group=source.group,
            best_auc=_best_auc(parts),
            goals=source.goals,
            label_dtype=_label_dtype(source, parts),
            weight=source.weight,
        )
        with StoreWriter(output, schema, survey.vocabulary, provenance) as writer:
            _encode(parts, survey, writer)
        shutil.rmtree(staging)
    return Store.open(output)


def _provenance(source: Source, validation_fraction: float) -> str:
    description = [
        STAGING_VERSION,
        source.name,
        source.identity,
        source.categorical,
        [_known(dataclasses.astuple(column)) for column in source.numerical],
        source.tasks,
        source.group,
        [dataclasses.asdict(goal) for goal in source.goals],
        source.weight,
        sorted(source.splits),
        validation_fraction,
    ]
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


@contextlib.contextmanager
def open_staging(staging: Path, provenance: str) -> Iterator[None]:
    """Keeps the finished stages of the same input, removes those of another; locks the folder.

    The system lets go of the lock however this process ends.

    Raises:
      UserError: another process prepares there.
    """
    output = staging.with_suffix("")
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # a folder that the system lets nobody make
        raise UserError(f"{output}: cannot be written; choose another output folder") from error
    handle = os.open(staging, os.O_RDONLY)
    try:
        if not _lock(handle, staging):
            raise UserError(
                f"{output}: another process prepares data there; wait for it, or choose another "
                "output folder"
            )
        mark = staging / "provenance"
        if not (mark.exists() and mark.read_text() == provenance):
            for path in staging.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            mark.write_text(provenance)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> bool:
    """Locks an open folder; False if it is locked, or was removed since it was opened."""
    try:
        take(handle)
        return os.path.samestat(os.fstat(handle), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


# Stage: source -> raw columns in an Arrow file.


def _stage(source: Source, name: str, read: ReadRows, staging: Path) -> Path:
    path = staging / f"{name}.arrow"
    if path.exists():
        return path
    writer = None
    with written_whole(path) as file:
        for batch in _of_one_size(_to_record_batch(rows) for rows in read(staging)):
            if writer is None:
                writer = pa.ipc.new_file(file, batch.schema)
            writer.write_batch(batch)
        if writer is None:
            raise UserError(f"{source.name}: the {name} split has no rows")
        writer.close()
    return path


def _of_one_size(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of 65,536, the last one smaller.

    What is computed of the chunks, such as a mean, is then the same to the last bit however the
    source came.
    """
    rest: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while rows + len(batch) >= _CHUNK_ROWS:
            taken = _CHUNK_ROWS - rows
            yield pa.concat_batches([*rest, batch.slice(0, taken)])
            batch, rest, rows = batch.slice(taken), [], 0
        if len(batch):
            rest.append(batch)
            rows += len(batch)
    if rest:
        yield pa.concat_batches(rest)


def _to_record_batch(rows: Rows) -> pa.RecordBatch:
    columns = {f"categorical_{i}": values for i, values in enumerate(rows.categorical)}
    matrices = {
        "numerical": rows.numerical,
        "labels": rows.labels,
        "group": rows.groups,
        "true_probability": rows.true_probability,
        "weight": rows.weights,
    }
    for name, matrix in matrices.items():
        if matrix is not None and matrix.size:
            flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, flat.__len__() // len(matrix))
    return pa.record_batch(columns)


def _from_record_batch(batch: pa.RecordBatch, num_fields: int) -> Rows:
    def matrix(name: str) -> np.ndarray | None:
        if name not in batch.schema.names:
            return None
        return batch[name].flatten().to_numpy().reshape(batch.num_rows, -1)

    numerical, labels, groups = matrix("numerical"), matrix("labels"), matrix("group")
    weights = matrix("weight")
    assert labels is not None
    return Rows(
        categorical=tuple(batch[f"categorical_{i}"] for i in range(num_fields)),
        numerical=np.empty((batch.num_rows, 0)) if numerical is None else numerical,
        labels=labels,
        groups=None if groups is None else groups[:, 0],
        true_probability=matrix("true_probability"),
        weights=None if weights is None else weights[:, 0],
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    """A staged split of the source, parts of which may be set aside for other splits."""

    name: str
    path: Path
    num_fields: int
    set_aside: Mapping[str, float]

    def __len__(self) -> int:
        with self._open() as reader:
            last = reader.num_record_batches - 1
            return last * _CHUNK_ROWS + reader.get_batch(last).num_rows

    def chunks(self) -> Iterator[tuple[Rows, dict[str, np.ndarray]]]:
        """Chunks of rows, and for each split which of them belong to it: bool [row]."""
        with self._open() as reader:
            for i in range(reader.num_record_batches):
                rows = _from_record_batch(reader.get_batch(i), self.num_fields)
                numbers = i * _CHUNK_ROWS + np.arange(len(rows.labels))
                chosen = set_aside(numbers if rows.groups is None else rows.groups, self.set_aside)
                rest = ~np.any([*chosen.values(), np.zeros(len(numbers), bool)], axis=0)
                yield rows, {self.name: rest, **chosen}

    def has_gaps(self) -> bool:
        """Whether a label is missing."""
        with self._open() as reader:
            position = reader.schema.get_field_index("labels")
            if pa.types.is_integer(reader.schema.field(position).type.value_type):
                return False
        with self._open(pa.ipc.IpcReadOptions(included_fields=[position])) as reader:
            return any(
                np.isnan(reader.get_batch(i)[0].flatten().to_numpy()).any()
                for i in range(reader.num_record_batches)
            )

    def _open(self, options: pa.ipc.IpcReadOptions | None = None) -> pa.ipc.RecordBatchFileReader:
        # Read and not mapped: pages of a mapped file would count as memory of the process.
        return pa.ipc.open_file(pa.OSFile(str(self.path)), options=options)


def _label_dtype(source: Source, parts: Sequence[_Part]) -> Literal["uint8", "float32"]:
    """The type of the stored labels: small where all are 0 or 1."""
    binary = all(goal.kind == "binary" for goal in source.goals)
    return "uint8" if binary and not any(part.has_gaps() for part in parts) else "float32"


def set_aside(units: np.ndarray, fractions: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Which groups (or rows) are set aside for each of some splits: bool, shaped like `units`.

    A hash decides, so that a group stays whole, wherever its rows are and whatever else there is.

    Args:
      units: Group ids or row numbers, integers.
      fractions: Expected share of each split; their sum is below 1.
    """
    place = mix64(units)
    chosen, low = {}, 0.0
    for split, fraction in fractions.items():
        high = low + fraction
        begin, end = (np.uint64(int(bound * 2**64)) for bound in (low, high))
        chosen[split] = (place >= begin) & (place < end)
        low = high
    return chosen


# Survey: what the training rows hold.


@dataclasses.dataclass(frozen=True)
class _Survey:
    vocabulary: tuple[pa.Array, ...]
    numerical: tuple[NumericalField, ...]


class _Distinct:
    """The distinct values of a stream; merged when they may have doubled, so in linear time."""

    _LEAST = 1 << 16

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._pending = 0
        self._merged = 0

    def add(self, values: pa.Array) -> None:
        self._chunks.append(pc.unique(values))
        self._pending += len(self._chunks[-1])
        if self._pending > max(self._LEAST, self._merged):
            self._merge()

    def sorted(self) -> pa.Array:
        self._merge()
        return self._chunks[0].sort()

    def _merge(self) -> None:
        merged = pc.unique(pa.chunked_array(self._chunks))
        self._chunks, self._merged, self._pending = [merged], len(merged), 0


class _Moments:
    """Mean and standard deviation of a stream of columns (Chan, Golub and LeVeque, 1983)."""

    def __init__(self, width: int):
        self._count = 0
        self.mean = np.zeros(width)
        self._squares = np.zeros(width)

    def add(self, values: np.ndarray) -> None:
        """Adds rows: [row, number]."""
        count = self._count + len(values)
        mean = values.mean(0, dtype=np.float64)
        delta = mean - self.mean
        self._squares += np.square(values - mean).sum(0)
        self._squares += np.square(delta) * (self._count * len(values) / count)
        self.mean += delta * (len(values) / count)
        self._count = count

    def std(self) -> np.ndarray:
        """Standard deviation, 1 where all values are the same but for what float32 tells apart."""
        std = np.sqrt(self._squares / max(self._count, 1))
        return np.where(std > np.finfo(np.float32).eps * np.abs(self.mean), std, 1.0)


def _survey(source: Source, parts: Sequence[_Part]) -> _Survey:
    train = next(part for part in parts if part.name == "train")
    distinct = [_Distinct() for _ in source.categorical]
    moments = _Moments(len(source.numerical))
    log1p = np.array([column.log1p for column in source.numerical], bool)
    seen = 0
    with _progress("surveying the training rows", len(train)) as progress:
        for rows, splits in train.chunks():
            keep = splits["train"]
            if keep.any():
                seen += int(keep.sum())
                mask = pa.array(keep)
                for field, values in zip(distinct, rows.categorical, strict=True):
                    field.add(values.filter(mask))
                moments.add(_apply_log1p(rows.numerical[keep], log1p))
            progress.update(len(keep))
    if seen == 0:
        raise UserError(
            f"{source.name}: no training rows are left beside the rows set aside; "
            "use a smaller validation fraction, or more data"
        )
    std = moments.std()
    return _Survey(
        vocabulary=tuple(field.sorted() for field in distinct),
        numerical=tuple(
            NumericalField(
                column.name,
                column.log1p,
                float(moments.mean[i]) if column.standardise else 0.0,
                float(std[i]) if column.standardise else 1.0,
                column.missing,
            )
            for i, column in enumerate(source.numerical)
        ),
    )


def _apply_log1p(values: np.ndarray, log1p: np.ndarray) -> np.ndarray:
    """`log(1 + x)` of the chosen columns; the sources refuse values of -1 and below."""
    return np.log1p(values, out=values.astype(np.float64), where=log1p) if log1p.any() else values


def _best_auc(parts: Sequence[_Part]) -> tuple[float, ...]:
    """AUC of the true probabilities on the test split, where they are known."""
    test = [part for part in parts if part.name == "test"]
    chunks = [(rows.labels, rows.true_probability) for part in test for rows, _ in part.chunks()]
    if not chunks or chunks[0][1] is None:
        return ()
    labels, probabilities = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return tuple(float(auc(labels[:, i], probabilities[:, i])) for i in range(labels.shape[1]))


# Encode: raw columns -> store.


class ValueEncoder:
    """Values of one field -> ids.

    Args:
      vocabulary: The values with the ids 1, 2, ..., sorted.
    """

    def __init__(self, vocabulary: pa.Array):
        self._known = pl.Series(vocabulary)

    def __call__(self, values: pa.Array) -> np.ndarray:
        """Ids of the values: int64 [value], 0 for those out of the vocabulary.

        Binary search over the distinct values only: no hash table of a large vocabulary is built.
        """
        encoded = values.dictionary_encode()
        distinct = pl.Series(encoded.dictionary)
        if not len(self._known) or not len(distinct):
            return np.zeros(len(values), np.int64)
        position = self._known.search_sorted(distinct)
        found = self._known.gather(position.clip(0, len(self._known) - 1)) == distinct
        ids = np.where(found.to_numpy(), position.to_numpy().astype(np.int64) + 1, 0)
        return ids[encoded.indices.to_numpy()]


def _encode(parts: Sequence[_Part], survey: _Survey, writer: StoreWriter) -> None:
    encoders = [ValueEncoder(values) for values in survey.vocabulary]
    log1p = np.array([field.log1p for field in survey.numerical], bool)
    mean = np.array([field.mean for field in survey.numerical])
    std = np.array([field.std for field in survey.numerical])
    with _progress("encoding", sum(len(part) for part in parts)) as progress:
        for part in parts:
            start = 0
            for rows, splits in part.chunks():
                numerical = rows.numerical
                if log1p.any() or mean.any() or np.any(std != 1):
                    numerical = (_apply_log1p(numerical, log1p) - mean) / std
                    _require_float32(numerical, rows.numerical, survey, f"{part.name} rows", start)
                start += len(rows.labels)
                columns = {
                    "categorical": _stack(
                        [encode(v) for encode, v in zip(encoders, rows.categorical, strict=True)],
                        len(rows.labels),
                    ),
                    "numerical": numerical,
                    "labels": rows.labels,
                }
                if rows.groups is not None:
                    columns["group"] = rows.groups
                if rows.true_probability is not None:
                    columns["true_probability"] = rows.true_probability
                if rows.weights is not None:
                    columns["weight"] = rows.weights
                for split, chosen in splits.items():
                    if chosen.all():
                        writer.append(split, columns)
                    elif chosen.any():
                        writer.append(split, {k: v[chosen] for k, v in columns.items()})
                progress.update(len(rows.labels))


def _require_float32(
    scaled: np.ndarray, raw: np.ndarray, survey: _Survey, where: str, start: int
) -> None:
    """Raises a UserError about a number that scaling makes too large for float32."""
    if not (fine := fits(scaled)).all():
        row, column = np.argwhere(~fine)[0]
        field = survey.numerical[column]
        raise UserError(
            f"{where}: row {start + row + 1}, column {field.name!r}: {raw[row, column]} is too "
            f"large beside the training rows (mean {field.mean:.4g}, standard deviation "
            f"{field.std:.4g}); correct it"
        )


def _stack(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0), np.int64)


def _progress(what: str, rows: int) -> tqdm:
    return tqdm(total=rows, desc=what, unit="row", unit_scale=True, disable=None)
