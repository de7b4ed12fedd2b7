"""The one way to open a model, exported or not."""

from pathlib import Path

from hyperrec_jax.serving.artefact import MANIFEST, load_exported
from hyperrec_jax.serving.predictor import Predictor


def load(path: str | Path) -> Predictor:
    """A model that `hyperrec export` wrote, or the selected one of a run's folder.

    An exported model needs none of the training code (Flax, Orbax, Grain).

    Args:
      path: The exported folder, or a workdir.

    Raises:
      UserError: neither is there, or it can't be read.
    """
    path = Path(path)
    if (path / "config.json").exists() and not (path / MANIFEST).exists():
        # Here and not at the top: a server has only what an exported model needs.
        from hyperrec_jax.serving.from_workdir import load_workdir

        return load_workdir(path)
    return load_exported(path)
