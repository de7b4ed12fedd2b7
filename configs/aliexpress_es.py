"""AliExpress search logs, Spain: click, conversion.

hyperrec prepare aliexpress --country es --input DIR
hyperrec train --config configs/aliexpress_es.py --workdir runs/aliexpress_es
hyperrec evaluate --workdir runs/aliexpress_es
"""

from ml_collections import ConfigDict

from configs import aliexpress


def get_config(preset: str = "default") -> ConfigDict:
    return aliexpress.get_config(preset, "es")
