"""A synthetic impression -> click -> conversion funnel of AliExpress' shape: no download needed.

python -m hyperrec_jax.data.prepare synthetic
python train.py --config configs/synthetic.py --workdir runs/synthetic
python evaluate.py --workdir runs/synthetic
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/synthetic"
    config.train.epochs = 3
    return config
