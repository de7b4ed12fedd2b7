"""The one way to open a model, exported or not."""

from pathlib import Path
from typing import TYPE_CHECKING

from hyperrec_jax.serving.artefact import MANIFEST, load_exported
from hyperrec_jax.serving.predictor import Predictor

if TYPE_CHECKING:
    from hyperrec_jax.api.model import Model


def load(path: str | Path) -> "Model | Predictor":
    """The selected model of a run's folder, or a model that `hyperrec export` wrote.

    An exported model needs none of the training code (Flax, Orbax, Grain) and predicts; a run's
    folder gives the whole `Model`.

    Args:
      path: A workdir, or the exported folder.

    Raises:
      UserError: neither is there, or it can't be read.
    """
    path = Path(path)
    if is_workdir(path):
        # Here and not at the top: a server has only what an exported model needs.
        from hyperrec_jax.api.model import Model

        return Model.load(path)
    return load_exported(path)


def load_predictor(path: str | Path) -> Predictor:
    """As `load`, for those that only predict, such as a server.

    Raises:
      UserError: as for `load`.
    """
    path = Path(path)
    if is_workdir(path):
        from hyperrec_jax.serving.from_workdir import load_workdir

        return load_workdir(path)
    return load_exported(path)


def is_workdir(path: Path) -> bool:
    """Whether a folder is that of a run, not an exported model."""
    return (path / "config.json").exists() and not (path / MANIFEST).exists()
