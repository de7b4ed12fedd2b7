"""AliExpress search logs, France: click, conversion.

hyperrec prepare aliexpress --country fr --input DIR
hyperrec train --config configs/aliexpress_fr.py --workdir runs/aliexpress_fr
hyperrec evaluate --workdir runs/aliexpress_fr
"""

from ml_collections import ConfigDict

from configs import aliexpress


def get_config(preset: str = "default") -> ConfigDict:
    return aliexpress.get_config(preset, "fr")
