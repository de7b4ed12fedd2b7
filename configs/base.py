"""The defaults of a run; they stand in the package for the Python API to read."""

from hyperrec_jax.config.defaults import PRESETS, get_config

__all__ = ["PRESETS", "get_config"]
