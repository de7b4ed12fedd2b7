"""A synthetic impression -> click -> conversion funnel of AliExpress' shape: no download needed.

hyperrec prepare synthetic
hyperrec train --config configs/synthetic.py --workdir runs/synthetic
hyperrec evaluate --workdir runs/synthetic
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default") -> ConfigDict:
    config = defaults.get_config(preset)
    config.data.store = "data/synthetic"
    # One number per row between experts and towers: a wide trunk serves both goals at once, and
    # there is then nothing to prefer. With this one they compete, and the preference decides.
    config.model.bottom_widths = (32, 1)
    config.model.embedding_dim = 8
    config.model.tower_widths = (16,)
    config.model.dropout = 0.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.train.epochs = 4
    return config
