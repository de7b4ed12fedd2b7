"""Rows as a model reads them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hyperrec_jax.data.schema import Schema


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Rows as the model reads them.

    Attributes:
      categorical: Ids, int32 `[row, field]`.
      numerical: Transformed numbers, float32 `[row, number]`.
      multivalued: For each set or sequence its ids, padded with -1, int32 `[row, length]`.
      vectors: For each vector its transformed numbers, float32 `[row, width]`.
    """

    categorical: np.ndarray
    numerical: np.ndarray
    multivalued: tuple[np.ndarray, ...] = ()
    vectors: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.categorical)

    @property
    def unseen(self) -> np.ndarray:
        """Number of rows of each field of ids with a value that training never saw: int64 [field].

        `data.checks.unseen_warnings` says in words where they are many.
        """
        of_lists = [np.count_nonzero((ids == 0).any(axis=1)) for ids in self.multivalued]
        return np.append(np.count_nonzero(self.categorical == 0, axis=0), of_lists).astype(np.int64)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What a model is given, in the order of `data.columns.input_columns`."""
        several = (self.multivalued, self.vectors)
        joined = (np.concatenate(arrays, axis=1) for arrays in several if arrays)
        return (self.categorical, self.numerical, *joined)

    @classmethod
    def joined(cls, parts: Sequence["Encoded"]) -> "Encoded":
        """The rows of several parts, one after the other."""
        return cls(
            np.concatenate([part.categorical for part in parts]),
            np.concatenate([part.numerical for part in parts]),
            tuple(map(np.concatenate, zip(*(part.multivalued for part in parts), strict=True))),
            tuple(map(np.concatenate, zip(*(part.vectors for part in parts), strict=True))),
        )

    @classmethod
    def zeros(cls, schema: Schema, rows: int) -> "Encoded":
        """Rows of zeros, such as those that a model is compiled with."""
        return cls(
            np.zeros((rows, len(schema.categorical)), np.int32),
            np.zeros((rows, schema.num_numerical), np.float32),
            tuple(np.zeros((rows, field.length), np.int32) for field in schema.multivalued),
            tuple(np.zeros((rows, field.width), np.float32) for field in schema.vectors),
        )
