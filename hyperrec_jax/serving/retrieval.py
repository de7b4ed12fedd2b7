"""The best items of a catalogue for each user, by one product of vectors under the preference.

For models with a vector for users and one for items (`models.two_tower`). The items' vectors do not
depend on the preference: an index of them is made once, and each request asks it with its user's
vector under its own preference. `top_items` is exact: it multiplies block by block and keeps the
best. Approximate search over millions of items is a matter of vector libraries; `usearch` serves
`Index` here (extra `retrieval`), and `recall` says what it misses.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.buckets import ROW_BUCKETS, padded, padded_rows, row_chunks
from hyperrec_jax.serving.encoded import Encoded
from hyperrec_jax.serving.predictor import Predictor, Score
from hyperrec_jax.serving.raw_rows import RawRows, to_table

Floats = NDArray[np.float32]
BLOCK = 1 << 16
"""Items that are multiplied at a time."""


class Found(NamedTuple):
    """The best items of each user, best first.

    Attributes:
      items: Place of each in the catalogue, int64 `[user, rank]`.
      scores: Their products, float32 `[user, rank]`.
    """

    items: NDArray[np.int64]
    scores: Floats


def top_items(users: ArrayLike, items: ArrayLike, k: int, block: int = BLOCK) -> Found:
    """The items of the largest products with each user's vector, exactly.

    Memory grows with `users * block`, not with the number of items.

    Args:
      users: `[user, width]`.
      items: `[item, width]`, one at least.
      k: Number of items for each user, at least 1; all where there are fewer.
      block: Items that are multiplied at a time.
    """
    asked, catalogue = np.asarray(users, np.float32), np.asarray(items, np.float32)
    if asked.ndim != 2 or catalogue.ndim != 2 or asked.shape[1] != catalogue.shape[1]:
        raise ValueError(f"users {asked.shape} and items {catalogue.shape} must be [_, width]")
    if k < 1 or not len(catalogue):
        raise ValueError(f"{k} of {len(catalogue)} items: at least one of one")
    k, size = min(k, len(catalogue)), min(block, len(catalogue))
    best = jnp.full((len(asked), k), -jnp.inf), jnp.zeros((len(asked), k), jnp.int32)
    for start in range(0, len(catalogue), size):
        part = catalogue[start : start + size]
        filled = np.pad(part, ((0, size - len(part)), (0, 0)))
        best = _better(best, asked, filled, start, len(part))
    return Found(np.asarray(best[1], np.int64), np.asarray(best[0]))


@jax.jit
def _better(
    best: tuple[jax.Array, jax.Array], users: jax.Array, part: jax.Array, start: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """The best of what was found and of a block of items, of which `count` exist."""
    scores, places = best
    number = jnp.arange(len(part))
    products = jnp.where(number < count, users @ part.T, -jnp.inf)
    own = jax.lax.top_k(products, min(scores.shape[1], len(part)))
    joined = jnp.concatenate([scores, own[0]], axis=1)
    known = jnp.concatenate([places, own[1].astype(jnp.int32) + start], axis=1)
    kept, order = jax.lax.top_k(joined, scores.shape[1])
    return kept, jnp.take_along_axis(known, order, axis=1)


def recall(found: ArrayLike, exact: ArrayLike) -> float:
    """Share of the exact best items that a search found, mean over users.

    Args:
      found: Places of items, `[user, rank]`.
      exact: Those of the exact search, `[user, rank]`.
    """
    ours, truth = np.asarray(found), np.asarray(exact)
    return float((truth[:, :, None] == ours[:, None, :]).any(axis=-1).mean())


class Index:
    """An approximate index of items by the product of vectors, of the package `usearch` (HNSW,
    Malkov and Yashunin 2016, arXiv 1603.09320).

    Args:
      items: `[item, width]`.

    Raises:
      UserError: the package is not installed.
    """

    def __init__(self, items: ArrayLike) -> None:
        try:
            usearch = importlib.import_module("usearch.index")
        except ImportError:
            raise UserError(
                "usearch is not installed: python -m pip install 'hyperrec-jax[retrieval]', or "
                "leave --index out for the exact search"
            ) from None
        vectors = np.asarray(items, np.float32)
        self._index: Any = usearch.Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
        self._index.add(np.arange(len(vectors)), vectors)

    def search(self, users: ArrayLike, k: int) -> Found:
        """The items that the index finds for each user; see `top_items`."""
        asked = np.asarray(users, np.float32)
        matches = self._index.search(asked, min(k, len(self._index)))
        shape = (len(asked), -1)
        scores = 1 - np.asarray(matches.distances, np.float32)
        return Found(np.asarray(matches.keys, np.int64).reshape(shape), scores.reshape(shape))


@dataclasses.dataclass(frozen=True)
class Retriever:
    """Vectors of raw rows by a model of two towers.

    Attributes:
      predictor: The model.
      users: `users(categorical, numerical, ..., preferences [row, goal]) -> [row, width]`.
      items: The same of items, which ignores the preferences.
    """

    predictor: Predictor
    users: Score
    items: Score

    @classmethod
    def of(cls, predictor: Predictor) -> "Retriever":
        """That of a loaded model.

        Raises:
          UserError: it has no vectors.
        """
        if predictor.towers is None:
            raise UserError(
                f"the model ({predictor.config['model']['name']}) gives rows a score, not users "
                "and items a vector: train model two_tower"
            )
        return cls(predictor, *predictor.towers)

    def item_vectors(self, rows: RawRows, where: str = "items") -> Floats:
        """The vector of each item, `[item, width]`; the columns of `model.item_fields` are read.

        Args:
          rows: A frame, an Arrow table, or one dictionary for each item.
          where: What they are, for messages.

        Raises:
          UserError: the rows are not as the model needs them.
        """
        encoded = self._encoded(rows, "item_fields", where)
        middle = np.tile(self.predictor.weights(None), (len(encoded), 1))
        return self._vectors(self.items, encoded, middle)

    def user_vectors(
        self, rows: RawRows, preference: ArrayLike | None = None, where: str = "users"
    ) -> Floats:
        """The vector of each user under a preference, `[user, width]`.

        Args:
          rows: As for `item_vectors`, with the columns of `model.user_fields`.
          preference: A weight for each goal, `[goal]`, or one for each user, `[user, goal]`; None
            for equal weights.
          where: What they are, for messages.

        Raises:
          UserError: rows or preference are not as the model needs them.
        """
        encoded = self._encoded(rows, "user_fields", where)
        weights = np.atleast_2d(self.predictor.weights(preference))
        if len(weights) not in (1, len(encoded)):
            raise UserError(f"preference: {len(weights)} of them for {len(encoded)} users")
        each = np.broadcast_to(weights, (len(encoded), weights.shape[1]))
        return self._vectors(self.users, encoded, each)

    def _encoded(self, rows: RawRows, option: str, where: str) -> Encoded:
        table = to_table(rows, where)
        names = self.predictor.config["model"][option]
        return self.predictor.preprocess(with_blanks(table, self.predictor, names), where)

    def _vectors(self, score: Score, batch: Encoded, preferences: np.ndarray) -> Floats:
        parts = []
        for rows in row_chunks(len(batch)):
            arrays = padded_rows(batch, rows)
            vectors = np.asarray(score(*arrays, padded(preferences[rows], ROW_BUCKETS)))
            parts.append(vectors[: rows.stop - rows.start])
        return np.concatenate(parts)


def with_blanks(table: pa.Table, predictor: Predictor, names: Sequence[str]) -> pa.Table:
    """Rows of one tower, with something in the columns of the other that its vectors do not read.

    Args:
      table: The rows.
      predictor: The model.
      names: The fields that the tower reads.
    """
    preprocess = predictor.preprocess
    schema, several = preprocess.schema, set(preprocess.several())
    read = {*names, *(time.name for time in schema.times if {*time.derived} & {*names})}
    types, widths = preprocess.column_types(), {f.name: f.width for f in schema.vectors}
    for name, kind in types.items():
        if name in read:
            continue
        if name in table.column_names:
            table = table.drop_columns([name])
        if name in several:
            blank = pa.array([[0.0] * widths.get(name, 0)] * len(table), pa.list_(pa.float64()))
        elif pa.types.is_floating(kind):
            blank = pa.array(np.zeros(len(table)))
        elif name in {time.name for time in schema.times}:
            blank = pa.array(np.zeros(len(table), np.int64))
        else:
            blank = pa.nulls(len(table), kind)
        table = table.append_column(name, blank)
    return table
