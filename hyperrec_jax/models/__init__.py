"""Models, by name: `create_model("pomoe", field_sizes=..., num_numerical=..., num_tasks=...)`."""

from hyperrec_jax.models import (
    aitm,
    cosmos,
    esmm,
    metaheac,
    mmoe,
    omoe,
    phn,
    ple,
    pomoe,
    sharedbottom,
    singletask,
)
from hyperrec_jax.models.base import (
    Batch,
    MultiTaskModel,
    create_model,
    model_class,
    model_names,
    model_options,
    preference_share,
    register,
)

__all__ = [
    "Batch",
    "MultiTaskModel",
    "aitm",
    "cosmos",
    "create_model",
    "esmm",
    "metaheac",
    "mmoe",
    "model_class",
    "model_names",
    "model_options",
    "omoe",
    "phn",
    "ple",
    "pomoe",
    "preference_share",
    "register",
    "sharedbottom",
    "singletask",
]
