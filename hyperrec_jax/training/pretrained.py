"""Training that begins at vectors from files: embeddings of items, texts or pictures by their id.

A file has a vector for an id of its own; a table has one for each value of the data. The two meet
through the text of a value, as everywhere. What is frozen lies outside the optimizer, as a part of
the state that no step changes; what is trained begins at the vectors and moves on.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.vectors_file import match, vectors_of
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import processes
from hyperrec_jax.parallel.mesh import path_name
from hyperrec_jax.parallel.tables import is_table, vocabularies_in
from hyperrec_jax.training.state import TrainState

logger = logging.getLogger(__name__)

Tables = Mapping[int, NDArray[np.float32]]
"""The table `[id, width]` of each vocabulary that begins at vectors from a file, by position."""


def pretrained_tables(run: Run, store: Store) -> Tables:
    """Matches the files of a run with the values of its data, and says how many have a vector.

    Nothing is written.

    Args:
      run: The run.
      store: Its data.

    Raises:
      UserError: a file is missing or bad, or has no vector for any value.
    """
    names = [table.name for table in run.schema.tables]
    tables = {}
    for name, entry in (run.model.pretrained or {}).items():
        vocabulary = store.vocabulary(name)
        found = match(vectors_of(Path(entry["file"])), vocabulary)
        if not found.found:
            raise UserError(
                f"model.pretrained.{name}: {entry['file']} has a vector for none of the "
                f"{len(vocabulary):,} values of field {name!r}, such as {vocabulary[0].as_py()!r}; "
                "name the file whose ids are those of the field"
            )
        if processes.is_first():
            logger.warning(
                "field %r: %s has vectors for %s of %s values (%.1f%%); the others and the unknown "
                "id begin at their mean",
                name,
                entry["file"],
                f"{found.found:,}",
                f"{len(vocabulary):,}",
                100 * found.found / len(vocabulary),
            )
        tables[names.index(name)] = found.table
    return tables


def begin_with(run: Run, state: TrainState, tables: Tables) -> TrainState:
    """The first state of a run with the vectors in their places.

    Args:
      run: The run.
      state: Its first state.
      tables: From `pretrained_tables`.
    """
    if not tables:
        return state
    own = tuple(run.model.own_tables)

    def placed(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        fields = vocabularies_in(name, own, len(run.model.field_sizes)) if is_table(name) else []
        if len(fields) != 1 or fields[0] not in tables:
            return leaf
        table = tables[fields[0]]
        values = np.zeros(leaf.shape, leaf.dtype)
        values[: len(table)] = table
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: values[part])

    groups = ("params", "batch_stats", "average")
    begun = {
        name: jax.tree_util.tree_map_with_path(placed, getattr(state, name)) for name in groups
    }
    return state.replace(**begun)
