"""AliExpress search logs, Netherlands: click, conversion.

hyperrec prepare aliexpress --country nl --input DIR
hyperrec train --config configs/aliexpress_nl.py --workdir runs/aliexpress_nl
hyperrec evaluate --workdir runs/aliexpress_nl
"""

from ml_collections import ConfigDict

from configs import aliexpress


def get_config(preset: str = "default") -> ConfigDict:
    return aliexpress.get_config(preset, "nl")
