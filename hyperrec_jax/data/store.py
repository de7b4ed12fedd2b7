"""The columnar store: one Arrow IPC file a split, memory-mapped and read without decoding.

A store is a folder:

    schema.json        version, schema; per split rows, statistics of the labels, the number of ids
                       that training never saw, a checksum per record batch
    vocabulary.arrow   per table of the schema the values that have the ids 1, 2, ...
    train.arrow        record batches of 16,384 rows; columns are fixed-size lists
    validation.arrow
    test.arrow

Record batches of one size lie at one distance from each other in the file, so that a whole column
is a strided NumPy view `[record batch, row, width]` of the mapped file: a batch is a slice of it
(no copy) or one gather. Each record batch is checked against its checksum when it is first read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from hyperrec_jax.data.columns import (
    PREPARE_AGAIN,
    SPLITS,
    VERSION,
    VERSION_OF_MANY,
    columns_of,
    fingerprint_of,
)
from hyperrec_jax.data.files import (
    file_checksum,
)
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.vocabulary_file import read_vocabulary
from hyperrec_jax.errors import UserError


class Store:
    """A prepared data set, opened by `Store.open`.

    Attributes:
      path: The folder.
      schema: Fields, tasks, group.
      fingerprint: Changes with any change of the contents, and only then.
      provenance: What the store was made from.
    """

    def __init__(self, path: Path, contents: Mapping[str, Any]):
        self.path = path
        self.schema = Schema.from_dict(contents["schema"])
        self.fingerprint: str = contents["fingerprint"]
        self.provenance: str = contents["provenance"]
        self._vocabulary_checksum: int = contents["vocabulary"]
        self._vocabulary: pa.RecordBatch | None = None
        columns = columns_of(self.schema)
        self._splits = {
            name: Split(path / f"{name}.arrow", columns, **entry)
            for name, entry in contents["splits"].items()
        }

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        """Opens a store without reading its rows.

        Raises:
          UserError: There is no store, it is of another version, or it is damaged.
        """
        path = Path(path)
        schema_path = path / "schema.json"
        try:
            contents = json.loads(schema_path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{path}: no prepared data here; {PREPARE_AGAIN}") from error
        except (ValueError, OSError, RecursionError) as error:
            raise UserError(f"{schema_path}: damaged, unreadable; {PREPARE_AGAIN}") from error
        version = contents.get("version") if isinstance(contents, dict) else None
        if version not in (VERSION, VERSION_OF_MANY):
            raise UserError(
                f"{schema_path}: a store of version {version!r}, and this program reads versions "
                f"{VERSION} and {VERSION_OF_MANY}; {PREPARE_AGAIN}"
            )
        try:
            if contents["fingerprint"] != fingerprint_of(contents):
                raise ValueError("fingerprint")
            return cls(path, contents)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{schema_path}: damaged, it was changed after it was written; {PREPARE_AGAIN}"
            ) from error

    def split(self, name: str) -> Split:
        """The split `train`, `validation` or `test`.

        Raises:
          UserError: There is no such split.
        """
        if name not in self._splits:
            raise UserError(f"no split {name!r} in {self.path}; there are {', '.join(SPLITS)}")
        return self._splits[name]

    def vocabulary(self, field: str) -> pa.Array:
        """The values of a field of ids that have the ids 1, 2, ... (id 0: all others).

        Raises:
          UserError: There is no such field, it has no vocabulary, or the file is damaged.
        """
        fields = {known.name: known for known in self.schema.id_fields}
        if field not in fields:
            raise UserError(
                f"no categorical field {field!r} in {self.path}; there are {', '.join(fields)}"
            )
        if fields[field].hashed:
            raise UserError(
                f"field {field!r} in {self.path} has no vocabulary: its ids are hashes of values"
            )
        if self._vocabulary is None:
            path = self.path / "vocabulary.arrow"
            if not path.exists() or file_checksum(path) != self._vocabulary_checksum:
                raise UserError(f"{path}: damaged or missing; {PREPARE_AGAIN}")
            self._vocabulary = read_vocabulary(path)
        return self._vocabulary[self.schema.table_of(fields[field])].values
