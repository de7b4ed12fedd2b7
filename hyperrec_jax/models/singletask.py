"""Single task: one network for each goal, nothing shared."""

from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register


@register("singletask")
class SingleTask(MultiTaskModel):
    """Embedding, bottom and tower of its own for every goal."""

    def setup(self) -> None:
        self.embeddings = [self.new_embedding() for _ in range(self.num_towers)]
        self.bottoms = self.new_bank(self.num_towers, self.bottom_widths)
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> Array:
        """Each goal's representation, `[goal, batch, width]`."""
        x = tuple(embedding(batch) for embedding in self.embeddings)
        return self.mark_shared(self.bottoms(x, train))  # by no two goals

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]`."""
        del preference
        return self.to_logits(self.towers(tuple(features), train))
