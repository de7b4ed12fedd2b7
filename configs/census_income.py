"""Census-Income (KDD): income over 50,000 and never married, 32 categorical and 7 numerical fields.

python -m hyperrec_jax.commands.prepare census-income --input DIR
python train.py --config configs/census_income.py --workdir runs/census_income
python evaluate.py --workdir runs/census_income
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "default") -> ConfigDict:
    config = base.get_config(preset)
    config.data.store = "data/census_income"
    return config
