"""One-gate mixture of experts (Jacobs et al. 1991; OMoE in Ma et al. 2018)."""

import flax.linen as nn
from flax.typing import Array

from hyperrec_jax.models.banks import Linear
from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.mixture import mix
from hyperrec_jax.options import Count


@register("omoe")
class OMoE(MultiTaskModel):
    """Experts mixed by one softmax gate for all goals.

    Attributes:
      num_experts: Number of experts.
    """

    num_experts: Count = 8

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.experts = self.new_bank(self.num_experts, self.bottom_widths)
        self.gate = Linear(self.num_experts, self.compute_dtype)
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> Array:
        """The mixed experts, `[batch, width]`."""
        x = self.embedding(batch)
        weights = nn.softmax(self.gate(x))
        self.sow("intermediates", "gate_weights", [weights])
        return mix(weights, self.mark_shared(self.experts(x, train)))

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]`."""
        del preference
        return self.to_logits(self.towers(features, train))
