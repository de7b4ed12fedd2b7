"""Rows of a table that is split over devices: the ids go to their owners, the rows come back.

The simple lookup, `table[ids]`, is compiled as a sum over all devices: each makes an array of the
whole batch's vectors, with zeros in place of the rows of others. Here each device sorts the ids of
its own part of the batch by owner, every id once, sends them by an all-to-all, and gets their rows
by another; gradients go the way of the ids. What a device sends and holds is in proportion to its
part of the batch and not to the whole.

A message has room for a fixed number of ids for each owner. Where one owner is asked for more,
all devices go around again until every id was served: the room changes the time, never the
result. It is six standard deviations above the mean of ids that fall on owners at random, so that
one round is the rule.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import linear_call
from jax.sharding import Mesh, PartitionSpec

from hyperrec_jax.parallel.tables import is_split

AXES = ("data", "expert")
"""Axes of the mesh over which the rows of a table are split."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Which tables are split over the devices, and so exchange their rows.

    Attributes:
      mesh: The devices.
      min_rows: Tables of at least so many rows are split, if the devices divide them; None for
        `LARGE_TABLE_ROWS`.
    """

    mesh: Mesh
    min_rows: int | None = None

    def splits(self, num_rows: int) -> bool:
        """Whether a table of so many rows is split."""
        devices = self.mesh.size
        return devices > 1 and is_split(num_rows, devices, self.min_rows)


def gather_rows(table: jax.Array, ids: jax.Array, exchange: Exchange | None) -> jax.Array:
    """`table[ids]`, of ids that are there.

    Args:
      table: `[row, width]`.
      ids: int32 of any shape.
      exchange: None for the simple lookup, which also serves tables that are not split, and ids
        that the devices do not divide.

    Returns:
      `[*ids.shape, width]`, which can be differentiated by the table any number of times.
    """
    if exchange is None or not exchange.splits(len(table)) or ids.size % exchange.mesh.size:
        return table[ids]
    block = len(table) // exchange.mesh.size

    # Each is the transpose of the other: what is differentiated is linear in the table.
    def gather(ids: jax.Array, table: jax.Array) -> jax.Array:
        return _on_devices(_gather, exchange, table, ids)

    def add(ids: jax.Array, vectors: jax.Array) -> jax.Array:
        return _on_devices(lambda *parts: _add(block, *parts), exchange, ids, vectors)

    return linear_call(gather, add, ids.reshape(-1), table).reshape(*ids.shape, table.shape[1])


def write_rows(
    table: jax.Array, ids: jax.Array, vectors: jax.Array, exchange: Exchange | None
) -> jax.Array:
    """The table with other rows in some places.

    Args:
      table: `[row, width]`.
      ids: int32 `[id]`, each once; those outside the table are left out.
      vectors: `[id, width]`.
      exchange: As in `gather_rows`.
    """
    if exchange is None or not exchange.splits(len(table)) or ids.size % exchange.mesh.size:
        return table.at[ids].set(vectors, mode="drop", unique_indices=True)
    return _on_devices(_write, exchange, table, ids, vectors)


def _on_devices(function: Callable[..., jax.Array], exchange: Exchange, *arrays: Any) -> jax.Array:
    """A function of each device's parts of some arrays, all of them split by their first axis."""
    split = PartitionSpec(AXES)
    specs = (split,) * len(arrays)
    return jax.shard_map(
        function, mesh=exchange.mesh, in_specs=specs, out_specs=split, check_vma=False
    )(*arrays)


def _gather(table: jax.Array, ids: jax.Array) -> jax.Array:
    rows, place = _each_once(ids)

    def receive(vectors: jax.Array, slots: jax.Array, asked: jax.Array) -> jax.Array:
        sent = table.at[asked].get(mode="fill", fill_value=0)
        return vectors.at[slots].set(_all_to_all(sent), mode="drop")

    empty = jnp.zeros((len(ids), table.shape[1]), table.dtype)
    return _in_rounds(receive, empty, rows, len(table))[place]


def _add(block: int, ids: jax.Array, vectors: jax.Array) -> jax.Array:
    rows, place = _each_once(ids)
    sums = jax.ops.segment_sum(vectors, place, len(ids))

    def send(table: jax.Array, slots: jax.Array, asked: jax.Array) -> jax.Array:
        arrived = _all_to_all(sums.at[slots].get(mode="fill", fill_value=0))
        return table.at[asked].add(arrived, mode="drop")

    return _in_rounds(send, jnp.zeros((block, vectors.shape[1]), vectors.dtype), rows, block)


def _write(table: jax.Array, ids: jax.Array, vectors: jax.Array) -> jax.Array:
    order = jnp.argsort(ids)
    ordered = vectors[order]

    def send(table: jax.Array, slots: jax.Array, asked: jax.Array) -> jax.Array:
        arrived = _all_to_all(ordered.at[slots].get(mode="fill", fill_value=0))
        return table.at[asked].set(arrived, mode="drop")

    return _in_rounds(send, table, ids[order], len(table))


def _each_once(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ids in order, each once, filled up by one that no device owns; and where each went."""
    nobody = jnp.iinfo(ids.dtype).max
    return jnp.unique(ids, size=len(ids), fill_value=nobody, return_inverse=True)


def _in_rounds(
    body: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    carry: jax.Array,
    rows: jax.Array,
    block: int,
) -> jax.Array:
    """Brings each row of a device to its owner, as often as the fullest message asks for.

    Args:
      body: `body(carry, slots, asked)` for a round: `slots` `[owner, room]` are places in `rows`,
        past their end where there is none left; `asked` `[device, room]` the rows of its own block
        that each device asks this one for, past the end of the block where it asks for none.
      carry: What the rounds hand on.
      rows: Numbers of rows in the whole table, in order.
      block: Number of rows that a device owns.
    """
    devices = lax.axis_size(AXES)
    room = _room(len(rows), devices)
    starts = jnp.arange(devices, dtype=rows.dtype) * block
    # A row belongs to the last owner that starts at or before it; one past the last, to nobody.
    firsts = jnp.searchsorted(rows, starts).astype(jnp.int32)
    end = jnp.searchsorted(rows, devices * block).astype(jnp.int32)
    ends = jnp.append(firsts[1:], end)
    rounds = lax.pmax(-(-(ends - firsts).max() // room), AXES)

    def one_round(number: jax.Array, carry: jax.Array) -> jax.Array:
        slots = firsts[:, None] + number * room + jnp.arange(room, dtype=jnp.int32)
        there = slots < ends[:, None]
        named = rows.at[slots].get(mode="clip") - starts[:, None]
        asked = _all_to_all(jnp.where(there, named, block))
        return body(carry, jnp.where(there, slots, len(rows)), asked)

    return lax.fori_loop(0, rounds, one_round, carry)


def _room(count: int, devices: int) -> int:
    """Ids in a message to one owner; a multiple of 8, as accelerators hold rows by eights."""
    mean = count / devices
    return min(count, 8 * math.ceil((mean + 6 * math.sqrt(mean)) / 8))


def _all_to_all(messages: jax.Array) -> jax.Array:
    """`[receiver, ...]` on each device to `[sender, ...]`."""
    return lax.all_to_all(messages, AXES, split_axis=0, concat_axis=0, tiled=True)
