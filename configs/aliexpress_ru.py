"""AliExpress search logs, Russia: click, conversion; 16 categorical and 63 numerical fields.

python -m hyperrec_jax.commands.prepare aliexpress --country ru --input DIR
python train.py --config configs/aliexpress_ru.py --workdir runs/aliexpress_ru
python evaluate.py --workdir runs/aliexpress_ru
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/aliexpress_ru"
    return config
