"""Presets: named sets of values laid over the defaults.

`--config.preset=original`, `get_config("original")` and `fit(..., preset="original")` are the same
door. `original` is the PyTorch original of PO-MoE, faults included; no later default changes it.
"""

from typing import Any

from hyperrec_jax.errors import UserError, suggestion

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "original": {
        "model.name": "pomoe",
        "model.num_experts": 6,
        "model.norm": "batch",
        "model.code_widths": (64, 256, 64),
        "model.gate": "features",
        "model.gate_scope": "shared",
        "model.gate_activation": "relu",
        "model.gate_anchors": False,
        "model.gate_depth": 2,
        "model.gate_hidden_relu": False,
        "model.gate_dropout": 0.05,
        "model.expert_block": "none",
        "model.expert_adapter": "none",
        "model.tower_adapter": "none",
        "model.towers_alike": False,
        "model.preference_input": False,
        "objective.name": "cosine_original",
        "objective.weight": 0.05,
        "normaliser.name": "none",
        "sampler.name": "dirichlet",
        "sampler.concentration": (1.0, 1.2),
        "optimizer.learning_rate": 3e-4,
        "optimizer.lazy_rows": 0,
        "train.prior_bias": False,
        "train.calibrate": False,
        "train.preferences": 1,
        "train.grid": 5,
        "train.patience": 2,
    },
}


def preset_values(preset: str) -> dict[str, Any]:
    """The values of a preset by dotted key.

    Raises:
      UserError: there is no such preset.
    """
    if preset not in PRESETS:
        raise UserError(f"no preset {preset!r}; {suggestion(preset, PRESETS)}")
    return PRESETS[preset]


def model_options(preset: str) -> dict[str, Any]:
    """The options that a preset sets of its model.

    Raises:
      UserError: there is no such preset.
    """
    prefix = "model."
    return {
        key.removeprefix(prefix): value
        for key, value in preset_values(preset).items()
        if key.startswith(prefix) and key != "model.name"
    }
