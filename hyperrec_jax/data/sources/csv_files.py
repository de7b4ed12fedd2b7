"""A user's own CSV or Parquet files, described by a small YAML or JSON file."""

import dataclasses
import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from hyperrec_jax.data.csv_reader import Chunk, file_identity, plain_file, read_csv
from hyperrec_jax.data.encode import NumericalColumn, Rows, Source, fill_missing
from hyperrec_jax.data.store import SPLITS
from hyperrec_jax.errors import UserError

SCHEMA_EXAMPLE = """\
  name: my_shop                       # optional: the name of the store
  files:                              # .csv, .csv.gz or .parquet; lists and * are fine
    train: logs/2025-*.csv
    test: logs/2026-01.csv            # optional, else test_fraction of the training groups
    validation: logs/2026-02.csv      # optional, else --validation-fraction of them
  test_fraction: 0.1                  # optional
  categorical: [country, item_id]     # text or integers
  numerical:                          # standardised on the training rows unless it says otherwise
    - age
    - {name: price, log1p: true}
    - {name: score, standardise: false}
    - {name: rating, missing: 0}      # what stands for an empty cell; else it is an error
  labels: [click, purchase]           # a column for each task: 0 and 1, no and yes, false and true
  group: session_id                   # optional: the list a row belongs to; a group stays whole
"""

_KEYS = {"name", "files", "test_fraction", "categorical", "numerical", "labels", "group"}
_LABELS = {"0": 0, "0.0": 0, "no": 0, "false": 0, "1": 1, "1.0": 1, "yes": 1, "true": 1}
_ADVICE = "correct it, or see `python -m hyperrec_jax.commands.prepare csv --help` on text and gaps"
_SEE_HELP = "see `python -m hyperrec_jax.commands.prepare csv --help` for an example"


@dataclasses.dataclass(frozen=True)
class _Description:
    """The parsed description file."""

    name: str
    files: dict[str, list[Path]]
    test_fraction: float
    categorical: tuple[str, ...]
    numerical: tuple[NumericalColumn, ...]
    labels: tuple[str, ...]
    group: str | None

    def types(self) -> dict[str, pa.DataType]:
        """Column types; ids are text, so that files of several kinds agree on them."""
        text = [*self.categorical, *self.labels] + ([self.group] if self.group else [])
        return {column.name: pa.float64() for column in self.numerical} | dict.fromkeys(
            text, pa.string()
        )


def csv_source(path: Path) -> Source:
    """The files that a description names as a source.

    Args:
      path: The description, YAML or JSON; see `SCHEMA_EXAMPLE`.

    Raises:
      UserError: The description is missing, malformed, or names files that are not there.
    """
    description = _read_description(path)
    files = [file for split in SPLITS for file in description.files.get(split, [])]
    return Source(
        name=description.name,
        categorical=description.categorical,
        numerical=description.numerical,
        tasks=description.labels,
        group=description.group,
        splits={
            split: partial(_read, description, paths) for split, paths in description.files.items()
        },
        identity=" ".join(file_identity(file) for file in [path, *files]),
        test_fraction=description.test_fraction,
    )


def _read(description: _Description, paths: Sequence[Path], staging: Path) -> Iterator[Rows]:
    log1p = [column.name for column in description.numerical if column.log1p]
    missing = {c.name: c.missing for c in description.numerical if c.missing is not None}
    for path in paths:
        read = _read_parquet if path.suffix == ".parquet" else _read_text
        for raw in read(path, description.types(), missing):
            chunk = _filled(raw, missing)
            for name in log1p:
                chunk.require(name, chunk.batch[name].to_numpy() > -1, "has no log(1 + x)")
            group = description.group
            yield Rows(
                categorical=tuple(chunk.strings(name) for name in description.categorical),
                numerical=chunk.numbers([c.name for c in description.numerical], np.float64),
                labels=np.stack([_labels(chunk, name) for name in description.labels], axis=1),
                groups=None if group is None else _group_ids(chunk.strings(group)),
            )


def _read_text(
    path: Path, types: dict[str, pa.DataType], nullable: Collection[str]
) -> Iterator[Chunk]:
    return read_csv(
        plain_file(path), types, header=True, exact=False, nullable=nullable, advice=_ADVICE
    )


def _read_parquet(
    path: Path, types: dict[str, pa.DataType], nullable: Collection[str]
) -> Iterator[Chunk]:
    try:
        file = pq.ParquetFile(path, memory_map=True)
        missing = [name for name in types if name not in file.schema_arrow.names]
        if missing:
            raise UserError(
                f"{path}: lacks column {missing[0]!r}; it has {file.schema_arrow.names}"
            )
        if file.metadata.num_rows == 0:
            raise UserError(f"{path}: has no rows; export the file again")
        start = 0
        for batch in file.iter_batches(batch_size=1 << 16, columns=list(types)):
            yield _typed(path, start, batch, types, nullable)
            start += len(batch)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: damaged or not a Parquet file ({_one_line(error)})") from error


