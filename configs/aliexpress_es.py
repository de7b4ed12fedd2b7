"""AliExpress search logs, Spain: click, conversion; 16 categorical and 63 numerical fields.

python -m hyperrec_jax.commands.prepare aliexpress --country es --input DIR
python train.py --config configs/aliexpress_es.py --workdir runs/aliexpress_es
python evaluate.py --workdir runs/aliexpress_es
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/aliexpress_es"
    return config
