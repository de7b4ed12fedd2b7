"""Exports a trained model for serving, as a folder that stands alone."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.files import explain_write_errors, replace_folder
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.artefact import MANIFEST, format_of, load_exported, write_manifest
from hyperrec_jax.serving.from_workdir import list_scorer_or_none, make_scores
from hyperrec_jax.training import workdir as workdirs

PLATFORMS = ("cpu", "cuda", "tpu")


def export(workdir: Path, output: Path) -> None:
    """Writes the selected model of a workdir as a folder that stands alone.

    Args:
      workdir: A run's folder.
      output: The model's folder; a model that is there is replaced.

    Raises:
      UserError: there is no model, or `output` can't be written or holds something else.
    """
    from flax import traverse_util

    from hyperrec_jax.training.trained import load_trained

    shown, output = output, output.resolve()  # a symbolic link stays, and its target is replaced
    if output.exists() and not (output / MANIFEST).exists() and _occupied(output):
        raise UserError(f"--out {shown}: exists and is no exported model; choose another folder")
    vocabulary = workdirs.check_kept_vocabulary(workdir)
    trained = load_trained(workdir)
    weights = {
        name: np.asarray(value)
        for name, value in traverse_util.flatten_dict(trained.variables, sep="/").items()
    }
    scorer = list_scorer_or_none(trained)
    programs = _programs(trained, weights)
    with explain_write_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(".writing", f"{output.name}.", output.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            np.savez(temporary / "weights.npz", allow_pickle=False, **weights)
            for name, program in programs.items():
                (temporary / f"{name}.jaxexport").write_bytes(program)
            shutil.copyfile(vocabulary, temporary / workdirs.VOCABULARY)
            manifest = {
                "format": format_of(trained.schema),
                "schema": trained.schema.to_dict(),
                "conditioned": trained.network.conditioned,
                "platforms": PLATFORMS,
                "config": trained.config,
                "trained_with": workdirs.load_versions(workdir),
                "exported_with": workdirs.versions(),
                "step": trained.progress.best_step,
                "list_scorer": scorer and scorer.to_dict(),
                "calibrator": trained.calibrator and trained.calibrator.to_dict(),
            }
            write_manifest(temporary, workdirs.jsonable(manifest))
            load_exported(temporary)  # what can't be loaded never takes the place of what can
            replace_folder(temporary, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _occupied(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())


def _umask() -> int:
    """The process's umask, which can be read by setting it alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _programs(trained: Any, weights: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The serialised programs by name."""
    import jax
    from flax import traverse_util
    from jax import export as jax_export

    from hyperrec_jax.config.resolve import create_model

    # Which fields are best folded depends on the number of rows, which is open here.
    config = trained.config | {"model": trained.config["model"] | {"fold": "never"}}
    scores = make_scores(create_model(config, trained.schema), trained.schema)
    schema = trained.schema
    rows, several = jax_export.symbolic_shape("rows, preferences")
    shape = jax.ShapeDtypeStruct
    preferences = {"grid": several, "each": rows, "both": rows, "users": rows, "items": rows}
    programs = {}
    for name, score in scores.items():

        def program(flat: dict[str, jax.Array], *inputs: jax.Array, score: Any = score) -> Any:
            return score(traverse_util.unflatten_dict(flat, sep="/"), *inputs)

        exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(
            {key: shape(value.shape, value.dtype) for key, value in weights.items()},
            *(shape((rows, column.width), column.dtype) for column in input_columns(schema)),
            shape((preferences[name], schema.num_tasks), np.float32),
        )
        programs[name] = bytes(exported.serialize())
    return programs
