"""Pareto hypernetwork (Navon et al. 2021, arXiv 2010.04104) on a shared bottom."""

import itertools
from typing import ClassVar

import flax.linen as nn
import jax
from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.hypernetwork import GeneratedVector
from hyperrec_jax.options import Count, Widths

ROWS_AT_ONCE = 32
"""Rows computed at once with one preference per row, where each row has its own network."""


@register("phn")
class PHN(MultiTaskModel):
    """The preference generates all towers, weights and biases; they have no normalisation.

    Attributes:
      code_widths: Layers of the hypernetwork's trunk.
      chunk_size: Most parameters that come out of the hypernetwork at once; more are generated
        chunk by chunk (von Oswald et al. 2020, arXiv 1906.00695).
    """

    code_widths: Widths = (64, 256, 64)
    chunk_size: Count = 16384

    conditioned: ClassVar[bool] = True
    own_towers: ClassVar[bool] = False

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.bottom = self.new_bank(1, self.bottom_widths)
        widths = (self.bottom_widths[-1], *self.tower_widths, self.tower_outputs)
        self.shapes = tuple(itertools.pairwise(widths))
        self.generator = GeneratedVector(
            self.num_towers * sum((width + 1) * out for width, out in self.shapes),
            self.code_widths,
            self.chunk_size,
            self.compute_dtype,
        )

    @property
    def preference_parts(self) -> frozenset[str]:
        """What generates the towers."""
        return frozenset({"generator"})

    def encode(self, batch: Batch, train: bool) -> Array:
        """The shared representation, `[batch, width]`."""
        return self.mark_shared(self.bottom(self.embedding(batch), train)[0])

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[..., batch, goal]`."""
        del train
        codes, emit = self.generator(preference)
        if preference.ndim == 1:
            return self._towers(emit(codes), features)
        if preference.shape[-2] == 1:
            return jax.vmap(self._towers, in_axes=(0, None))(emit(codes[..., 0, :, :]), features)

        def one_row(pair: tuple[Array, Array]) -> Array:
            code, x = pair
            return self._towers(emit(code), x[None])[0]

        # The networks of all rows would not fit: they are made again for the gradient.
        return jax.lax.map(jax.checkpoint(one_row), (codes, features), batch_size=ROWS_AT_ONCE)

    def _towers(self, vector: Array, x: Array) -> Array:
        """Outputs `[batch, output]` of the network that a generated vector stands for."""
        start = 0
        for index, (width, out) in enumerate(self.shapes):
            stop = start + self.num_towers * width * out
            kernel = vector[start:stop].reshape(self.num_towers, width, out)
            start = stop + self.num_towers * out
            bias = vector[stop:start].reshape(self.num_towers, 1, out)
            x = (nn.relu(x) if index else x) @ kernel + bias
        return self.to_logits(x)
