"""AliExpress search logs, USA: click, conversion.

hyperrec prepare aliexpress --country us --input DIR
hyperrec train --config configs/aliexpress_us.py --workdir runs/aliexpress_us
hyperrec evaluate --workdir runs/aliexpress_us
"""

from ml_collections import ConfigDict

from configs import aliexpress


def get_config(preset: str = "default") -> ConfigDict:
    return aliexpress.get_config(preset, "us")
