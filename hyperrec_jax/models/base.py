"""Models by name, with their options checked before anything is traced."""

import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Array

from hyperrec_jax.data.inputs import Inputs
from hyperrec_jax.errors import UserError
from hyperrec_jax.models.banks import Bank, Layout
from hyperrec_jax.models.features import EmbeddedFeatures, FeatureEmbedding, Fold
from hyperrec_jax.models.logits import to_logits
from hyperrec_jax.models.norms import Norm
from hyperrec_jax.options import FROM_DATA, Count, Rate, Widths
from hyperrec_jax.registry import Registry

Batch = Mapping[str, Array]

PERTURBATIONS = "perturbations"
"""Collection of what is added to shared representations; see `MultiTaskModel.mark_shared`."""


class MultiTaskModel(nn.Module):
    """What every model has: its inputs, its goals and the sizes of embedding, bottom and tower.

    A subclass answers `encode(batch, train)`, all that does not depend on the preference, and
    `decode(features, preference, train)`, the logits. The defaults are those of MTReclib.

    Attributes:
      field_sizes: Number of ids of each categorical field, or of each vocabulary where fields share
        one.
      num_numerical: Number of numerical fields.
      num_tasks: Number of goals.
      goal_outputs: Number of outputs for each goal; one for each by default.
      inputs: Where fields of several values and shared vocabularies are; None without any.
      embedding_dim: Width of an embedded field.
      bottom_widths: Layer widths of an expert, or of the bottom where a model has no experts.
      tower_widths: Layer widths of a goal's tower, before its outputs.
      dropout: Dropout rate after every hidden layer, in [0, 1).
      norm: Normalisation of hidden layers: over the batch, for each preference apart (`batch`) or
        for all preferences together (`pooled`), or over the layer.
      compute_dtype: Type of activations and products; parameters stay float32.
      fold: Whether low-cardinality fields are multiplied through folded tables.
      layout: How stacked networks run: in a loop (best on CPU), batched, or as the backend favours.
    """

    field_sizes: tuple[int, ...]
    num_numerical: int
    num_tasks: int
    goal_outputs: Annotated[tuple[int, ...], FROM_DATA] = ()
    inputs: Annotated[Inputs | None, FROM_DATA] = None
    embedding_dim: Count = 128
    bottom_widths: Widths = (512, 256)
    tower_widths: Widths = (128, 64)
    dropout: Rate = 0.2
    norm: Norm = "batch"
    compute_dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    fold: Fold = "auto"
    layout: Layout = "auto"

    conditioned: ClassVar[bool] = False
    """Whether the preference changes the logits."""
    funnel: ClassVar[Literal["no", "usual", "needed"]] = "no"
    """Whether the goals are usually steps, each of which needs the one before it as a purchase
    needs a click, or whether the model can express nothing else."""
    binary_only: ClassVar[bool] = False
    """Whether the model multiplies or mixes probabilities, so that all its goals must be binary."""
    accumulate_steps: ClassVar[int] = 1
    """Batches per parameter update."""
    inner_learning_rate = 0.0
    """Above 0, the step adapts the parameters on one half of a batch before the other half."""

    @property
    def num_outputs(self) -> int:
        """Number of outputs for all goals: one logit for a binary goal, three for a value."""
        return sum(self.goal_outputs) or self.num_tasks

    @property
    def preference_parts(self) -> frozenset[str]:
        """Names of the modules and parameters through which the preference acts."""
        return frozenset()

    def encode(self, batch: Batch, train: bool) -> Any:
        """All that does not depend on the preference, such as the experts' outputs."""
        raise NotImplementedError

    def decode(self, features: Any, preference: Array, train: bool) -> Array:
        """Outputs `[..., batch, output]` from what `encode` returned; of a binary goal its logit.

        Args:
          features: Output of `encode`.
          preference: `[goal]`, one preference for the batch; `[preference, 1, goal]`, several of
            them, each for all rows; or `[batch, goal]`, one preference per row. Unconditioned
            models ignore it.
          train: Whether dropout and batch statistics are on.
        """
        raise NotImplementedError

    def __call__(self, batch: Batch, preference: Array, train: bool) -> Array:
        """Outputs `[..., batch, output]`; see `decode` for the forms of a preference."""
        return self.decode(self.encode(batch, train), preference, train)

    def mark_shared(self, x: Any, name: str = "shared") -> Any:
        """Marks a representation at which the goals meet, and returns it.

        Objectives that weigh the goals by their gradients differentiate there, not at every
        shared parameter, as MGDA-UB does (Sener and Koltun 2018, arXiv 1810.04650). For all
        others this does nothing.

        Args:
          x: An array or embedded features.
          name: Another one for each of several representations.
        """
        asked = self.is_mutable_collection(PERTURBATIONS)
        if self.is_initializing() or not (asked or self.has_variable(PERTURBATIONS, name)):
            return x
        dense = x.concatenate() if isinstance(x, EmbeddedFeatures) else x
        return self.perturb(name, dense, PERTURBATIONS)

    def with_prior(
        self, params: Mapping[str, Any], constants: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """Fresh parameters whose first predictions are the best constants, as far as it can be.

        A rare label otherwise spends the first steps on the bias alone (Lin et al. 2017,
        arXiv 1708.02002). Models that share towers between goals override or ignore it.

        Args:
          params: From `init`.
          constants: Outputs of the best constant prediction of each goal, `[goal][output]`; of a
            binary goal the log-odds of its base rate.
        """
        return self._with_output_bias(params, "towers", constants)

    @staticmethod
    def _with_output_bias(
        params: Mapping[str, Any], bank: str, constants: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """Sets the last biases of each network of a bank to its constants."""
        if "output" not in params.get(bank, {}):
            return dict(params)
        output = params[bank]["output"]
        bias = output["bias"]
        for network, values in enumerate(constants):
            bias = bias.at[network, : len(values)].set(jnp.asarray(values, bias.dtype))
        return {**params, bank: {**params[bank], "output": {**output, "bias": bias}}}

    def new_embedding(self) -> FeatureEmbedding:
        return FeatureEmbedding(
            self.field_sizes,
            self.num_numerical,
            self.embedding_dim,
            self.fold,
            self.compute_dtype,
            self.inputs,
        )

    def new_bank(self, copies: int, widths: tuple[int, ...], **options: Any) -> Bank:
        """A bank of `copies` networks with this model's dropout, normalisation and layout."""
        return Bank(
            copies=copies,
            widths=widths,
            dropout=self.dropout,
            norm=self.norm,
            dtype=self.compute_dtype,
            layout=self.layout,
            **options,
        )

    def new_towers(self, copies: int | None = None, **options: Any) -> Bank:
        """One tower for each goal (or `copies` of them), with as many outputs as a goal has most.

        `to_logits` leaves those out that a goal does not have.
        """
        return self.new_bank(
            copies or self.num_tasks, self.tower_widths, outputs=self.tower_outputs, **options
        )

    @property
    def tower_outputs(self) -> int:
        """Number of outputs of a tower."""
        return max(self.goal_outputs, default=1)

    def to_logits(self, outputs: Array) -> Array:
        """What the towers give, `[goal, ..., batch, width]`, as `[..., batch, output]`."""
        return to_logits(outputs, self.goal_outputs or (1,) * self.num_tasks)


MODELS: Registry[MultiTaskModel] = Registry("model", "hyperrec_jax.models")
"""All models by name."""

register = MODELS.register


def model_names() -> tuple[str, ...]:
    """Names of all registered models, sorted."""
    return tuple(sorted(MODELS))


def model_class(name: str) -> type[MultiTaskModel]:
    """The class of a registered model.

    Raises:
      UserError: If there is no such model.
    """
    return typing.cast(type[MultiTaskModel], MODELS.find(name))


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
    return model(
        tuple(field_sizes),
        num_numerical,
        num_tasks,
        goal_outputs=tuple(goal_outputs),
        inputs=inputs,
        **values,
    )
