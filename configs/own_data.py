"""Your own logs: any number of tasks, described by a small schema file.

    python -m hyperrec_jax.data.prepare csv --input shop.yaml --output data/own
    python train.py --config configs/own_data.py --workdir runs/own
    python evaluate.py --workdir runs/own

Another folder: `--config.data.store=DIR`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/own"
    return config
