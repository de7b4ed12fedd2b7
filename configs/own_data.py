"""Your own logs: any number of goals, described by a small schema file.

    hyperrec prepare csv --input shop.yaml --output data/own
    hyperrec train --config configs/own_data.py --workdir runs/own
    hyperrec evaluate --workdir runs/own

Another folder: `--config.data.store=DIR`. The batch is smaller than that of the other configs, so
that some ten thousand rows give enough steps; for millions take `--config.train.batch_size=2048`.
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default") -> ConfigDict:
    config = defaults.get_config(preset)
    config.data.store = "data/own"
    config.train.batch_size = 256
    config.train.patience = 3
    return config
