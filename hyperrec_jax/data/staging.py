"""Stage: the source is parsed and checked once, into Arrow files of its raw values."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from hyperrec_jax.data.files import is_of_the_disk, written_whole
from hyperrec_jax.data.locks import take
from hyperrec_jax.data.mixing import mix64
from hyperrec_jax.data.source import ReadRows, Rows, Source
from hyperrec_jax.data.time_split import Cuts, TimesAndGroups
from hyperrec_jax.errors import UserError

STAGING_VERSION = 3

_CHUNK_ROWS = 65_536


@contextlib.contextmanager
def open_staging(staging: Path, provenance: str) -> Iterator[None]:
    """Keeps the finished stages of the same input, removes those of another; locks the folder.

    What is refused leaves no folder, since the same input would be refused again; what the system
    ends, or a full disk, leaves the finished stages. The system lets go of the lock however this
    process ends.

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
        try:
            yield
        except UserError as error:
            if not is_of_the_disk(error):
                shutil.rmtree(staging, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> bool:
    """Locks an open folder; False if it is locked, or was removed since it was opened."""
    try:
        take(handle)
        return os.path.samestat(os.fstat(handle), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def stage(source: Source, name: str, read: ReadRows, staging: Path) -> Path:
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
    columns |= {f"multivalued_{i}": values for i, values in enumerate(rows.multivalued)}
    matrices = {
        "numerical": rows.numerical,
        "labels": rows.labels,
        "group": rows.groups,
        "true_probability": rows.true_probability,
        "weight": rows.weights,
        "time": rows.times,
        "vectors": rows.vectors,
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
    weights, times = matrix("weight"), matrix("time")
    assert labels is not None
    return Rows(
        categorical=tuple(batch[f"categorical_{i}"] for i in range(num_fields)),
        numerical=np.empty((batch.num_rows, 0)) if numerical is None else numerical,
        labels=labels,
        groups=None if groups is None else groups[:, 0],
        true_probability=matrix("true_probability"),
        weights=None if weights is None else weights[:, 0],
        times=None if times is None else times[:, 0],
        multivalued=tuple(
            batch[name] for name in batch.schema.names if name.startswith("multivalued_")
        ),
        vectors=matrix("vectors"),
    )


Choose = Callable[[Rows, np.ndarray], dict[str, np.ndarray]]
"""`choose(rows, row numbers)`: which rows are set aside for each of some splits, bool [row]."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A staged split of the source, parts of which may be set aside for other splits.

    Attributes:
      name: Name of the split.
      path: The staged file.
      num_fields: Number of its categorical fields.
      choose: Sets rows aside for other splits; None for none.
      wanted: The splits that it sets rows aside for and that must get some.
    """

    name: str
    path: Path
    num_fields: int
    choose: Choose | None = None
    wanted: tuple[str, ...] = ()

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
                chosen = self.choose(rows, numbers) if self.choose else {}
                rest = ~np.any([*chosen.values(), np.zeros(len(numbers), bool)], axis=0)
                yield rows, {self.name: rest, **chosen}

    def times(self) -> Iterator[TimesAndGroups]:
        """When the rows of each chunk happened, and their groups; reads nothing else."""
        with self._open() as reader:
            names = [name for name in ("time", "group") if name in reader.schema.names]
            fields = sorted(map(reader.schema.get_field_index, names))
        with self._open(pa.ipc.IpcReadOptions(included_fields=fields)) as reader:
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                columns = {name: batch[name].flatten().to_numpy() for name in names}
                yield columns["time"], columns.get("group")

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


def set_aside(units: np.ndarray, fractions: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Which groups (or rows) are set aside for each of some splits: bool, shaped like `units`.

    A hash decides, so that a group stays whole, wherever its rows are and whatever else there is.
    The test split takes the highest hashes and the validation split the lowest, so that neither
    moves with the share of the other.

    Args:
      units: Group ids or row numbers, integers.
      fractions: Expected share of `test`, `validation` or both; their sum is below 1.
    """
    place = mix64(units)
    chosen = {}
    for split, fraction in fractions.items():
        of_hashes = int(fraction * 2**64)
        if split == "test":
            chosen[split] = place > np.uint64(2**64 - 1 - of_hashes)
        else:
            chosen[split] = place < np.uint64(of_hashes)
    return chosen


def split_up(part: Part, source: Source, fractions: Mapping[str, float]) -> Part:
    """The training part with rows set aside, by time or by a hash of groups or row numbers.

    Args:
      part: The staged training rows.
      source: Where they come from.
      fractions: The splits that are set aside and their shares; a source that is split by time may
        say otherwise.
    """
    by_time = source.time_split
    wanted: list[str] = []
    if by_time is not None:
        wanted = [name for name, share in fractions.items() if share or getattr(by_time, name)]
        cuts = Cuts(by_time, fractions, part.times)

        def choose(rows: Rows, numbers: np.ndarray) -> dict[str, np.ndarray]:
            assert rows.times is not None, "a source that is split by time has times"
            return cuts.masks(rows.times, rows.groups)

    else:

        def choose(rows: Rows, numbers: np.ndarray) -> dict[str, np.ndarray]:
            return set_aside(numbers if rows.groups is None else rows.groups, fractions)

    return dataclasses.replace(part, choose=choose, wanted=tuple(wanted))


def progress_bar(what: str, rows: int) -> tqdm:
    return tqdm(total=rows, desc=what, unit="row", unit_scale=True, disable=None)
