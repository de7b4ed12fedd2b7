"""The folder of a run: its config, versions, metrics and lock.

Nothing is written into a folder before all that could refuse it has been checked.

config.json      the config, defaults written out  checkpoints/  the latest states
versions.json    packages, Python, devices         best/         the selected state
metrics.jsonl    one line per logged step or epoch evaluation/   what evaluate wrote
schema.json      what the model reads,             vocabulary.arrow  the values behind the ids
                 the data's fingerprint            lock          held while a process trains
list_scorer.json what scores rows for lists
"""

import contextlib
import dataclasses
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from hyperrec_jax.config.overrides import check_config
from hyperrec_jax.data.files import explain_write_errors, file_checksum, written_whole
from hyperrec_jax.data.locks import locked
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.vocabulary_file import check_vocabulary, same_vocabulary
from hyperrec_jax.errors import UserError

Config = dict[str, Any]

VOCABULARY = "vocabulary.arrow"

_FREE_KEYS = (
    "train.epochs",
    "train.patience",
    "train.checkpoint_every",
    "list.epochs",
    "data.store",
    "data.resident",
    "mesh.",
)
"""Keys that a resumed run may change: they alter how long and where it runs, not what it is.

The store may move; its fingerprint is checked apart."""

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pyarrow")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that no reader sees half a file. NaN becomes null: JSON has none."""
    text = json.dumps(jsonable(value), indent=2, allow_nan=False)
    try:
        with written_whole(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror})") from error


