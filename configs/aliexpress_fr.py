"""AliExpress search logs, France: click, conversion; 16 categorical and 63 numerical fields.

python -m hyperrec_jax.commands.prepare aliexpress --country fr --input DIR
python train.py --config configs/aliexpress_fr.py --workdir runs/aliexpress_fr
python evaluate.py --workdir runs/aliexpress_fr
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/aliexpress_fr"
    return config
