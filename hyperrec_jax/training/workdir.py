"""The folder of a run: its config, versions, metrics and lock.

config.json      the config, defaults written out  checkpoints/  the latest states
versions.json    packages, Python, devices         best/         the selected state
metrics.jsonl    a line a logged step or epoch     evaluation/   what evaluate.py wrote
schema.json      what the model reads              vocabulary.arrow  the values behind the ids
"""

import contextlib
import fcntl
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from hyperrec_jax.data.files import written_whole
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.errors import UserError

Config = dict[str, Any]

VOCABULARY = "vocabulary.arrow"

_FREE_KEYS = (
    "train.epochs",
    "train.patience",
    "train.checkpoint_every",
    "data.store",
    "data.resident",
    "mesh.",
)
"""Keys that a resumed run may change: they alter how long and where it runs, not what it is.

The store may move; its fingerprint is checked apart."""

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pyarrow")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that no reader sees half a file. NaN becomes null: JSON has none."""
    text = json.dumps(_jsonable(value), indent=2, allow_nan=False)
    try:
        with written_whole(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror})") from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return _jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def flatten(config: Mapping[str, Any], prefix: str = "") -> Config:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: Config = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextlib.contextmanager
def open_workdir(workdir: Path, config: Config, schema: Schema) -> Iterator[None]:
    """Creates a run's folder, or checks that an existing one is of the same config; locks it.

    Args:
      workdir: The folder.
      config: The full config as a nested dictionary.
      schema: What the model reads; kept beside the config, so that a workdir stands alone.

    Raises:
      UserError: the folder can't be written, holds a run of another config, or is in use.
    """
    from hyperrec_jax.parallel import processes

    with contextlib.ExitStack() as held:

        def prepare() -> None:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"--workdir {workdir}: can't be created ({error.strerror}); take another folder"
                ) from error
            held.enter_context(_lock(workdir))
            if (workdir / "config.json").exists():
                _check_same(workdir, config)
            write_json(workdir / "config.json", config)
            write_json(workdir / "schema.json", schema.to_dict())
            write_json(workdir / "versions.json", versions())

        processes.on_first(prepare)
        if not (workdir / "config.json").exists():
            raise UserError(
                f"--workdir {workdir}: this process does not see what process 0 wrote there; take "
                "a folder on a file system that all share"
            )
        yield


def _check_same(workdir: Path, config: Config) -> None:
    before, now = flatten(load_config(workdir)), flatten(_jsonable(config))
    changed = [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_FREE_KEYS)
    ]
    if changed:
        raise UserError(
            f"--workdir {workdir} holds a run of another config ({'; '.join(changed)}); "
            "take another folder, or the config it was begun with"
        )


def keep_vocabulary(workdir: Path, source: Path) -> None:
    """Copies a store's vocabulary, so that raw rows can be scored where the store is not.

    Args:
      workdir: The folder.
      source: The store's vocabulary file.

    Raises:
      UserError: it can't be copied.
    """
    from hyperrec_jax.parallel import processes

    def copy() -> None:
        try:
            with written_whole(workdir / VOCABULARY) as target, source.open("rb") as file:
                shutil.copyfileobj(file, target)
        except OSError as error:
            raise UserError(
                f"{workdir / VOCABULARY}: can't be written ({error.strerror})"
            ) from error

    processes.on_first(copy)


def load_config(workdir: Path) -> Config:
    """The config that a run was begun with.

    Raises:
      UserError: the folder holds no run.
    """
    return _read_json(workdir, "config.json")


def load_schema(workdir: Path) -> Schema:
    """The schema that a run reads.

    Raises:
      UserError: the folder holds no run.
    """
    return Schema.from_dict(_read_json(workdir, "schema.json"))


def _read_json(workdir: Path, name: str) -> Any:
    path = workdir / name
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"--workdir {workdir}: no run is there (no {name}); train one with train.py"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error})") from error


def load_versions(workdir: Path) -> dict[str, Any]:
    """What the run was trained with.

    Raises:
      UserError: the folder holds no run.
    """
    return _read_json(workdir, "versions.json")


def versions() -> dict[str, Any]:
    """Packages, Python and devices of this process."""
    import jax

    return {
        "hyperrec_jax": metadata.version("hyperrec-jax"),
        **{name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


@contextlib.contextmanager
def _lock(workdir: Path) -> Iterator[None]:
    """Holds the run's folder for this process; the system lets go of it however we end.

    Raises:
      UserError: another process holds it.
    """
    try:
        handle = (workdir / "lock").open("w")
    except OSError as error:
        raise UserError(
            f"--workdir {workdir}: can't be written ({error.strerror}); take another folder"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir {workdir}: another process trains there; wait for it or take another"
            ) from None
        yield
