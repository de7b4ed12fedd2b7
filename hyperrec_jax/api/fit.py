"""From a store to a trained model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperrec_jax.api.model import Model
from hyperrec_jax.config import defaults
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.training.train import train


def fit(
    store: Store,
    workdir: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    preset: str = "default",
) -> Model:
    """Trains a model in a workdir, or goes on where a former call was stopped.

    Args:
      store: From `prepare`, or `Store.open`.
      workdir: The run's folder.
      options: Values that differ from the preset's, by dotted name, such as
        `{"model.num_experts": 8, "train.epochs": 3}`; `hyperrec options` lists them.
      preset: A named set of values; `original` is the PyTorch original.

    Returns:
      The selected model; its `evaluate()` gives the front.

    Raises:
      UserError: an option or the preset does not exist, or a value is bad.
    """
    if preset not in defaults.PRESETS:
        raise UserError(f"no preset {preset!r}; there are {', '.join(defaults.PRESETS)}")
    config = defaults.get_config(preset)
    known = config.to_dict()
    for key in options or {}:
        section, _, name = key.partition(".")
        # A model of one's own may have options that the defaults do not list; the model checks.
        if section != "model" and (section not in known or (name and name not in known[section])):
            raise UserError(f"options: no key {key!r}; `hyperrec options` lists them")
    try:
        config.update_from_flattened_dict({"data.store": str(store.path)} | dict(options or {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"options: {' '.join(str(error).split())}") from error
    train(config.to_dict(), Path(workdir), store)
    return Model.load(Path(workdir), store)
