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
    init_from: str | Path | None = None,
    init_optimizer: bool = False,
) -> Model:
    """Trains a model in a workdir, or goes on where a former call was stopped.

    Args:
      store: From `prepare`, or `Store.open`.
      workdir: The run's folder.
      options: Values that differ from the preset's, by dotted name, such as
        `{"model.num_experts": 8, "train.epochs": 3}`; `hyperrec options` lists them.
      preset: A named set of values; `original` is the PyTorch original.
      init_from: Folder of another run whose selected model is the begin, such as that of last
        month's data. Values that both data sets have keep their embeddings, new ones begin at that
        of the unknown id; fields, goals and the model's options must be the same.
      init_optimizer: Whether the optimizer goes on from that run's moments, too.

    Returns:
      The selected model; its `evaluate()` gives the front.

    Raises:
      UserError: an option or the preset does not exist, or a value is bad.
    """
    values = {"data.store": str(store.path)} | dict(options or {})
    if init_from is not None:
        values["train.init_from"] = str(init_from)
    if init_optimizer:
        values["train.init_optimizer"] = True
    config = overridden(defaults.get_config(preset).to_dict(), values)
    train(config, Path(workdir), store)
    return Model.load(Path(workdir), store)
