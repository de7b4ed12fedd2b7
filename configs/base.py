"""The defaults of a run; they stand in the package for the Python API to read."""

from hyperrec_jax.config.defaults import get_config
from hyperrec_jax.config.presets import PRESETS

__all__ = ["PRESETS", "get_config"]
