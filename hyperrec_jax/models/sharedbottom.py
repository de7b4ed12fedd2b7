"""Shared bottom (Caruana 1997, Multitask Learning): one representation, one tower for each goal."""

from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register


@register("sharedbottom")
class SharedBottom(MultiTaskModel):
    """One bottom for all goals."""

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.bottom = self.new_bank(1, self.bottom_widths)
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> Array:
        """The shared representation, `[batch, width]`."""
        return self.mark_shared(self.bottom(self.embedding(batch), train)[0])

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]`."""
        del preference
        return self.to_logits(self.towers(features, train))
