"""Where arrays live: the mesh and the rules, in one place.

The mesh has two axes: `data` splits the batch, `expert` the experts. Large embedding tables are
split by rows over both; everything else is replicated. Optimizer state follows its parameter,
since its path ends in the parameter's path. Under `jit` all means over the batch (losses, batch
norm) are those of the global batch, so that results do not depend on the mesh.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hyperrec_jax.errors import UserError

LARGE_TABLE_ROWS = 1_000_000
"""Embedding tables with at least so many rows are split by rows."""


def make_mesh(data: int = -1, expert: int = 1) -> Mesh:
    """A mesh over all devices of all processes.

    Args:
      data: Devices along `data`; -1 takes all that `expert` leaves.
      expert: Devices along `expert`.

    Raises:
      UserError: the product is not the number of devices.
    """
    devices = jax.device_count()
    if data == -1:
        data = devices // max(expert, 1)
    if data < 1 or expert < 1 or data * expert != devices:
        raise UserError(
            f"mesh.data={data} x mesh.expert={expert} does not make the {devices} devices there are"
        )
    # Auto axes: the compiler places intermediates, as the models do not annotate them.
    return jax.make_mesh((data, expert), ("data", "expert"), axis_types=(AxisType.Auto,) * 2)


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The rule of one array of the state.

    Args:
      path: Names from the root of the state, joined by `/`.
      shape: Shape of the array.
      mesh: From `make_mesh`.
    """
    if re.search(r"(^|/)experts/", path) and shape and shape[0] % mesh.shape["expert"] == 0:
        return PartitionSpec("expert")
    if path.endswith("embedding/embedding") and shape[0] >= LARGE_TABLE_ROWS:
        return PartitionSpec(("data", "expert"))
    return PartitionSpec()


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """A pytree of shardings for a state (arrays or `jax.ShapeDtypeStruct`)."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, state)


def template(create: Callable[[], Any], mesh: Mesh) -> Any:
    """Shapes and shardings of what `create` makes, without making it."""
    shapes = jax.eval_shape(create)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        state_shardings(shapes, mesh),
    )


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh, axis: int = 0) -> dict[str, jax.Array]:
    """Puts each process's part of a batch on its devices, split over `data` along `axis`."""
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return {
        name: jax.make_array_from_process_local_data(sharding, values)
        for name, values in batch.items()
    }
