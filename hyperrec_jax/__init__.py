"""Preference-conditioned multi-task recommendation in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperrec_jax.serving.load import load

__version__ = "0.1.0"
__all__ = ["load"]

_HOMES = {"load": "hyperrec_jax.serving.load"}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: serving never loads the training code."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hyperrec_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
