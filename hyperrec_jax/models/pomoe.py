"""PO-MoE: a mixture of experts whose gate a hypernetwork generates from the preference."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.banks import Block
from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.features import EmbeddedFeatures, Joined
from hyperrec_jax.models.gates import GATES, Activation, Anchors, activation
from hyperrec_jax.models.hypernetwork import PreferenceNetwork
from hyperrec_jax.models.mixture import Mixture
from hyperrec_jax.models.norms import Norm
from hyperrec_jax.options import Count, Rate, Widths


@register("pomoe")
class PoMoE(MultiTaskModel):
    """Pareto-optimal mixture of experts.

    The defaults are those whose front obeyed the preference best in `benchmarks/fronts.py`; the
    preset `original` has the original's. Its conditioning generates two gate layers without a
    non-linearity between them, and nothing beyond the gate depends on the preference.

    Attributes:
      num_experts: Number of experts.
      code_widths: Layers of the hypernetwork's trunk.
      gate: What the gate reads: `features` through generated layers, the `preference` alone,
        the features with logits shifted by the preference (`additive`), or the experts' outputs
        with a query from the preference (`attention`).
      gate_scope: One gate for all goals, or one for each goal as in MMoE.
      gate_activation: Activation of the gate's output.
      gate_top_k: Number of experts that a row keeps under `top_k`.
      gate_depth: Layers of the gate.
      gate_hidden_relu: Whether ReLU stands between them.
      gate_anchors: Whether each expert begins as the expert of one goal; see `gates.Anchors`.
      gate_dropout: Dropout rate of the generated parameters, one draw per batch.
      expert_block: A layer after those of `bottom_widths` in each expert.
      expert_adapter: How the preference changes the experts' last layer; other than `none`, that
        layer runs once for each preference.
      tower_adapter: How the preference changes the towers' layers.
      towers_alike: Whether all towers begin with the same parameters. Experts of different goals
        then learn to speak to them in one direction; where their signs differ, what they share
        cancels out in their mixture, and preferences between the ends serve nobody.
      adapter_rank: Rank of `low_rank` adapters.
      preference_input: Whether the towers read the preference beside the mixed experts.
    """

    num_experts: Count = 6
    norm: Norm = "pooled"
    code_widths: Widths = (64, 256, 64)
    gate: Literal["features", "preference", "additive", "attention"] = "additive"
    gate_scope: Literal["shared", "per_task"] = "shared"
    gate_activation: Activation = "softmax"
    gate_top_k: Count = 2
    gate_depth: Count = 1
    gate_hidden_relu: bool = False
    gate_anchors: bool = True
    gate_dropout: Rate = 0.0
    expert_block: Block = "none"
    expert_adapter: Literal["none", "film", "low_rank"] = "none"
    tower_adapter: Literal["none", "film", "low_rank"] = "film"
    towers_alike: bool = True
    adapter_rank: Count = 4
    preference_input: bool = False

    conditioned: ClassVar[bool] = True

    def setup(self) -> None:
        if self.gate_top_k > self.num_experts:
            raise UserError(
                f"gate_top_k is {self.gate_top_k} but there are {self.num_experts} experts"
            )
        self.embedding = self.new_embedding()
        adapted = self.expert_adapter != "none"
        shared = self.bottom_widths[:-1] if adapted else self.bottom_widths
        block = "none" if adapted else self.expert_block
        self.experts = self.new_bank(self.num_experts, shared, block=block)
        if adapted:
            self.adapted_experts = self.new_bank(
                self.num_experts,
                self.bottom_widths[-1:],
                adapter=self.expert_adapter,
                rank=self.adapter_rank,
                block=self.expert_block,
            )
        self.preference_network = PreferenceNetwork(self.code_widths, self.compute_dtype)
        self.gates = [
            GATES[self.gate](
                num_experts=self.num_experts,
                depth=self.gate_depth,
                hidden_relu=self.gate_hidden_relu,
                rate=self.gate_dropout,
                dtype=self.compute_dtype,
            )
            for _ in range(self.num_towers if self.gate_scope == "per_task" else 1)
        ]
        if self.gate_anchors:
            self.anchors = Anchors(self.num_experts, self.compute_dtype)
        self.towers = self.new_towers(
            adapter=self.tower_adapter, rank=self.adapter_rank, alike=self.towers_alike
        )

    @property
    def preference_parts(self) -> frozenset[str]:
        """The hypernetwork, the parts of gates that read its code, anchors and adapters."""
        whole = self.gate in ("features", "preference")
        gates = {f"gates_{i}" for i in range(self.num_towers)} if whole else {"shift", "query"}
        adapters = {"film_kernel", "film_bias", "down", "diagonal", "up"}
        return frozenset({"preference_network", "anchors"} | gates | adapters)

    def encode(self, batch: Batch, train: bool) -> tuple[EmbeddedFeatures, Array]:
        """The embedded features and the experts' outputs `[expert, batch, width]`."""
        x = self.embedding(batch)
        return x, self.experts(x, train)

    def decode(
        self, features: tuple[EmbeddedFeatures, Array], preference: Array, train: bool
    ) -> Array:
        """Logits `[..., batch, goal]`: gates, mixed experts, towers."""
        x, experts = features
        code = self.preference_network(preference)
        if self.expert_adapter != "none":
            experts = self.adapted_experts(tuple(jnp.unstack(experts)), train, code)
        experts = self.mark_shared(experts)
        weigh = activation(self.gate_activation, self.gate_top_k)
        anchors = self.anchors(preference) if self.gate_anchors else 0.0
        weights = [weigh(gate(x, experts, code, train) + anchors) for gate in self.gates]
        self.sow("intermediates", "gate_weights", weights)  # kept only where reports ask for it
        mixed = [Mixture(weight, experts) for weight in weights]
        inputs = tuple(
            Joined((x, jnp.atleast_2d(preference))) if self.preference_input else x for x in mixed
        )
        return self.to_logits(
            self.towers(inputs if self.gate_scope == "per_task" else inputs[0], train, code)
        )
