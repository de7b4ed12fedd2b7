"""Makes the folder of a run from a checkpoint of the original."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.config.run import Config
from hyperrec_jax.data.inputs import inputs_of
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError, needs_extra
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.state import first_state, state_template
from hyperrec_jax.training.torch_import.convert import convert


def import_checkpoint(
    checkpoint: Path,
    store: Store,
    workdir: Path,
    config: Config,
    raw_field_sizes: Sequence[int] | None = None,
) -> None:
    """Makes a workdir of a checkpoint of the original: to evaluate, and to train further.

    Args:
      checkpoint: A `state_dict` that the original saved with `torch.save`.
      store: Data with the vocabulary of raw ids that the original's table is indexed by.
      workdir: The folder to make.
      config: Config of the model that the checkpoint holds.
      raw_field_sizes: See `convert`.

    Raises:
      UserError: the file can't be read or does not fit the model, or the folder holds a run.
    """
    if (workdir / "config.json").exists():
        raise UserError(f"--workdir {workdir}: holds a run already; take another folder")
    if inputs_of(store.schema) is not None:
        raise UserError(
            f"{store.path}: has sets, sequences, vectors or shared vocabularies, and the PyTorch "
            "original has none; prepare the data that the checkpoint was trained on"
        )
    state_dict = _load_state_dict(checkpoint)
    run = resolve(config, store.schema, store.split("train"))
    vocabularies = [store.vocabulary(field.name).to_pylist() for field in store.schema.categorical]
    variables = convert(
        state_dict, config["model"]["name"], run.model, vocabularies, raw_field_sizes
    )
    state = first_state(run)
    placed = jax.tree.map(
        lambda old, new: jax.device_put(jnp.asarray(new, old.dtype), old.sharding),
        state.variables,
        {"batch_stats": {}} | variables,
    )
    with workdirs.open_workdir(workdir, run.config, store, state_template(run)):
        checkpoints = Checkpoints(workdir)
        progress = Progress(data_fingerprint=store.fingerprint)
        checkpoints.save_best(placed, 0, progress)
        checkpoints.save_latest(state.replace(**placed), progress)
        checkpoints.close()


def _load_state_dict(path: Path) -> Mapping[str, Any]:
    with needs_extra("torch"):
        import torch
    try:
        # weights_only: a pickle could run code, a state dict of tensors can't.
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{path}: not a PyTorch state dict of tensors ({reason})") from error
    if not isinstance(state_dict, Mapping):
        raise UserError(f"{path}: holds a {type(state_dict).__name__}, not a state dict")
    return state_dict
