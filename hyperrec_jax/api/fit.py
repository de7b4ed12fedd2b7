"""From a store to a trained model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperrec_jax.api.model import Model
from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.data.store import Store
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
    values = {"data.store": str(store.path)} | dict(options or {})
    config = overridden(defaults.get_config(preset).to_dict(), values)
    train(config, Path(workdir), store)
    return Model.load(Path(workdir), store)
