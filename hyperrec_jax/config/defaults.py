"""Every default of a run, once.

A value of None means "the component's own default", which stands in the component's class or
function beside its paper (for example `experts` in `hyperrec_jax/models/pomoe.py`).

A preset is a named set of values laid over these. `--config.preset=original` is the PyTorch
original of PO-MoE, faults included; no later default changes it.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

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
        "train.preferences": 1,
        "train.grid": 5,
        "train.patience": 2,
    },
}


def model_options(preset: str) -> dict[str, Any]:
    """The options that a preset sets of its model."""
    prefix = "model."
    return {
        key.removeprefix(prefix): value
        for key, value in PRESETS[preset].items()
        if key.startswith(prefix) and key != "model.name"
    }


def get_config(preset: str = "default") -> ConfigDict:
    """Returns the defaults with a preset laid over them.

    Args:
      preset: A key of `PRESETS`.
    """
    config = ConfigDict()
    config.preset = preset
    config.seed = 0

    config.data = ConfigDict()
    config.data.store = "data/synthetic"  # folder that `hyperrec_jax.commands.prepare` wrote
    config.data.resident = "auto"  # or "always", "never": training rows in the device's memory

    config.model = ConfigDict()
    config.model.name = "pomoe"
    # All models:
    config.model.embedding_dim = placeholder(int)
    config.model.bottom_widths = placeholder(tuple)
    config.model.tower_widths = placeholder(tuple)
    config.model.dropout = placeholder(float)
    config.model.norm = placeholder(str)
    config.model.compute_dtype = placeholder(str)
    config.model.fold = placeholder(str)
    config.model.layout = placeholder(str)
    # Mixtures of experts, by model:
    config.model.num_experts = placeholder(int)
    config.model.num_shared_experts = placeholder(int)
    config.model.num_task_experts = placeholder(int)
    config.model.num_critics = placeholder(int)
    config.model.output = placeholder(str)
    config.model.inner_learning_rate = placeholder(float)
    # What a preference does, by model:
    config.model.code_widths = placeholder(tuple)
    config.model.chunk_size = placeholder(int)
    config.model.gate = placeholder(str)
    config.model.gate_scope = placeholder(str)
    config.model.gate_activation = placeholder(str)
    config.model.gate_top_k = placeholder(int)
    config.model.gate_depth = placeholder(int)
    config.model.gate_hidden_relu = placeholder(bool)
    config.model.gate_anchors = placeholder(bool)
    config.model.gate_dropout = placeholder(float)
    config.model.expert_block = placeholder(str)
    config.model.expert_adapter = placeholder(str)
    config.model.tower_adapter = placeholder(str)
    config.model.towers_alike = placeholder(bool)
    config.model.adapter_rank = placeholder(int)
    config.model.preference_input = placeholder(bool)

    config.objective = ConfigDict()
    config.objective.name = placeholder(str)  # linear; uniform for models without preference
    config.objective.weight = placeholder(float)
    config.objective.temperature = placeholder(float)
    config.objective.reference = placeholder(float)
    config.objective.tolerance = placeholder(float)
    config.objective.vectors = placeholder(int)
    config.objective.learning_rate = placeholder(float)
    config.objective.decay = placeholder(float)
    config.objective.order = placeholder(float)
    config.objective.coverage = placeholder(float)

    config.normaliser = ConfigDict()
    config.normaliser.name = placeholder(str)  # entropy; none for models without preference
    config.normaliser.decay = placeholder(float)
    config.normaliser.floor = placeholder(float)
    config.normaliser.utopia = placeholder(tuple)
    config.normaliser.nadir = placeholder(tuple)

    config.sampler = ConfigDict()
    config.sampler.name = "stratified"
    config.sampler.concentration = placeholder(object)  # one number, or one a task
    config.sampler.corners = placeholder(float)
    config.sampler.start = placeholder(float)
    config.sampler.end = placeholder(float)
    config.sampler.rays = placeholder(tuple)

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.l2 = 1e-6  # added to the gradient, as torch.optim.Adam's weight_decay
    config.optimizer.schedule = "constant"  # or "cosine", to zero over train.epochs
    config.optimizer.warmup_steps = 0
    config.optimizer.lazy_rows = 100_000  # ids from which on a field's Adam is lazy; 0: none is

    config.train = ConfigDict()
    config.train.batch_size = 2048
    config.train.epochs = 10
    # Preferences a batch, for which the experts run once: as many as tasks, so that each row
    # serves every task; 8 where the objective is not linear in the losses, 1 where it compares
    # gradients.
    config.train.preferences = placeholder(int)
    config.train.preference_per_row = False
    config.train.patience = 2  # evaluations without a better hypervolume; 0 never stops early
    config.train.grid = 5  # preferences of the validation grid that selects the model
    config.train.steps_per_dispatch = 8  # steps compiled into one call
    config.train.checkpoint_every = 500  # steps; an epoch's end always saves
    config.train.prior_bias = True  # first predictions are the base rates, not one half
    config.train.skip_nonfinite = False  # leave out a step with a NaN or infinite loss, and count

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices over which the batch is split; -1: all that `expert` leaves
    config.mesh.expert = 1  # devices over which the experts are split

    config.update_from_flattened_dict(PRESETS[preset])
    return config