def _typed(
    path: Path,
    start: int,
    batch: pa.RecordBatch,
    types: dict[str, pa.DataType],
    nullable: Collection[str],
) -> Chunk:
    columns = {}
    raw = Chunk(str(path), start, batch, _ADVICE)
    for name, dtype in types.items():
        column = batch[name]
        if pa.types.is_string(dtype):
            columns[name] = pc.fill_null(column.cast(dtype), "")
            continue
        if name not in nullable:
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            raw.require(name, valid, "is missing or not a number")
        try:
            columns[name] = column.cast(dtype)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{path}: rows {start + 1} to {start + len(batch)}, column {name!r}: "
                f"not all values are of type {dtype} ({_one_line(error)}); correct them"
            ) from error
    return dataclasses.replace(raw, batch=pa.record_batch(columns))


def _filled(chunk: Chunk, missing: Mapping[str, float]) -> Chunk:
    """With a number in the place of each that is missing."""
    columns = dict(zip(chunk.batch.schema.names, chunk.batch.columns, strict=True))
    columns |= {name: fill_missing(columns[name], value) for name, value in missing.items()}
    return dataclasses.replace(chunk, batch=pa.record_batch(columns))


def _labels(chunk: Chunk, column: str) -> np.ndarray:
    """Labels in any of the spellings of `_LABELS`: uint8 [row]."""
    encoded = chunk.strings(column).dictionary_encode()
    spellings = encoded.dictionary.to_pylist()
    values = np.array([_LABELS.get(text.lower(), 2) for text in spellings], np.uint8)
    labels = values[encoded.indices.to_numpy()]
    chunk.require(
        column, labels < 2, "is not a label; labels are 0 and 1, no and yes, or false and true"
    )
    return labels


def _group_ids(values: pa.Array) -> np.ndarray:
    """A 63-bit hash of each group's text: int64 [row], the same in every file and run."""
    encoded = values.dictionary_encode()
    ids = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
        for text in encoded.dictionary.to_pylist()
    ]
    return np.array(ids, np.int64)[encoded.indices.to_numpy()]


def _read_description(path: Path) -> _Description:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such description file; {_SEE_HELP}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML or JSON ({_one_line(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping with the keys files and labels; {_SEE_HELP}")
    _refuse_unknown(path, values, _KEYS, "key")
    description = _Description(
        name=_text(path, "name", values.get("name", path.stem)),
        files=_files(path, values.get("files")),
        test_fraction=_fraction(path, values.get("test_fraction", 0.1)),
        categorical=_names(path, "categorical", values.get("categorical")),
        numerical=tuple(_numerical(path, entry) for entry in _list(values.get("numerical"))),
        labels=_names(path, "labels", values.get("labels")),
        group=None if values.get("group") is None else _text(path, "group", values["group"]),
    )
    if not description.labels:
        raise UserError(f"{path}: labels: at least one column of 0 and 1 is needed; {_SEE_HELP}")
    if not description.categorical and not description.numerical:
        raise UserError(f"{path}: at least one categorical or numerical column is needed")
    columns = [*description.categorical, *(c.name for c in description.numerical)]
    columns += description.labels
    repeated = {name for name in columns if columns.count(name) > 1}
    if description.group in description.labels:
        repeated.add(description.group)
    if repeated:
        raise UserError(f"{path}: column {min(map(str, repeated))!r} is used twice")
    return description


def _files(path: Path, values: Any) -> dict[str, list[Path]]:
    if not isinstance(values, dict) or "train" not in values:
        raise UserError(f"{path}: files: must name at least the train files; {_SEE_HELP}")
    _refuse_unknown(path, values, set(SPLITS), "split")
    files = {}
    for split in (split for split in SPLITS if split in values):
        found = []
        for pattern in _names(path, f"files: {split}", values[split]):
            matches = (
                sorted(path.parent.glob(pattern)) if "*" in pattern else [path.parent / pattern]
            )
            matches = [match for match in matches if match.is_file()]
            if not matches:
                raise UserError(f"{path}: files: {split}: no file {path.parent / pattern}")
            found += matches
        files[split] = found
    return files


def _numerical(path: Path, entry: Any) -> NumericalColumn:
    values = entry if isinstance(entry, dict) else {"name": entry}
    known = {"name", "log1p", "standardise", "missing"}
    _refuse_unknown(path, values, known, "key of a numerical column")
    flags = {
        key: values.get(key, default) for key, default in (("log1p", False), ("standardise", True))
    }
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{path}: numerical: {key}: {value!r} is neither true nor false")
    missing = values.get("missing")
    if missing is not None and (isinstance(missing, bool) or not _finite(missing)):
        raise UserError(f"{path}: numerical: missing: {missing!r} is not a number")
    return NumericalColumn(
        _text(path, "numerical", values.get("name")),
        missing=None if missing is None else float(missing),
        **flags,
    )


def _finite(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def _refuse_unknown(path: Path, values: dict[Any, Any], known: set[str], what: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise UserError(
            f"{path}: unknown {what} {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )


def _fraction(path: Path, value: Any) -> float:
    if not isinstance(value, float | int) or not 0 < value < 1:
        raise UserError(f"{path}: test_fraction: {value!r} is not a number between 0 and 1")
    return float(value)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(path, key, entry) for entry in _list(value))


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{path}: {key}: {value!r} is not a name; put it in quotes if it is one")
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
