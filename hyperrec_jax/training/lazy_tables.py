"""Steps that touch only those rows of the embedding tables that a batch names.

Dense Adam reads and writes every row of a table, of its gradient and of its two moments at each
step. A batch names some thousands of the millions of ids of a field: here they are gathered,
together with their moments, into a small table; the step runs on it as on any other; and the rows
are put back in place. No array as long as the vocabulary is ever made beside the tables themselves.
Where a table is split over devices, so is the small one, and rows come and go by `exchange`.

This is Adam on sparse gradients, as `torch.optim.SparseAdam` and TensorFlow's LazyAdam define it:
a row that a batch does not name keeps its value and its moments, where dense Adam would move it
along them, and shrink it by L2. Small fields, and rows named at every step, fare as ever.
"""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.inputs import Inputs
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel.exchange import gather_rows, write_rows
from hyperrec_jax.parallel.mesh import path_name
from hyperrec_jax.parallel.tables import is_table, table_rows, vocabularies_in
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import RunStep, StepMetrics

logger = logging.getLogger(__name__)


def with_lazy_tables(step: RunStep, run: Run) -> RunStep:
    """A step whose optimizer is lazy on fields of many ids, if the run has any; else the step.

    Args:
      step: Step of a run, with an optimizer that treats each element by itself.
      run: Its option `optimizer.lazy_rows` is the number of ids at which a field becomes lazy, if
        it also has more ids than a batch has rows; 0 turns this off.

    Returns:
      A step on the same state.

    Raises:
      UserError: On its first call, if the model has an embedding table of other rows.
    """
    model, lazy_rows = run.model, run.config["optimizer"]["lazy_rows"]
    if not lazy_rows or max(model.field_sizes, default=0) < lazy_rows:
        return step
    if model.accumulate_steps > 1:
        logger.warning(
            "all rows of the embedding tables are trained at each update, whatever "
            "optimizer.lazy_rows: the model takes %d batches for one",
            model.accumulate_steps,
        )
        return step

    def fields_of(path: tuple[Any, ...], leaf: jax.Array) -> frozenset[int]:
        """The fields whose rows an array has; none unless it is a table."""
        name = path_name(path)
        if not is_table(name):
            return frozenset()
        fields = vocabularies_in(name, tuple(model.own_tables), len(model.field_sizes))
        num_rows = table_rows([model.field_sizes[field] for field in fields])
        if leaf.shape[0] != num_rows:
            raise UserError(
                f"{name}: this embedding table has {leaf.shape[0]} rows and not one for each of "
                f"the {num_rows} ids of its fields; set optimizer.lazy_rows to 0 for this model"
            )
        return frozenset(fields)

    def lazy_step(run: Run, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        exchange = model.exchange
        fields = jax.tree_util.tree_map_with_path(fields_of, state)
        keys = {key for key in jax.tree.leaves(fields) if key}
        split = [
            key
            for key in keys
            if exchange and exchange.splits(table_rows([model.field_sizes[f] for f in key]))
        ]
        devices = exchange.mesh.size if exchange and split else 1
        named = _named(batch, model.inputs, model.field_sizes, lazy_rows, devices)
        # One array of row numbers for all tables of the same fields: a table and its moments.
        rows = {key: _rows(named, sorted(key), model.field_sizes) for key in keys}

        def named_rows(key: frozenset[int], leaf: jax.Array) -> jax.Array:
            if key in split:
                return gather_rows(leaf, jnp.minimum(rows[key], len(leaf) - 1), exchange)
            return leaf.at[rows[key]].get(mode="clip") if key else leaf

        small = jax.tree.map(named_rows, fields, state)
        changes: dict[str, Any] = {"field_sizes": named.field_sizes}
        if exchange and split:
            least = min(len(rows[key]) for key in split)
            changes["exchange"] = dataclasses.replace(exchange, min_rows=least)
        small_run = dataclasses.replace(run, model=model.clone(**changes))
        small, metrics = step(small_run, small, batch | named.ids)
        new_state = jax.tree.map(
            lambda key, old, new: write_rows(old, rows[key], new, exchange) if key else new,
            fields,
            state,
            small,
        )
        return new_state, metrics

    return lazy_step


_OF_IDS: tuple[str, ...] = ("categorical", "multivalued")


class _Named(NamedTuple):
    """What a batch needs of the tables.

    Attributes:
      rows: For each table all rows of a small one, of a large one those that the batch names,
        filled up to the number of ids that it holds with rows that do not exist.
      ids: The batch's ids as numbers of these rows within their table, by the batch's key.
      field_sizes: How many rows each table has now.
    """

    rows: tuple[jax.Array, ...]
    ids: dict[str, jax.Array]
    field_sizes: tuple[int, ...]


def _named(
    batch: Batch,
    inputs: Inputs | None,
    field_sizes: tuple[int, ...],
    lazy_rows: int,
    devices: int = 1,
) -> _Named:
    """See `_Named`; the rows of each table are filled up to a multiple of the devices."""
    places = _places_of_tables(inputs, len(field_sizes))
    ids = {key: jnp.asarray(batch[key], jnp.int32) for key in _OF_IDS if key in batch}
    renamed = dict(ids)
    rows = []
    for size, columns in zip(field_sizes, places, strict=True):
        read = jnp.concatenate([ids[key][:, place] for key, place in columns], axis=1)
        if size >= lazy_rows and size > read.size:
            there = read >= 0
            # Padding names no row: it stands for one that the batch names anyway.
            values = jnp.where(there, read, jnp.maximum(read.max(), 0)).reshape(-1)
            named, place_of = jnp.unique(
                values, size=_up(read.size, devices), fill_value=size, return_inverse=True
            )
            read = jnp.where(there, place_of.reshape(read.shape), read)
        else:
            named = jnp.arange(_up(size, devices))
        start = 0
        for key, place in columns:
            width = place.stop - place.start
            renamed[key] = renamed[key].at[:, place].set(read[:, start : start + width])
            start += width
        rows.append(named)
    return _Named(tuple(rows), renamed, tuple(map(len, rows)))


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _rows(named: _Named, fields: Sequence[int], field_sizes: tuple[int, ...]) -> jax.Array:
    """Rows of the table of some fields that its small one takes the place of, each once."""
    nowhere = table_rows([field_sizes[field] for field in fields])
    padding = table_rows([named.field_sizes[field] for field in fields]) - sum(
        named.field_sizes[field] for field in fields
    )
    firsts = itertools.accumulate((field_sizes[field] for field in fields), initial=0)
    there = [
        jnp.where(named.rows[field] < field_sizes[field], first + named.rows[field], nowhere)
        for field, first in zip(fields, firsts, strict=False)
    ]
    joined = jnp.concatenate([*there, jnp.full(padding, nowhere)])
    # Distinct ones, so that all rows are unique.
    return jnp.where(joined < nowhere, joined, nowhere + jnp.arange(len(joined)))


def _places_of_tables(inputs: Inputs | None, tables: int) -> list[list[tuple[str, slice]]]:
    """For each table the columns of the batch whose ids it holds, by the batch's key."""
    places: list[list[tuple[str, slice]]] = [[] for _ in range(tables)]
    direct = range(tables) if inputs is None else inputs.direct
    for table, column in enumerate(direct):
        places[table].append(("categorical", slice(column, column + 1)))
    if inputs is not None:
        for lookup in inputs.shared:
            place = slice(lookup.column, lookup.column + 1)
            places[lookup.table].append(("categorical", place))
        first = 0
        for field in inputs.pooled:
            places[field.table].append(("multivalued", slice(first, first + field.length)))
            first += field.length
    return places
