"""Weighted sums of experts, for one or many preferences."""

import flax.struct
import jax
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.products import product


@jax.custom_vjp
def mix(weights: Array, experts: Array) -> Array:
    """Weighted sum of experts: `[..., 1 or batch, expert]`, `[expert, batch, width]`.

    Returns `[..., batch, width]`. On a CPU the sum in a loop is several times as fast as the
    equivalent contraction, and for several preferences the contraction several times as fast as the
    sum's gradient: hence a gradient by hand.
    """
    columns = jnp.split(weights, experts.shape[0], axis=-1)
    return sum(
        (column * expert for column, expert in zip(columns, jnp.unstack(experts), strict=True)),
        start=jnp.zeros((), experts.dtype),
    )


def _mix_forward(weights: Array, experts: Array) -> tuple[Array, tuple[Array, Array]]:
    return mix(weights, experts), (weights, experts)


def _mix_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    weights, experts = saved
    _, batch, width = experts.shape
    to_weights = jnp.einsum("...bh,ebh->...be", cotangent, experts)
    if weights.shape[-2] == 1:
        to_weights = to_weights.sum(axis=-2, keepdims=True)
    weights = jnp.broadcast_to(weights, (*weights.shape[:-2], batch, weights.shape[-1]))
    to_experts = jnp.einsum(
        "rbe,rbh->ebh",
        weights.reshape(-1, batch, weights.shape[-1]),
        cotangent.reshape(-1, batch, width),
    )
    return to_weights, to_experts


mix.defvjp(_mix_forward, _mix_backward)


def mix_adapted(weights: Array, experts: Array) -> Array:
    """As `mix`, for experts `[expert, preference, batch, width]` that depend on the preference."""
    return jnp.einsum(
        "...be,e...bh->...bh",
        jnp.broadcast_to(weights, (*experts.shape[1:3], weights.shape[-1])),
        experts,
    )


@flax.struct.dataclass
class Mixture:
    """`mix(weights, experts)`, not yet computed: stands where it would in `mixture @ kernel`.

    Both the mixture and the product are linear, so `(sum_e g_e h_e) @ W = sum_e g_e (h_e @ W)`. The
    right side has one product for each expert instead of one for each preference; the one with
    fewer multiplications is computed.

    Attributes:
      weights: `[..., 1 or batch, expert]`.
      experts: `[expert, batch, width]`, or `[expert, preference, batch, width]` where they depend
        on the preference.
    """

    weights: Array
    experts: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.weights.shape[:-2], *self.experts.shape[-2:])

    def __matmul__(self, kernel: Array) -> Array:
        """`[width, out]` to `[..., batch, out]`."""
        if self.experts.ndim > 3:  # the experts themselves depend on the preference
            return product(mix_adapted(self.weights, self.experts), kernel)
        count = self.weights[..., 0, 0].size
        copies = len(self.experts)
        width, out = kernel.shape
        # An exported program leaves the number of preferences open.
        if isinstance(count, int) and (
            copies * width * out + count * copies * out
            < count * copies * width + count * width * out
        ):
            return mix(self.weights, self.experts @ kernel)
        return product(mix(self.weights, self.experts), kernel)
