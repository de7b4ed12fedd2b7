"""From raw rows and a preference to probabilities, without the training code."""

from hyperrec_jax.serving.predictor import Predictor
from hyperrec_jax.serving.preprocess import Preprocessor

__all__ = ["Predictor", "Preprocessor"]
