"""AliExpress search logs, Netherlands: click, conversion; 16 categorical and 63 numerical fields.

python -m hyperrec_jax.commands.prepare aliexpress --country nl --input DIR
python train.py --config configs/aliexpress_nl.py --workdir runs/aliexpress_nl
python evaluate.py --workdir runs/aliexpress_nl
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/aliexpress_nl"
    return config
