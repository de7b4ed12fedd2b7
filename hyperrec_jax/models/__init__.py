"""Models, by name: `create_model("pomoe", field_sizes=..., num_numerical=..., num_tasks=...)`.

Each module of this package may register a model; it is found without being listed here.
"""

from hyperrec_jax.models.base import MODELS, Batch, MultiTaskModel, register
from hyperrec_jax.models.create import (
    create_model,
    model_class,
    model_names,
    model_options,
    preference_share,
)

__all__ = [
    "MODELS",
    "Batch",
    "MultiTaskModel",
    "create_model",
    "model_class",
    "model_names",
    "model_options",
    "preference_share",
    "register",
]
