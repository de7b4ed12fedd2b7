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
    # Wide enough for both goals at once: predictions hardly trade off then, and lists do, whose
    # first places are few. `--config.model.bottom_widths="(32, 1)"` narrows the trunk to one number
    # per row, for which the goals compete in their predictions, too.
    config.model.bottom_widths = (64, 32)
    config.model.embedding_dim = 8
    config.model.tower_widths = (16,)
    config.model.dropout = 0.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.train.epochs = 4
    return config
