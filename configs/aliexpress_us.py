"""AliExpress search logs, USA: click, conversion; 16 categorical and 63 numerical fields.

python -m hyperrec_jax.commands.prepare aliexpress --country us --input DIR
python train.py --config configs/aliexpress_us.py --workdir runs/aliexpress_us
python evaluate.py --workdir runs/aliexpress_us
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/aliexpress_us"
    return config
