"""COSMOS (Ruchte & Grabocka 2021, arXiv 2103.13392): the preference is an input feature."""

from typing import ClassVar

import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.features import EmbeddedFeatures, Joined


@register("cosmos")
class Cosmos(MultiTaskModel):
    """A shared bottom that reads the preference beside the fields; train it with `cosine`."""

    conditioned: ClassVar[bool] = True

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.bottom = self.new_bank(1, self.bottom_widths)
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> EmbeddedFeatures:
        """The embedded fields: all else depends on the preference."""
        del train
        return self.embedding(batch)

    def decode(self, features: EmbeddedFeatures, preference: Array, train: bool) -> Array:
        """Logits `[..., batch, goal]`."""
        inputs = Joined((features, jnp.atleast_2d(preference).astype(features.dtype)))
        return self.to_logits(self.towers(self.mark_shared(self.bottom(inputs, train)[0]), train))
