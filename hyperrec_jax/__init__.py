"""Preference-conditioned multi-task recommendation in JAX."""

__version__ = "0.1.0"

from hyperrec_jax.serving.load import load
