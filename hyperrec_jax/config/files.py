"""Config files: Python with a function `get_config(preset)`; trusted code."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hyperrec_jax.config.overrides import Config, check_config, overridden
from hyperrec_jax.errors import UserError

DEFAULT = "default"
"""The name that stands for no file: the package's own defaults."""


def load_config(path: str | None, values: Mapping[str, Any]) -> Config:
    """A config file with values laid over it.

    A preset lies over the defaults, the file's own values over the preset, `values` over the file.

    Args:
      path: The file, `FILE.py` or `FILE.py:PRESET`; None or 'default' for the package's defaults.
      values: Values by dotted key, as in `overridden`; `preset` among them chooses the preset.

    Raises:
      UserError: there is no such file or preset, the file fails, or a key or value is not as it
        should be.
    """
    # Here and not at the top: a machine that only serves has no ml_collections.
    from hyperrec_jax.config import defaults

    name, _, preset = (path or DEFAULT).partition(":")
    preset = str(values.get("preset", preset))
    if name == DEFAULT:
        config = defaults.get_config(preset or "default").to_dict()
        return overridden(config, values)
    if not Path(name).is_file():
        raise UserError(f"--config {name}: no such file")
    get_config = getattr(import_file(Path(name), "--config"), "get_config", None)
    if not callable(get_config):
        raise UserError(f"--config {name}: has no function get_config(preset)")
    takes_preset = bool(inspect.signature(get_config).parameters)
    if preset and not takes_preset:
        raise UserError(f"--config {name}: its get_config takes no preset")
    try:
        config = get_config(preset) if preset else get_config()
    except UserError:
        raise
    except Exception as error:  # whatever the file raises
        raise UserError(f"--config {name}: {type(error).__name__}: {_one_line(error)}") from error
    if not hasattr(config, "to_dict"):
        raise UserError(f"--config {name}: get_config returned no ConfigDict")
    loaded = config.to_dict()
    check_config(loaded, f"{name}: ")
    return overridden(loaded, values)


def config_name(path: str | None) -> str:
    """The name of a config file without folder and ending, for the folder of its runs."""
    return Path((path or DEFAULT).partition(":")[0]).stem


def import_file(path: Path, flag: str) -> ModuleType:
    """Runs a Python file as a module; the second time it is the same module.

    Where the file belongs to a package (its folder has an `__init__.py`), it may import the
    package by name, from wherever the command is called.

    Args:
      path: The file.
      flag: Where it was given, for messages.

    Raises:
      UserError: the file does not exist or fails.
    """
    path = path.resolve()
    name = f"_hyperrec_file_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{flag} {path}: no Python file")
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except Exception as error:  # whatever the file raises
        del sys.modules[name]
        raise UserError(f"{flag} {path}: {type(error).__name__}: {_one_line(error)}") from error
    return module


def load_parts(name: str) -> None:
    """Loads a Python file or module that registers models, objectives and the like.

    Args:
      name: A file such as `my_models.py`, or a module that Python finds, such as `shop.models`.

    Raises:
      UserError: it can't be loaded.
    """
    if name.endswith(".py") or "/" in name:
        import_file(Path(name), "--import")
        return
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever the module raises
        raise UserError(f"--import {name}: {type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
