"""The moments of the optimizer at a warm start, converted as the parameters are.

Adam's running means of the gradient and of its square belong to parameters. The rows of values that
both data sets know take theirs along, rows of new values begin at zero. Where numbers are scaled
otherwise, a gradient by a converted kernel is a linear function of those by the old kernel and its
bias: exact for the mean, and for the mean square up to their correlation. The step count of Adam
stays, that of the learning rate's schedule begins anew.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from hyperrec_jax.config.run import Run
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import processes
from hyperrec_jax.parallel.mesh import path_name, state_shardings
from hyperrec_jax.parallel.tables import is_table
from hyperrec_jax.training.carried_rows import CarriedRows
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.scales import Scales, scaled_gradients
from hyperrec_jax.training.state import ArrayTree, TrainState, state_template


class Moments(NamedTuple):
    """Adam's part of an optimizer's state, as NumPy arrays.

    Attributes:
      updates: Their number, int32 `[]`.
      mu: Running means of the gradients, in the form of the parameters.
      nu: Running means of their squares.
    """

    updates: np.ndarray
    mu: ArrayTree
    nu: ArrayTree


def kept_moments(
    run: Run, origin: Path, carried: CarriedRows, scales: Scales
) -> tuple[Moments, int]:
    """The moments in the newest checkpoint of another run, in the shapes of this one.

    Args:
      run: The run that begins.
      origin: The folder of the other run, with the same model and optimizer.
      carried: The old rows that those of the embedding tables begin at.
      scales: Scales of numbers then and now.

    Returns:
      The moments as NumPy arrays, and the step of the checkpoint.

    Raises:
      UserError: there is no such checkpoint, or it is of a run with another optimizer, normaliser
        or objective.
    """
    template = state_template(run)

    def as_saved(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        name, shape = path_name(path), leaf.shape
        if is_table(name):
            shape = (carried.old_length(name), *shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    shapes = jax.tree_util.tree_map_with_path(as_saved, template)
    saved = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        state_shardings(shapes, run.mesh),
    )
    where = f"train.init_from={origin}, train.init_optimizer"
    try:
        restored = Checkpoints(origin, read_only=True).restore_latest(saved)
    except UserError as error:
        raise UserError(
            f"{where}: {error}; the optimizer, the normaliser and the objective must be those of "
            "that run, or leave train.init_optimizer out"
        ) from error
    if restored is None:
        raise UserError(f"{where}: that run has no checkpoint with its optimizer; leave it out")
    state = restored[0]
    (found,) = filter(_is_adam, jax.tree.leaves(state.opt_state, is_leaf=_is_adam))
    lengths = jax.tree.map(lambda leaf: leaf.shape, template.params)

    def converted(tree: Any, power: int) -> Any:
        def taken(path: tuple[Any, ...], leaf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
            name = path_name(path)
            if not is_table(name):
                return leaf
            table, known = np.zeros(shape, leaf.dtype), carried.known(name)
            table[np.flatnonzero(known)] = leaf[carried.rows(name)[known]]
            return table

        tree = jax.tree_util.tree_map_with_path(
            taken, processes.fetch(tree), lengths, is_leaf=lambda leaf: isinstance(leaf, np.ndarray)
        )
        return scaled_gradients(tree, scales, power)

    updates = np.asarray(processes.fetch(found.count))
    moments = Moments(updates, converted(found.mu, 1), converted(found.nu, 2))
    return moments, int(processes.fetch(state.step))


def with_moments(state: TrainState, moments: Moments) -> TrainState:
    """A state whose optimizer has other moments, placed as its own were."""

    def placed(leaf: jax.Array, values: np.ndarray) -> jax.Array:
        values = np.asarray(values, leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: values[part])

    def replaced(part: Any) -> Any:
        return jax.tree.map(placed, part, type(part)(*moments)) if _is_adam(part) else part

    opt_state = jax.tree.map(replaced, state.opt_state, is_leaf=_is_adam)
    return state.replace(opt_state=opt_state)


def _is_adam(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState)
