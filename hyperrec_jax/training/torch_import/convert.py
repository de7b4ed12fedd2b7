"""Turns a state dict of the original into the variables of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import MultiTaskModel
from hyperrec_jax.training.torch_import.layouts import LAYOUTS
from hyperrec_jax.training.torch_import.reader import StateReader, Tree


def convert(
    state_dict: Mapping[str, Any],
    name: str,
    model: MultiTaskModel,
    vocabularies: Sequence[Sequence[int]],
    raw_field_sizes: Sequence[int] | None = None,
) -> dict[str, Tree]:
    """Variables (`params` and `batch_stats`) from a state dict of the original.

    The original's embedding table has a row for every raw id from 0 to a field's maximum, ours
    one for every id seen in training after that for unseen ones, which gets the mean of the rest.

    Args:
      state_dict: Arrays or tensors by key.
      name: Registered name of the model.
      model: The model, with the sizes that the file was trained with.
      vocabularies: A field's raw ids in the order of its ids 1, 2, ...
      raw_field_sizes: Rows of each field in the original's table; by default the largest raw id
        of the vocabulary plus 1.

    Raises:
      UserError: If the original has no such model, or keys are missing, unexpected or of the
        wrong shape: the message lists all of them.
    """
    if name not in LAYOUTS:
        raise UserError(
            f"the PyTorch original has no model {name!r}: choose one of {', '.join(LAYOUTS)}"
        )
    largest = [max(map(int, values), default=-1) for values in vocabularies]
    sizes = list(raw_field_sizes or (value + 1 for value in largest))
    for field, (size, value) in enumerate(zip(sizes, largest, strict=True)):
        if value >= size:
            raise UserError(f"field {field} has raw id {value} but only {size} rows in the table")
    reader = StateReader(state_dict, model, vocabularies, sizes)
    variables = LAYOUTS[name](reader, model)
    reader.finish()
    _check_structure(variables, model)
    return variables


def _check_structure(variables: Tree, model: MultiTaskModel) -> None:
    """Raises UserError where the model has variables that the original has not."""
    batch = {
        "categorical": jnp.zeros((2, len(model.field_sizes)), jnp.int32),
        "numerical": jnp.zeros((2, model.num_numerical)),
    }
    key, preference = jax.random.key(0), jnp.ones(model.num_tasks)
    own = jax.eval_shape(lambda: model.init(key, batch, preference, False))
    shapes = [
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in leaves
        }
        for leaves in map(jax.tree_util.tree_leaves_with_path, (own, variables))
    ]
    unlike = sorted(dict(shapes[0].items() ^ shapes[1].items()))
    if unlike:
        raise UserError(
            f"with these options the model differs from the original in {', '.join(unlike)}; "
            "import with the options that the checkpoint was trained with"
        )
