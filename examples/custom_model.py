"""A model of one's own in one file: wide and deep (Cheng et al. 2016, arXiv 1606.07792).

A model is a subclass of `MultiTaskModel` with a registered name. Its options are its attributes,
those of the base class included; the default of each stands here and nowhere else. `encode` gives
all that does not depend on the preference, `decode` the logits.
"""

from flax.typing import Array

from hyperrec_jax.models import Batch, MultiTaskModel, register
from hyperrec_jax.models.banks import Linear


@register("wide_and_deep")
class WideAndDeep(MultiTaskModel):
    """Sum of a linear model and a shared bottom with towers.

    Attributes:
      wide: Whether the linear part is there.
    """

    wide: bool = True

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.linear = Linear(self.num_outputs, self.compute_dtype)
        self.bottom = self.new_bank(1, self.bottom_widths)
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> tuple[Array, Array]:
        """The linear model's outputs `[batch, output]` and the bottom `[batch, width]`."""
        x = self.embedding(batch)
        return self.linear(x), self.mark_shared(self.bottom(x, train)[0])

    def decode(self, features: tuple[Array, Array], preference: Array, train: bool) -> Array:
        """Outputs `[batch, output]`; a model that uses the preference sets `conditioned = True`."""
        del preference
        linear, bottom = features
        deep = self.to_logits(self.towers(bottom, train))
        return deep + linear if self.wide else deep
