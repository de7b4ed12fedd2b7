"""Normalisation of hidden layers, as pure functions."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.typing import Array
from jax import lax

Norm = Literal["batch", "pooled", "layer"]
Statistics = dict[str, Any]

EPSILON = 1e-5
MOMENTUM = 0.1


def batch_norm(
    x: Array,
    bias: Array,
    scale: Array,
    shift: Array,
    stats: Statistics,
    train: bool,
    pooled: bool = False,
) -> tuple[Array, Statistics]:
    """Normalises `x + bias` over the batch axis -2, with the semantics of `torch.nn.BatchNorm1d`.

    One pass gives mean and variance. The bias of the dense layer before moves nothing but the
    running mean, so that it needs no pass of its own. Under `jit` with a sharded batch the
    statistics are those of the global batch. Leading axes are those of several preferences.
    Normalised apart, a preference is trained on its own statistics but predicts by the running
    estimates, which follow the mean over all preferences (switchable networks, Yu et al. 2019,
    arXiv 1812.08928, fail without statistics of their own); pooled, training and prediction agree.

    Args:
      x: `[..., batch, width]`.
      bias: `[width]`.
      scale: `[width]`.
      shift: `[width]`.
      stats: Running `mean` and `variance`, `[width]` each.
      train: Whether to normalise by the batch rather than by the running estimates.
      pooled: Whether the leading axes share one mean and variance.

    Returns:
      The normalised input and the new running estimates (whose variance is the unbiased one).
    """
    if train:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1)) if pooled else -2
        mean = wide.mean(axis=axes, keepdims=True)
        variance = jnp.maximum((wide * wide).mean(axis=axes, keepdims=True) - mean * mean, 0)
        count = wide.size // mean.size
        unbiased = variance * (count / max(count - 1, 1))
        stats = jax.tree.map(
            lambda old, new: (
                (1 - MOMENTUM) * old
                + MOMENTUM * lax.stop_gradient(new).reshape(-1, new.shape[-1]).mean(axis=0)
            ),
            stats,
            {"mean": mean + bias, "variance": unbiased},
        )
    else:
        mean, variance = stats["mean"] - bias, stats["variance"]
    slope = scale * lax.rsqrt(variance + EPSILON)
    return (x * slope + (shift - mean * slope)).astype(x.dtype), stats


def layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Normalises over the last axis (Ba et al. 2016, arXiv 1607.06450)."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.maximum((wide * wide).mean(axis=-1, keepdims=True) - mean * mean, 0)
    return ((wide - mean) * lax.rsqrt(variance + EPSILON) * scale + shift).astype(x.dtype)
