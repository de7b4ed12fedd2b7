"""Where arrays live: the mesh and the rules, in one place.

The mesh has two axes: `data` splits the batch, `expert` the experts. Large embedding tables are
split by rows over both; everything else is replicated. Optimizer state follows its parameter,
since its path ends in the parameter's path. Under `jit` all means over the batch (losses, batch
norm) are those of the global batch, so that results do not depend on the mesh.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel.tables import is_split, is_table


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
    local = jax.local_device_count()
    if local % expert and expert % local:
        raise UserError(
            f"mesh.expert={expert} and the {local} devices of a process: one must divide the other"
        )
    # By process, so that each holds neighbouring rows of a batch, and its experts where it can.
    ordered = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    # Auto axes: the compiler places intermediates, as the models do not annotate them.
    return Mesh(np.array(ordered).reshape(data, expert), ("data", "expert"), (AxisType.Auto,) * 2)


def batch_part(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """Which part of every global batch this process reads: `(index, number of parts)`.

    Processes that share their rows, since `expert` spans more than one of them, read the same.

    Raises:
      UserError: the batch does not divide by the devices along `data`.
    """
    data = mesh.shape["data"]
    if batch_size % data:
        raise UserError(
            f"a batch of {batch_size} rows does not divide evenly among the {data} devices along "
            "`data`; choose a multiple for --config.train.batch_size"
        )
    parts = min(jax.process_count(), data)
    return jax.process_index() * parts // jax.process_count(), parts


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The rule of one array of the state.

    Args:
      path: Names from the root of the state, joined by `/`.
      shape: Shape of the array.
      mesh: From `make_mesh`.
    """
    if re.search(r"(^|/)experts/", path) and shape and shape[0] % mesh.shape["expert"] == 0:
        return PartitionSpec("expert")
    devices = mesh.shape["data"] * mesh.shape["expert"]
    if is_table(path) and is_split(shape[0], devices):
        return PartitionSpec(("data", "expert"))
    return PartitionSpec()


def path_name(path: tuple[Any, ...]) -> str:
    """The path of an array in a pytree, its names joined by `/`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """A pytree of shardings for a state (arrays or `jax.ShapeDtypeStruct`)."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, state)


def template(create: Callable[[], Any], mesh: Mesh) -> Any:
    """Shapes and shardings of what `create` makes, without making it."""
    shapes = jax.eval_shape(create)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        state_shardings(shapes, mesh),
    )


def place_batch(
    batch: Mapping[str, np.ndarray | jax.Array], mesh: Mesh, axis: int = 0
) -> dict[str, jax.Array]:
    """Puts each process's part of a batch on its devices, split over `data` along `axis`.

    What is on the devices already stays as it is.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return {
        name: (
            values
            if isinstance(values, jax.Array)
            else jax.make_array_from_process_local_data(sharding, values)
        )
        for name, values in batch.items()
    }
