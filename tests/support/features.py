"""A small batch of ids and numbers, and its embedding."""

import jax
import numpy as np

from hyperrec_jax.models.features import FeatureEmbedding

SIZES, NUMERICAL, DIM, ROWS = (3, 40, 5), 4, 6, 12


def make_batch(sizes=SIZES, numerical=NUMERICAL, rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, size, rows) for size in sizes]
    return {
        "categorical": np.stack(ids, 1) if ids else np.zeros((rows, 0), np.int32),
        "numerical": rng.normal(size=(rows, numerical)).astype(np.float32),
    }


def embed(batch, params, fold, sizes=SIZES, numerical=NUMERICAL):
    return FeatureEmbedding(sizes, numerical, DIM, fold).apply({"params": params}, batch)


def init_params(sizes=SIZES, numerical=NUMERICAL, fold="never"):
    module = FeatureEmbedding(sizes, numerical, DIM, fold)
    return jax.jit(module.init)(jax.random.key(0), make_batch(sizes, numerical))["params"]
