"""Preference-conditioned multi-task recommendation in JAX."""

__version__ = "0.1.0"
