"""Matrix products of several preferences' rows with one kernel."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Array


def product(x: Any, kernel: Array) -> Array:
    """`x @ kernel`, `[..., batch, width]` by `[width, out]`, with a quick gradient.

    With axes before the batch, XLA takes the kernel's gradient on a CPU from transposed copies of
    both sides; as a sum of one product for each preference it needs none. (Merging the axes would
    do as well, but not where the batch is split over devices.)
    """
    if isinstance(x, jax.Array) and x.ndim > 2:
        return _product(x, kernel)
    return x @ kernel


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ _per_preference(kernel, x), (x, kernel)


def _backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved
    to_kernel = jnp.einsum("...bi,...bo->...io", x, cotangent)
    to_x = cotangent @ _per_preference(kernel.T, x)
    return to_x, to_kernel.sum(axis=tuple(range(x.ndim - 2)))


def _per_preference(kernel: Array, x: Array) -> Array:
    return jnp.broadcast_to(kernel, (*x.shape[:-2], *kernel.shape))


_product.defvjp(_forward, _backward)
