"""AliExpress search logs: click, conversion; 16 categorical and 63 numerical fields.

What the configs of the five countries share; each of them, such as `configs/aliexpress_us.py`, is
what `hyperrec train --config` takes.
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default", country: str = "us") -> ConfigDict:
    """The config of a country: `es`, `fr`, `nl`, `ru` or `us`."""
    config = defaults.get_config(preset)
    config.data.store = f"data/aliexpress_{country}"
    return config