def jsonable(value: Any) -> Any:
    """A value as JSON takes it: tuples and arrays as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return jsonable(value.tolist())
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
def open_workdir(workdir: Path, config: Config, store: Store, template: Any) -> Iterator[None]:
    """Creates a run's folder, or checks that an existing one is of the same run; locks it.

    Args:
      workdir: The folder.
      config: The full config as a nested dictionary.
      store: The data. Its schema and vocabulary are kept beside the config, so that a workdir
        stands alone.
      template: Shapes of the training state, a `TrainState` of `jax.ShapeDtypeStruct`.

    Raises:
      UserError: the folder can't be written, holds another run, is damaged, or is in use. What it
        held is then as it was before, bit for bit.
    """
    from hyperrec_jax.parallel import processes

    with contextlib.ExitStack() as held:

        def prepare() -> None:
            _refuse_another_run(workdir, config, store, template)
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                held.enter_context(
                    locked(
                        workdir / "lock",
                        f"--workdir {workdir}: another process trains there; wait for it or take "
                        "another",
                    )
                )
            except OSError as error:
                raise UserError(
                    f"--workdir {workdir}: can't be written ({error.strerror}); take another folder"
                ) from error
            # Again: another process may have begun a run between the check and the lock.
            finished = _refuse_another_run(workdir, config, store, template)
            with explain_write_errors(workdir):
                _describe(workdir, config, store, finished)

        processes.on_first(prepare)
        if not (workdir / "config.json").exists():
            raise UserError(
                f"--workdir {workdir}: this process does not see what process 0 wrote there; take "
                "a folder on a file system that all share"
            )
        yield


def _refuse_another_run(workdir: Path, config: Config, store: Store, template: Any) -> bool:
    """Reads what a folder holds; writes nothing.

    Returns:
      Whether a finished run is there.

    Raises:
      UserError: it is not the run that is to go on.
    """
    from hyperrec_jax.training import checkpoint
    from hyperrec_jax.training.log import read_metrics

    steps = checkpoint.saved_steps(workdir)
    if not (workdir / "config.json").exists():
        if steps:
            raise UserError(
                f"--workdir {workdir}: holds checkpoints and no config.json; take another folder, "
                "or put the file back"
            )
        return False
    _check_same(workdir, config)
    load_schema(workdir)
    _check_fingerprint(workdir, _read_json(workdir, "schema.json").get("fingerprint"), store)
    saved = checkpoint.check_checkpoints(workdir, template)
    _check_fingerprint(workdir, saved.data_fingerprint, store)  # a run of release 0.1 has it here
    read_metrics(workdir)
    return saved.finished


def _check_fingerprint(workdir: Path, before: str | None, store: Store) -> None:
    if before and before != store.fingerprint:
        raise UserError(
            f"--workdir {workdir}: the store changed since the run was begun (fingerprint "
            f"{before} -> {store.fingerprint}); take another folder, or prepare the data as it was"
        )


def _describe(workdir: Path, config: Config, store: Store, finished: bool) -> None:
    """Writes what is not there yet; a finished run of the same length stays as it is."""
    source = store.path / VOCABULARY
    checksum = file_checksum(source)
    kept = workdir / VOCABULARY
    if not kept.exists() or file_checksum(kept) != checksum:
        with written_whole(kept) as target, source.open("rb") as file:
            shutil.copyfileobj(file, target)
    schema = store.schema.to_dict() | {"fingerprint": store.fingerprint, "vocabulary": checksum}
    described = _write_if_new(workdir / "schema.json", schema)
    longer = not (workdir / "config.json").exists() or load_config(workdir) != jsonable(config)
    if longer or described or not finished or not (workdir / "versions.json").exists():
        write_json(workdir / "versions.json", versions())
    _write_if_new(workdir / "config.json", config)


def _write_if_new(path: Path, value: Any) -> bool:
    if path.exists() and json.loads(path.read_text("utf-8")) == jsonable(value):
        return False
    write_json(path, value)
    return True


def _check_same(workdir: Path, config: Config) -> None:
    before, now = flatten(load_config(workdir)), flatten(jsonable(config))
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


def check_kept_vocabulary(workdir: Path) -> Path:
    """The vocabulary of a run's folder, which raw rows are encoded with.

    Raises:
      UserError: it is missing, damaged, or another run's.
    """
    path, checksum = workdir / VOCABULARY, _read_json(workdir, "schema.json").get("vocabulary")
    check_vocabulary(path, load_schema(workdir), checksum)
    return path


def check_store(workdir: Path, store: Store) -> None:
    """Checks that a store's rows are encoded as those that a run was trained on.

    Args:
      workdir: The run's folder.
      store: Data to evaluate on.

    Raises:
      UserError: its columns, scaling or vocabulary are not those of the run.
    """
    values = _read_json(workdir, "schema.json")
    if values.get("fingerprint") == store.fingerprint:
        return
    advice = "evaluate on the data that the run was trained on, or on a fresh log by --data"
    schema = load_schema(workdir)
    # Labels may be missing in other rows than those of training.
    if dataclasses.replace(store.schema, label_dtype=schema.label_dtype) != schema:
        raise UserError(
            f"store {store.path}: its schema (columns, sizes, scaling) is not that of the model in "
            f"{workdir}; {advice}"
        )
    kept, theirs = check_kept_vocabulary(workdir), store.path / VOCABULARY
    if file_checksum(theirs) != file_checksum(kept) and not same_vocabulary(kept, theirs, schema):
        raise UserError(
            f"store {store.path}: its vocabulary is not that of the model in {workdir}: the same "
            f"ids stand for other values; {advice}"
        )


def open_store(config: Config, moved: str | Path | None = None) -> Store:
    """The data of a run.

    Args:
      config: The run's.
      moved: Where the data is now, if not where the config says.

    Raises:
      UserError: it is not there.
    """
    path = Path(moved or config["data"]["store"])
    if moved is None and not path.exists():
        raise UserError(
            f"{path}: the data that the run was trained on is not there; if it has moved, name its "
            "folder by --store (`store=` in Python)"
        )
    return Store.open(path)


_NEEDED = ("data.store", "model.name", "train.batch_size", "objective", "normaliser", "sampler")


def load_config(workdir: Path) -> Config:
    """The config that a run was begun with.

    Raises:
      UserError: the folder holds no run, or the config is damaged.
    """
    config = _read_json(workdir, "config.json")
    for key in _NEEDED:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            raise UserError(
                f"{workdir / 'config.json'}: damaged, it has no {key!r}; put the file back as "
                "training wrote it"
            )
    check_config(config, f"{workdir / 'config.json'}: ")
    return config


def load_schema(workdir: Path) -> Schema:
    """The schema that a run reads.

    Raises:
      UserError: the folder holds no run, or the schema is damaged.
    """
    values = _read_json(workdir, "schema.json")
    try:
        return Schema.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{workdir / 'schema.json'}: damaged, not as training wrote it "
            f"({type(error).__name__}: {error}); put the file back"
        ) from error


def _read_json(workdir: Path, name: str) -> dict[str, Any]:
    path = workdir / name
    try:
        values = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"--workdir {workdir}: no run is there (no {name}); train one with `hyperrec train`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged, it holds {type(values).__name__}, not an object")
    return values


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
