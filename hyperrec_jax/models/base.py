"""What every model has, and the registry of all of them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.typing import Array

from hyperrec_jax.data.inputs import Inputs
from hyperrec_jax.models.banks import Bank, Layout
from hyperrec_jax.models.features import EmbeddedFeatures, FeatureEmbedding, Fold
from hyperrec_jax.models.logits import to_logits
from hyperrec_jax.models.norms import Norm
from hyperrec_jax.models.tables import Own
from hyperrec_jax.models.towers import Towers
from hyperrec_jax.options import FROM_DATA, Count, Rate, Widths
from hyperrec_jax.parallel.exchange import Exchange
from hyperrec_jax.registry import Registry

Batch = Mapping[str, Array]

PERTURBATIONS = "perturbations"
"""Collection of what is added to shared representations; see `MultiTaskModel.mark_shared`."""


class Names(NamedTuple):
    """Names from the data, for options that speak of one field or goal.

    Attributes:
      tables: The vocabularies, as many as `field_sizes`; each has the name of its field.
      vectors: The vector fields.
      goals: The goals that have outputs.
      fields: The fields: those with a vector, in its order, then the numerical ones.
    """

    tables: tuple[str, ...]
    vectors: tuple[str, ...]
    goals: tuple[str, ...]
    fields: tuple[str, ...] = ()


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
      names: Names of what options may speak of one by one; None where no option does.
      exchange: How rows of tables that are split over devices are looked up; None for no such.
      embedding_dim: Width of an embedded field.
      embedding_dims: Widths of single fields where they differ, such as `{'item': 32}`; fields that
        share a vocabulary share the width.
      pretrained: Vectors from files for the values of single fields, such as `{'item': {'file':
        'vectors.parquet', 'trainable': False}}`; their width is the field's.
      bottom_widths: Layer widths of an expert, or of the bottom where a model has no experts.
      tower_widths: Layer widths of a goal's tower, before its outputs.
      goal_tower_widths: Layer widths of the towers of single goals where they differ, such as
        `{'purchase': (64, 32)}`.
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
    names: Annotated[Names | None, FROM_DATA] = None
    exchange: Annotated[Exchange | None, FROM_DATA] = None
    embedding_dim: Count = 128
    embedding_dims: Mapping[str, Count] | None = None
    pretrained: Mapping[str, Mapping[str, Any]] | None = None
    bottom_widths: Widths = (512, 256)
    tower_widths: Widths = (128, 64)
    goal_tower_widths: Mapping[str, Widths] | None = None
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
    one_width: ClassVar[bool] = False
    """Whether the vectors of all fields must have one width: the model takes their mean."""
    own_towers: ClassVar[bool] = True
    """Whether each goal has a tower of its own, which may have widths of its own."""
    accumulate_steps: ClassVar[int] = 1
    """Batches per parameter update."""
    inner_learning_rate = 0.0
    """Above 0, the step adapts the parameters on one half of a batch before the other half."""

    @property
    def num_outputs(self) -> int:
        """Number of outputs for all goals: one logit for a binary goal, three for a value."""
        return sum(self.goal_outputs) or self.num_tasks

    @property
    def num_towers(self) -> int:
        """Number of goals that have outputs; a goal of fairness reads those of another."""
        return sum(count > 0 for count in self.goal_outputs) or self.num_tasks

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
        constants = [values for values in constants if len(values)]
        if not self.goal_tower_widths:
            return self._with_output_bias(params, "towers", constants)
        groups = dict(params.get("towers", {}))
        for group, (_, members) in enumerate(self._tower_groups()):
            own = [constants[goal] for goal in members]
            groups = self._with_output_bias(groups, f"group_{group}", own)
        return {**params, "towers": groups}

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

    def new_embedding(self, numbers: bool = True) -> FeatureEmbedding:
        """The embedding of all fields, with or without a vector of the numerical ones."""
        return FeatureEmbedding(
            self.field_sizes,
            self.num_numerical if numbers else 0,
            self.embedding_dim,
            self.fold,
            self.compute_dtype,
            self.inputs,
            tuple(self.own_tables.items()),
            self._vector_widths(),
            self.exchange,
        )

    @property
    def own_tables(self) -> dict[int, Own]:
        """The vocabularies that have a table of their own, by position: those of another width, or
        with vectors from a file."""
        if self.names is None:
            return {}
        own = {}
        for position, name in enumerate(self.names.tables):
            width = (self.embedding_dims or {}).get(name, self.embedding_dim)
            if name in (self.pretrained or {}):
                given = cast(Mapping[str, Any], self.pretrained)[name]
                own[position] = Own(given["width"], not given.get("trainable", False))
            elif width != self.embedding_dim:
                own[position] = Own(width)
        return own

    def _vector_widths(self) -> tuple[int, ...]:
        vectors = () if self.names is None else self.names.vectors
        return tuple((self.embedding_dims or {}).get(name, self.embedding_dim) for name in vectors)

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

    def new_towers(self, copies: int | None = None, **options: Any) -> Bank | Towers:
        """One tower for each goal (or `copies` of them), with as many outputs as a goal has most.

        `to_logits` leaves those out that a goal does not have.
        """
        options |= {"outputs": self.tower_outputs}
        if self.goal_tower_widths and copies is None:
            banks = [
                self.new_bank(len(members), widths, parent=None, **options)
                for widths, members in self._tower_groups()
            ]
            return Towers(tuple(banks), tuple(members for _, members in self._tower_groups()))
        return self.new_bank(copies or self.num_towers, self.tower_widths, **options)

    def _tower_groups(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Widths of the towers that differ, each with the positions of its goals."""
        groups: dict[tuple[int, ...], list[int]] = {}
        names = self.names.goals if self.names else ()
        for goal, name in enumerate(names):
            widths = (self.goal_tower_widths or {}).get(name, self.tower_widths)
            groups.setdefault(tuple(widths), []).append(goal)
        return [(widths, tuple(members)) for widths, members in groups.items()]

    @property
    def tower_outputs(self) -> int:
        """Number of outputs of a tower."""
        return max(self.goal_outputs, default=1)

    def to_logits(self, outputs: Array) -> Array:
        """What the towers give, `[goal, ..., batch, width]`, as `[..., batch, output]`."""
        counts = tuple(count for count in self.goal_outputs if count)
        return to_logits(outputs, counts or (1,) * self.num_tasks)


MODELS: Registry[MultiTaskModel] = Registry("model", "hyperrec_jax.models")
"""All models by name."""

register = MODELS.register
