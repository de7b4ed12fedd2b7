"""Reads what `hyperrec export` wrote; needs JAX, but nothing of the training code."""

import functools
import hashlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from hyperrec_jax.data.columns import VERSION, version_of
from hyperrec_jax.data.files import file_checksum
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.vocabulary_file import check_vocabulary
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import ListScorer
from hyperrec_jax.evaluation.prediction_calibrator import PredictionCalibrator
from hyperrec_jax.serving.predictor import Predictor
from hyperrec_jax.serving.preprocess import Preprocessor

FORMAT = 3
FORMAT_OF_MANY = 4
READABLE = (2, 3, 4)  # 2 has binary goals only, 3 only categorical and numerical fields
MANIFEST = "model.json"
FILES = ("vocabulary.arrow", "weights.npz", "grid.jaxexport", "each.jaxexport")
OTHERS = ("both.jaxexport", "users.jaxexport", "items.jaxexport")
"""Only there for models that take a preference, and that have two towers."""

_OPEN = "0" * 64
"""Stands in the manifest for its checksum while that is computed."""


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes `model.json` with a checksum of each other file, and one over itself.

    Args:
      folder: Folder of the model; the other files are in it.
      manifest: What the model is, JSON-serialisable.
    """
    names = FILES + tuple(name for name in OTHERS if (folder / name).exists())
    checksums = {name: file_checksum(folder / name) for name in names}
    values = {"format": FORMAT, "checksum": _OPEN} | manifest | {"checksums": checksums}
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    whole = text.replace(_OPEN, _checksum(text.encode()), 1)
    (folder / MANIFEST).write_text(whole, "utf-8")


def format_of(schema: Schema) -> int:
    """The format of an exported model: that of the first program that can read it."""
    return FORMAT if version_of(schema) == VERSION else FORMAT_OF_MANY


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def load_exported(folder: Path) -> Predictor:
    """The model in a folder.

    Raises:
      UserError: there is none, it is damaged, or of another version.
    """
    manifest = _read_manifest(folder)
    schema = Schema.from_dict(manifest["schema"])
    names = FILES + tuple(name for name in OTHERS if name in manifest["checksums"])
    for name in names:
        path = folder / name
        if not path.exists() or file_checksum(path) != manifest["checksums"][name]:
            raise UserError(f"{path}: damaged or missing; export the model again")
    check_vocabulary(folder / "vocabulary.arrow", schema)
    try:
        with np.load(folder / "weights.npz", allow_pickle=False) as archive:
            weights = jax.device_put({name: archive[name] for name in archive.files})
        programs = {
            name.partition(".")[0]: jax_export.deserialize(bytearray((folder / name).read_bytes()))
            for name in names
            if name.endswith(".jaxexport")
        }
    except (ValueError, struct.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{folder}: this JAX ({jax.__version__}) can't read a model of JAX "
            f"{manifest['exported_with']['jax']} ({' '.join(str(error).split())}); export it again"
        ) from error
    platform = jax.default_backend()
    if platform not in manifest["platforms"] and platform != "gpu":
        raise UserError(f"{folder}: the model runs on {manifest['platforms']}, not on {platform}")
    scores = {
        name: functools.partial(jax.jit(program.call), weights)
        for name, program in programs.items()
    }
    scorer, calibrator = manifest.get("list_scorer"), manifest.get("calibrator")
    return Predictor(
        preprocess=Preprocessor.open(schema, folder / "vocabulary.arrow"),
        grid=scores["grid"],
        each=scores["each"],
        conditioned=manifest["conditioned"],
        config=manifest["config"],
        versions=manifest["exported_with"],
        # Models of earlier releases have none.
        scorer=ListScorer.from_dict(scorer) if scorer else None,
        calibrator=PredictionCalibrator.from_dict(calibrator) if calibrator else None,
        identity=f"{folder.resolve().name}@{str(manifest['checksum'])[:12]}",
        both=scores.get("both"),
        towers=(scores["users"], scores["items"]) if "users" in scores else None,
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        manifest = json.loads(content)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: no exported model here; write one with `hyperrec export`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read ({error}); export the model again") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise UserError(
            f"{path}: of format {found!r}, and this program reads {FORMAT} and "
            f"{FORMAT_OF_MANY}; export it again"
        )
    checksum = str(manifest.get("checksum"))
    if checksum != _checksum(content.replace(checksum.encode(), _OPEN.encode(), 1)):
        raise UserError(f"{path}: damaged, it fails its own checksum; export the model again")
    return manifest
