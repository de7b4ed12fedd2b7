"""Fields of stored rows as text, as a person knows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.vocabulary_file import read_vocabulary

_NAMES = ("name", "title", "product", "item", "article", "video", "song")
"""Words in the name of a field by which people know an item, the best first."""


class RawValues:
    """The text of the fields of stored rows.

    Attributes:
      names: Names of the fields, the categorical first.
    """

    def __init__(self, schema: Schema, vocabulary: Sequence[pa.Array]) -> None:
        """With the values of each table of the schema that have the ids 1, 2, ..."""
        self._schema, self._vocabulary = schema, vocabulary
        names = [field.name for field in schema.categorical]
        self.names = tuple(names + [field.name for field in schema.numerical])

    @classmethod
    def open(cls, schema: Schema, path: Path) -> "RawValues":
        """With the vocabulary in a file that was checked before."""
        if not schema.tables:
            return cls(schema, ())
        fields = read_vocabulary(path)
        return cls(schema, tuple(fields[table.name].values for table in schema.tables))

    def of_ids(self, index: int, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The values of ids of a categorical field, by its position."""
        field = self._schema.categorical[index]
        known = self._vocabulary[self._schema.table_of(field)]

        def told(value_id: int) -> str:
            if value_id == 0:
                return "(rare or new)" if field.min_count > 1 else "(new)"
            return f"hash {value_id}" if field.hashed else str(known[value_id - 1])

        return [told(int(each)) for each in ids]

    def columns(self, batch: Mapping[str, np.ndarray]) -> list[list[str]]:
        """The text of all fields in a batch, `[field][row]`."""
        texts = [
            self.of_ids(index, batch["categorical"][:, index])
            for index in range(len(self._schema.categorical))
        ]
        for index, number in enumerate(self._schema.numerical):
            values = batch["numerical"][:, index] * number.std + number.mean
            values = np.expm1(values) if number.log1p else values
            texts.append([f"{value:.4g}" for value in values])
        return texts

    def naming(self, columns: Sequence[Sequence[str]]) -> list[int]:
        """Fields that tell rows apart, the one that names them best first.

        Args:
          columns: From `columns`.

        Returns:
          Positions of fields whose values differ.
        """

        def rank(field: int) -> tuple[bool, int, int]:
            name = self.names[field].lower()
            word = next((i for i, word in enumerate(_NAMES) if word in name), len(_NAMES))
            categorical = field < len(self._schema.categorical)
            different = len(set(columns[field])) if categorical else 0
            return not categorical, word, -different

        varying = [field for field, values in enumerate(columns) if len(set(values)) > 1]
        return sorted(varying, key=rank)
