"""Multi-gate mixture of experts (Ma et al. 2018, KDD)."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.mixture import mix
from hyperrec_jax.options import Count


@register("mmoe")
class MMoE(MultiTaskModel):
    """Experts mixed by one softmax gate for each goal.

    Attributes:
      num_experts: Number of experts.
    """

    num_experts: Count = 8

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.experts = self.new_bank(self.num_experts, self.bottom_widths)
        self.gates = self.new_bank(self.num_towers, (), outputs=self.num_experts)
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> Array:
        """Each goal's mixed experts, `[goal, batch, width]`."""
        x = self.embedding(batch)
        experts = self.mark_shared(self.experts(x, train))
        weights = [nn.softmax(gate) for gate in self.gates(x, train)]
        self.sow("intermediates", "gate_weights", weights)
        return jnp.stack([mix(weight, experts) for weight in weights])

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]`."""
        del preference
        return self.to_logits(self.towers(tuple(features), train))
