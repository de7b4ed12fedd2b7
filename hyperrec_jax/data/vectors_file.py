"""Files of vectors that were trained elsewhere: an id and its numbers in each row."""

import functools
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hyperrec_jax.data.encode import ValueEncoder
from hyperrec_jax.data.files import file_checksum
from hyperrec_jax.data.text import UnreadableValue, fits, to_text
from hyperrec_jax.errors import UserError

FORM = (
    "give a Parquet file with a column of ids and one of vectors (lists of one length), or an .npz "
    "file with the arrays ids [row] and vectors [row, number]"
)


class Vectors(NamedTuple):
    """What a file has.

    Attributes:
      ids: string `[row]`, each once, as `data.text` writes a value.
      numbers: float32 `[row, width]`, finite.
      fingerprint: Changes with the file's contents.
    """

    ids: pa.Array
    numbers: NDArray[np.float32]
    fingerprint: str

    @property
    def width(self) -> int:
        return self.numbers.shape[1]


class Matched(NamedTuple):
    """A table that begins at the vectors of a file.

    Attributes:
      table: float32 `[id, width]`, the unknown id's first.
      found: Number of values of the vocabulary that the file has.
    """

    table: NDArray[np.float32]
    found: int


def vectors_of(path: Path) -> Vectors:
    """Reads and checks a file of vectors.

    Args:
      path: A Parquet or .npz file.

    Raises:
      UserError: there is no such file, it is of another form, an id is missing or there twice, or a
        number is not finite.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: no such file of vectors; {FORM}") from error
    return _read(path.resolve(), status.st_size, status.st_mtime_ns)


def match(vectors: Vectors, vocabulary: pa.Array) -> Matched:
    """The vectors of the values of a vocabulary, in the order of their ids.

    A value that the file does not have begins at the mean of those that it shares with the
    vocabulary, as does the unknown id.

    Args:
      vectors: The file.
      vocabulary: Values that have the ids 1, 2, ..., sorted.
    """
    ids = ValueEncoder(vocabulary)(vectors.ids.cast(vocabulary.type))
    known = ids > 0
    table = np.zeros((len(vocabulary) + 1, vectors.width), np.float32)
    if known.any():
        table[:] = vectors.numbers[known].mean(axis=0, dtype=np.float64)
    table[ids[known]] = vectors.numbers[known]
    return Matched(table, int(known.sum()))


@functools.lru_cache(maxsize=4)
def _read(path: Path, size: int, changed: int) -> Vectors:
    """As `vectors_of`; size and time of the last change tell whether to read it again."""
    del size, changed
    try:
        ids, numbers = _npz(path) if path.suffix == ".npz" else _parquet(path)
    except (OSError, pa.ArrowException, ValueError, KeyError, zipfile.BadZipFile) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: unreadable as a file of vectors ({told}); {FORM}") from error
    if ids.null_count:
        row = ids.is_null().index(True).as_py() + 1
        raise UserError(f"{path}: row {row}: the id is missing; leave the row out")
    try:
        texts = to_text(ids)
    except UnreadableValue as error:
        raise UserError(f"{path}: row {error.row + 1}: the id {error.why}") from error
    bad = ~fits(numbers).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"{path}: row {row + 1}, id {texts[row].as_py()!r}: its vector has a number that is "
            "missing or not finite; mend it or leave the row out"
        )
    counts = texts.value_counts()
    twice = counts.field("counts").to_numpy(zero_copy_only=False) > 1
    if twice.any():
        value = counts.field("values")[int(twice.argmax())].as_py()
        raise UserError(f"{path}: id {value!r} has several rows; give each id one vector")
    return Vectors(texts, numbers.astype(np.float32), f"{file_checksum(path):08x}")


def _npz(path: Path) -> tuple[pa.Array, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"ids", "vectors"} - set(arrays.files)
        if missing:
            raise ValueError(f"no array {sorted(missing)[0]}")
        ids, numbers = arrays["ids"], arrays["vectors"]
    if ids.ndim != 1 or numbers.ndim != 2 or len(ids) != len(numbers) or not numbers.shape[1]:
        raise ValueError(f"ids are {ids.shape} and vectors {numbers.shape}")
    return pa.array(ids), np.asarray(numbers, np.float64)


def _parquet(path: Path) -> tuple[pa.Array, np.ndarray]:
    table = pq.read_table(path)
    lists = [
        field.name
        for field in table.schema
        if pa.types.is_fixed_size_list(field.type)
        or pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
    ]
    others = [name for name in table.column_names if name not in lists]
    if len(lists) != 1 or len(others) != 1:
        raise ValueError(f"its columns are {', '.join(table.column_names)}")
    ids, vectors = (table[name].combine_chunks() for name in (*others, *lists))
    if vectors.null_count:
        raise ValueError(f"row {vectors.is_null().index(True).as_py() + 1} has no vector")
    lengths = vectors.value_lengths().to_numpy(zero_copy_only=False)
    if not len(lengths) or (lengths != lengths[0]).any() or not lengths[0]:
        raise ValueError(f"its vectors have lengths {sorted(set(lengths.tolist()))[:5]}")
    numbers = vectors.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return ids, numbers.reshape(len(lengths), -1)
