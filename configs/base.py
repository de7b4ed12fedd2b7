"""The defaults of a run, which stand in `hyperrec_jax/defaults.py` for the Python API to read."""

from hyperrec_jax.defaults import PRESETS, get_config

__all__ = ["PRESETS", "get_config"]
