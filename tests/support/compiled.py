"""One program instead of many."""

import functools
from collections.abc import Callable
from typing import Any

import jax


def compiled(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """`function(*arguments, **keywords)`, compiled as a whole.

    Operation by operation, each is traced and compiled by itself, which takes many times as long.

    Args:
      function: Any function of JAX, a method of a Flax module, too.
      arguments: Arrays, trees of them, and texts or truth values, which are constants.
      keywords: Constants.
    """
    static = tuple(i for i, value in enumerate(arguments) if isinstance(value, (bool, str)))
    return jax.jit(functools.partial(function, **keywords), static_argnums=static)(*arguments)
