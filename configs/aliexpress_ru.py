"""AliExpress search logs, Russia: click, conversion.

hyperrec prepare aliexpress --country ru --input DIR
hyperrec train --config configs/aliexpress_ru.py --workdir runs/aliexpress_ru
hyperrec evaluate --workdir runs/aliexpress_ru
"""

from ml_collections import ConfigDict

from configs import aliexpress


def get_config(preset: str = "default") -> ConfigDict:
    return aliexpress.get_config(preset, "ru")
