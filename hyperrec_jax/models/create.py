"""Models by name, with their options checked before anything is traced."""

from collections.abc import Mapping
from typing import Any, cast

import jax

from hyperrec_jax.data.inputs import Inputs
from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import MODELS, MultiTaskModel, Names


def model_names() -> tuple[str, ...]:
    """Names of all registered models, sorted."""
    return tuple(sorted(MODELS))


def model_class(name: str) -> type[MultiTaskModel]:
    """The class of a registered model.

    Raises:
      UserError: If there is no such model.
    """
    return cast(type[MultiTaskModel], MODELS.find(name))


def model_options(name: str) -> dict[str, Any]:
    """The options of a model with their defaults.

    Raises:
      UserError: If there is no such model.
    """
    return MODELS.defaults(name)


def preference_share(model: MultiTaskModel, params: Mapping[str, Any]) -> float:
    """Part of a model's parameters that stand between the preference and the logits, in [0, 1].

    Through them a preference changes the model: the hypernetwork, what turns its code into gates,
    adapters or towers, and anchors; not what they change.

    Args:
      model: A model of this registry.
      params: Its parameters.
    """
    total = dependent = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = {str(getattr(key, "key", key)) for key in path}
        total += leaf.size
        dependent += leaf.size if names & model.preference_parts else 0
    return dependent / total


def create_model(
    name: str,
    *,
    field_sizes: tuple[int, ...],
    num_numerical: int,
    num_tasks: int,
    goal_outputs: tuple[int, ...] = (),
    inputs: Inputs | None = None,
    names: Names | None = None,
    options: Mapping[str, Any] | None = None,
) -> MultiTaskModel:
    """Creates a registered model.

    Args:
      name: Registered name, such as `pomoe`.
      field_sizes: Number of ids of each categorical field, or of each vocabulary.
      num_numerical: Number of numerical fields.
      num_tasks: Number of goals, at least 1.
      goal_outputs: Number of outputs for each goal; one for each by default.
      inputs: Where fields of several values and shared vocabularies are.
      names: Names of vocabularies, vector fields and goals; needed by options that speak of one.
      options: Values of the model's options where they differ from its defaults.

    Raises:
      UserError: If the model or an option is unknown, a value is of the wrong kind, or there is
        nothing to learn from or for.
    """
    model = model_class(name)
    if not field_sizes and not num_numerical and inputs is None:
        raise UserError(f"model {name!r} needs at least one categorical or numerical field")
    if num_tasks < 1:
        raise UserError(f"model {name!r} needs at least one goal, not {num_tasks}")
    values = MODELS.checked(name, options or {})
    if not model.own_towers and values.get("goal_tower_widths"):
        raise UserError(
            f"model {name!r} has no tower for each goal; leave model.goal_tower_widths out, or "
            "take another model, such as mmoe or pomoe"
        )
    network = model(
        tuple(field_sizes),
        num_numerical,
        num_tasks,
        goal_outputs=tuple(goal_outputs),
        inputs=inputs,
        names=names,
        **values,
    )
    widths = {own.width for own in network.own_tables.values()} | set(network._vector_widths())
    if network.one_width and widths - {network.embedding_dim}:
        raise UserError(
            f"model {name!r} takes the mean of the vectors of all fields, which must have one "
            f"width for that, {network.embedding_dim}; leave model.embedding_dims out, or "
            "take another model, such as mmoe or pomoe"
        )
    return network
