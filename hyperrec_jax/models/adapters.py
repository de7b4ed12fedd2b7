"""How a preference changes a dense layer, beyond what the gate does.

An adapter reads the code that the hypernetwork's trunk makes of a preference. Each begins as the
identity, so that training decides how much the preference matters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.products import product

Parameters = dict[str, Any]


class Adapter(NamedTuple):
    """Three pure functions around the normalisation of a dense layer.

    Attributes:
      init: `(key, width, out, code width, rank) -> parameters`, beside those of the layer.
      before_norm: `(parameters, x, y, code) -> y` for the layer's input `x` and product `y`.
      after_norm: `(parameters, y, code) -> y`, before the ReLU.
    """

    init: Callable[..., Parameters]
    before_norm: Callable[[Parameters, Any, Array, Any], Array]
    after_norm: Callable[[Parameters, Array, Any], Array]


def _init_film(key: Array, width: int, out: int, code: int, rank: int) -> Parameters:
    del key, width, rank
    return {"film_kernel": jnp.zeros((code, 2 * out)), "film_bias": jnp.zeros(2 * out)}


def _film(parameters: Parameters, y: Array, code: Array) -> Array:
    modulation = code @ parameters["film_kernel"] + parameters["film_bias"]
    gamma, beta = jnp.split(modulation.astype(y.dtype), 2, axis=-1)
    return y * (1 + gamma) + beta


def _init_low_rank(key: Array, width: int, out: int, code: int, rank: int) -> Parameters:
    down_key, code_key = jax.random.split(key)
    return {
        "down": jax.random.normal(down_key, (width, rank)) / jnp.sqrt(width),
        "diagonal": jax.random.normal(code_key, (code, rank)) / jnp.sqrt(code),
        "up": jnp.zeros((rank, out)),
    }


def _low_rank(parameters: Parameters, x: Array, y: Array, code: Array) -> Array:
    diagonal = (code @ parameters["diagonal"]).astype(y.dtype)
    down, up = parameters["down"].astype(y.dtype), parameters["up"].astype(y.dtype)
    return y + product(product(x, down) * diagonal, up)


ADAPTERS: dict[str, Adapter] = {
    "none": Adapter(
        init=lambda key, width, out, code, rank: {},
        before_norm=lambda parameters, x, y, code: y,
        after_norm=lambda parameters, y, code: y,
    ),
    # y * (1 + gamma(r)) + beta(r), Perez et al. 2018, arXiv 1709.07871; for losses YOTO,
    # Dosovitskiy & Djolonga 2020.
    "film": Adapter(_init_film, lambda parameters, x, y, code: y, _film),
    # W(r) = W + down diag(h(r)) up, after LoRA (Hu et al. 2022, arXiv 2106.09685).
    "low_rank": Adapter(_init_low_rank, _low_rank, lambda parameters, y, code: y),
}
