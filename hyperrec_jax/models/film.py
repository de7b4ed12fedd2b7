"""A shared bottom that the preference modulates (FiLM, Perez et al. 2018, arXiv 1709.07871)."""

from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.features import EmbeddedFeatures
from hyperrec_jax.models.hypernetwork import PreferenceNetwork
from hyperrec_jax.models.norms import Norm


@register("film")
class Film(MultiTaskModel):
    """One bottom, each hidden layer scaled and shifted by the preference, and a tower per goal.

    As Dosovitskiy and Djolonga 2020 ("You only train once") train one network for many losses. The
    modulation reads how the preference differs from equal weights, and begins as the identity:
    under equal weights the model is always a plain shared bottom, and one that has only seen equal
    weights answers alike under all preferences. What depends on the preference costs a layer's
    outputs, not its products: the first and widest product runs once for all preferences.

    Attributes:
      code_widths: Layers of the network that reads the preference.
      tower_adapter: How the preference changes the towers' layers, too.
      adapter_rank: Rank of `low_rank` adapters.
    """

    norm: Norm = "pooled"
    code_widths: tuple[int, ...] = (64, 64)
    tower_adapter: Literal["none", "film", "low_rank"] = "film"
    adapter_rank: int = 4

    conditioned: ClassVar[bool] = True

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.preference_network = PreferenceNetwork(self.code_widths, self.compute_dtype)
        self.bottom = self.new_bank(1, self.bottom_widths, adapter="film")
        self.towers = self.new_towers(adapter=self.tower_adapter, rank=self.adapter_rank)

    @property
    def preference_parts(self) -> frozenset[str]:
        """The network that reads the preference, and the modulations."""
        adapters = {"film_kernel", "film_bias", "down", "diagonal", "up"}
        return frozenset({"preference_network"} | adapters)

    def encode(self, batch: Batch, train: bool) -> EmbeddedFeatures:
        """The embedded fields: all else depends on the preference."""
        del train
        return self.embedding(batch)

    def decode(self, features: EmbeddedFeatures, preference: Array, train: bool) -> Array:
        """Logits `[..., batch, task]`."""
        equal = jnp.full(self.num_tasks, 1 / self.num_tasks)
        codes = (self.preference_network(weights) for weights in (preference, equal))
        code = jnp.subtract(*map(nn.relu, codes))
        shared = self.mark_shared(self.bottom(features, train, code)[0])
        return self.to_logits(self.towers(shared, train, code))
