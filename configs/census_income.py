"""Census-Income (KDD): income over 50,000 and never married, 32 categorical and 7 numerical fields.

hyperrec prepare census-income --input DIR
hyperrec train --config configs/census_income.py --workdir runs/census_income
hyperrec evaluate --workdir runs/census_income
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default") -> ConfigDict:
    config = defaults.get_config(preset)
    config.data.store = "data/census_income"
    return config
