"""Gates over experts: how a row and a preference weigh the experts' outputs.

All gates have one interface: `gate(x, experts, code, train) -> logits [..., 1 or batch, expert]`
for the embedded features `x`, the experts' outputs `[expert, batch, width]` and the code of the
preference `[..., 1 or batch, code]`.
"""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Array
from jax import lax

from hyperrec_jax.models.banks import Linear
from hyperrec_jax.models.features import EmbeddedFeatures
from hyperrec_jax.models.hypernetwork import GeneratedLinear

POWER, FLOOR = 1.5, 0.05
"""Anchors at the start: under softmax an expert of goal `i` weighs `(r_i + FLOOR)^POWER`."""

Activation = Literal["relu", "softmax", "top_k"]


def top_k_softmax(logits: Array, k: int) -> Array:
    """Softmax over the `k` largest logits, 0 for the others (Shazeer et al., arXiv 1701.06538)."""
    threshold = lax.top_k(logits, k)[0][..., -1:]
    return nn.softmax(jnp.where(logits >= threshold, logits, -jnp.inf), axis=-1)


def activation(name: Activation, k: int) -> Callable[[Array], Array]:
    """What turns a gate's logits into weights; `k` is read by `top_k` alone."""
    activations: dict[str, Callable[[Array], Array]] = {
        "relu": nn.relu,
        "softmax": nn.softmax,
        "top_k": lambda logits: top_k_softmax(logits, k),
    }
    return activations[name]


class Gate(nn.Module):
    """What gates have in common: first logits of their own kind, then `depth - 1` dense layers.

    Attributes:
      num_experts: Width of every layer.
      depth: Number of layers.
      hidden_relu: Whether ReLU stands between the layers; the original has nothing there.
      rate: Dropout of generated parameters.
      dtype: Type of activations and products.
    """

    num_experts: int
    depth: int = 1
    hidden_relu: bool = False
    rate: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: EmbeddedFeatures, experts: Array, code: Array, train: bool) -> Array:
        logits = self.first(x, experts, code, train)
        for index in range(1, self.depth):
            logits = nn.relu(logits) if self.hidden_relu else logits
            logits = self.layer(f"layer_{index}", logits, code, train)
        return logits

    def first(self, x: EmbeddedFeatures, experts: Array, code: Array, train: bool) -> Array:
        raise NotImplementedError

    def layer(self, name: str, logits: Array, code: Array, train: bool) -> Array:
        del code, train
        return Linear(self.num_experts, self.dtype, name=name)(logits)


class GeneratedGate(Gate):
    """The gate of PO-MoE: layers on the features, with parameters that the preference generates."""

    def first(self, x: EmbeddedFeatures, experts: Array, code: Array, train: bool) -> Array:
        del experts
        return GeneratedLinear(self.num_experts, self.rate, self.dtype, name="layer_0")(
            x, code, train
        )

    def layer(self, name: str, logits: Array, code: Array, train: bool) -> Array:
        return GeneratedLinear(self.num_experts, self.rate, self.dtype, name=name)(
            logits, code, train
        )


class PreferenceGate(Gate):
    """Logits from the code alone, the same for all rows: more preferences cost next to nothing."""

    def first(self, x: EmbeddedFeatures, experts: Array, code: Array, train: bool) -> Array:
        del x, experts, train
        return Linear(self.num_experts, self.dtype, name="layer_0")(code)


class AdditiveGate(Gate):
    """The gate of a plain mixture of experts, its logits shifted by the preference."""

    def first(self, x: EmbeddedFeatures, experts: Array, code: Array, train: bool) -> Array:
        del experts, train
        features = Linear(self.num_experts, self.dtype, name="layer_0")(x)
        return features + Linear(self.num_experts, self.dtype, name="shift")(code)


class AttentionGate(Gate):
    """Scaled dot products of a query from the preference with keys from the experts' outputs."""

    def first(self, x: EmbeddedFeatures, experts: Array, code: Array, train: bool) -> Array:
        del x, train
        width = code.shape[-1]
        keys = Linear(width, self.dtype, name="key")(experts)
        query = Linear(width, self.dtype, name="query")(code)
        if query.shape[-2] == 1:
            scores = jnp.einsum("...k,ebk->...be", query[..., 0, :], keys)
        else:
            scores = jnp.einsum("...bk,ebk->...be", query, keys)
        return scores / math.sqrt(width)


class Anchors(nn.Module):
    """Logits `[..., 1 or batch, expert]` that tie each expert to a goal.

    `log(1 + r / FLOOR) @ kernel`, where expert `e` begins with the logit of the goal
    `i = e mod tasks`, POWER times the logarithm. Without it all experts and all preferences begin
    alike, and where goals conflict training ends in one compromise for every preference: no expert
    gains from serving one goal while all preferences use it. Of logits that are linear in the
    preference softmax is flat near the corners, and the order of the preferences there is left to
    chance.

    Attributes:
      num_experts: Number of experts.
      dtype: Type of the logits.
    """

    num_experts: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, preference: Array) -> Array:
        preferences = jnp.atleast_2d(preference).astype(self.dtype)
        num_tasks = preferences.shape[-1]

        def init(key: Array) -> Array:
            del key
            owners = jnp.arange(self.num_experts) % num_tasks
            return POWER * jax.nn.one_hot(owners, num_tasks, axis=0)

        return jnp.log1p(preferences / FLOOR) @ self.param("kernel", init).astype(self.dtype)


GATES: dict[str, type[Gate]] = {
    "features": GeneratedGate,
    "preference": PreferenceGate,
    "additive": AdditiveGate,
    "attention": AttentionGate,
}
