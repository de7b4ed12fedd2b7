"""The file of the values behind the ids: written, read, and checked against a model's schema."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from hyperrec_jax.data.files import file_checksum, written_whole
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.errors import UserError


def check_vocabulary(path: Path, schema: Schema, checksum: int | None = None) -> None:
    """Compares a vocabulary file with what the model reads.

    Args:
      path: The file.
      schema: Schema of the model; a table of `size` ids has `size - 1` values, a hashed one none.
      checksum: CRC-32 of the file that the model was trained with; None where none was kept.

    Raises:
      UserError: the file is missing, damaged, or that of another model.
    """
    again = "copy vocabulary.arrow from the prepared data, or run the same training command again"
    if not path.exists():
        raise UserError(f"{path}: missing; {again}")
    if checksum is not None and file_checksum(path) != checksum:
        raise UserError(
            f"{path}: damaged, or of another run: its checksum is not that of the model's "
            f"vocabulary; {again}"
        )
    if not schema.tables:
        return
    try:
        fields = read_vocabulary(path)
        sizes = {name: len(fields[name].values) + 1 for name in fields.schema.names}
    except (OSError, pa.ArrowException, AttributeError) as error:
        raise UserError(f"{path}: no readable vocabulary ({error}); {again}") from error
    for field in schema.tables:
        size = 1 if field.hashed else field.size
        if sizes.get(field.name) != size:
            raise UserError(
                f"{path}: of another model: field {field.name!r} has {size} ids in the "
                f"model and {sizes.get(field.name, 0)} in the file; {again}"
            )


def same_vocabulary(one: Path, other: Path, schema: Schema) -> bool:
    """Whether two files give the same values the same ids."""
    return not schema.tables or read_vocabulary(one).equals(read_vocabulary(other))


def write_vocabulary(path: Path, schema: Schema, vocabulary: Sequence[pa.Array]) -> None:
    """One row, one list for each field: millions of values are mapped, never parsed."""
    names = [table.name for table in schema.tables]
    lists = [
        pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
        for values in vocabulary
    ]
    batch = pa.record_batch(lists, names=names)
    with written_whole(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
        if names:
            writer.write_batch(batch)


def read_vocabulary(path: Path) -> pa.RecordBatch:
    """The one record batch of a vocabulary file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
