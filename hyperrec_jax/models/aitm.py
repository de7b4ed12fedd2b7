"""Adaptive information transfer multi-task (Xi et al. 2021, KDD), for goals along a funnel."""

import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.banks import Linear
from hyperrec_jax.models.base import Batch, MultiTaskModel, register


@register("aitm")
class AITM(MultiTaskModel):
    """Each goal after the first attends to its own bottom and to what the one before passes on."""

    funnel: ClassVar[Literal["no", "usual", "needed"]] = "usual"
    binary_only: ClassVar[bool] = True

    def setup(self) -> None:
        width = self.bottom_widths[-1]
        self.embedding = self.new_embedding()
        self.bottoms = self.new_bank(self.num_towers, self.bottom_widths)
        self.transfers = [Linear(width, self.compute_dtype) for _ in range(self.num_towers - 1)]
        self.value, self.key, self.query = (Linear(width, self.compute_dtype) for _ in range(3))
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> Array:
        """Each goal's representation, `[goal, batch, width]`."""
        bottoms = self.bottoms(self.mark_shared(self.embedding(batch)), train)
        chain = [bottoms[0]]
        for transfer, bottom in zip(self.transfers, bottoms[1:], strict=True):
            chain.append(self._attend(jnp.stack([transfer(chain[-1]), bottom], axis=-2)))
        return jnp.stack(chain)

    def _attend(self, pair: Array) -> Array:
        """Attention over a pair `[batch, 2, width]`, each scored by itself: `[batch, width]`."""
        scores = (self.key(pair) * self.query(pair)).sum(axis=-1, keepdims=True)
        weights = nn.softmax(scores / math.sqrt(pair.shape[-1]), axis=-2)
        return (weights * self.value(pair)).sum(axis=-2)

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]`."""
        del preference
        return self.to_logits(self.towers(tuple(features), train))
