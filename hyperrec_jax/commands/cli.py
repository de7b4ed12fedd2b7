"""What all command lines share: help, one-line errors, exit codes, quiet libraries, configs."""

import argparse
import contextlib
import importlib.util
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hyperrec_jax.errors import Preempted, TrainingError, UserError
from hyperrec_jax.training.workdir import flatten

EXIT_CODES = {UserError: 2, TrainingError: 3, Preempted: 75, KeyboardInterrupt: 130}
"""2: the user's mistake; 3: training went wrong; 75: stopped by SIGTERM, run again to go on
(`EX_TEMPFAIL`); 130: stopped by Ctrl-C."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns the exceptions of `EXIT_CODES` into one line on stderr and an exit code."""
    try:
        yield
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (RuntimeError, AssertionError) as error:
        # JAX has no exception of its own for it, and no message where its plugin is missing.
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        wanted = os.environ.get("JAX_PLATFORMS")
        if not wanted or Path(raised_in).name != "xla_bridge.py":
            raise
        print(
            f"error: JAX_PLATFORMS={wanted}: JAX finds no such device here; unset the variable, or "
            "install JAX for that device",
            file=sys.stderr,
        )
        sys.exit(EXIT_CODES[UserError])
    except tuple(EXIT_CODES) as error:
        message = str(error) or "interrupted; run the same command again to go on"
        prefix = "" if isinstance(error, (Preempted, KeyboardInterrupt)) else "error: "
        print(f"{prefix}{message}", file=sys.stderr)
        if os.environ.get("HYPERREC_TRACEBACK"):
            traceback.print_exc()
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports of what an extra of the package installs.

    Raises:
      UserError: the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # By their names: the package itself may have come from a checkout, not from an index.
        needed = [
            text.partition(";")[0].strip()
            for text in metadata.requires("hyperrec-jax") or ()
            if re.search(rf"extra == ['\"]{extra}['\"]", text)
        ]
        packages = " ".join(f"'{package}'" for package in needed)
        raise UserError(
            f"{error.name} is not installed: python -m pip install {packages}"
        ) from error


def new_parser(command: str, documentation: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` is a module's docstring, without the command in its first line.

    Args:
      command: The module below `hyperrec_jax`.
      documentation: Its docstring.
    """
    summary, _, rest = (documentation or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"python -m hyperrec_jax.{command}",
        description=f"{summary.partition(':')[0]}.\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def exit_on_user_error(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command's `main` and exits with its return value, or as `EXIT_CODES` says.

    Libraries are quiet meanwhile, and compiled programs are kept for the next command.
    """
    try:
        with one_line_errors(), _stopped_at_once():
            _quiet_libraries()
            _keep_compiled_programs()
            sys.exit(main())
    except SystemExit as end:
        stopped = end.code in (EXIT_CODES[KeyboardInterrupt], EXIT_CODES[Preempted])
        if stopped and not _one_of_several():
            # The interpreter's own end would take apart what threads of XLA are computing with,
            # and crash: nothing is left to do.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(str(end.code)))
        raise


def _one_of_several() -> bool:
    """Whether other processes train with this one; they part from each other at the end."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


@contextlib.contextmanager
def _stopped_at_once() -> Iterator[None]:
    """SIGTERM raises `Preempted`; neither it nor Ctrl-C is lost where Python ignores exceptions.

    An exception in a callback of the garbage collector (JAX has one) or in a destructor is only
    reported. The signal is sent again then.
    """

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        raise Preempted("stopped; run the same command again to go on")

    def again(unraisable: Any) -> None:
        number = {KeyboardInterrupt: signal.SIGINT, Preempted: signal.SIGTERM}.get(
            unraisable.exc_type
        )
        if number is None:
            former_hook(unraisable)
        else:  # a little later, since this, too, is where exceptions are ignored
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()

    former_hook, sys.unraisablehook = sys.unraisablehook, again
    former = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
        sys.unraisablehook = former_hook


def _quiet_libraries() -> None:
    """Orbax, Grain and JAX tell their settings as warnings; ours go through standard loggers."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with contextlib.suppress(ModuleNotFoundError):  # a serving machine has no Abseil
        from absl import logging as absl_logging

        absl_logging.set_verbosity(absl_logging.FATAL)  # errors are raised, too
    if not sys.warnoptions:  # who asks Python for warnings gets them
        warnings.filterwarnings("ignore", module=r"(flax|grain|jax|orbax)\b")


def _keep_compiled_programs() -> None:
    """In `JAX_COMPILATION_CACHE_DIR`, or else in the user's cache folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(root / "hyperrec_jax")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    if "jax" in sys.modules:  # it has read its environment already
        sys.modules["jax"].config.update("jax_compilation_cache_dir", folder)


def load_config(flag: Any) -> dict[str, Any]:
    """The parsed `--config` flag as a nested dictionary, `--config.preset` included.

    A preset given on the command line lies over the defaults; the file's own values and the other
    command-line overrides lie over it, whatever their order.

    Args:
      flag: The flag object of `ml_collections.config_flags.DEFINE_config_file`.

    Raises:
      UserError: no config is given, it can't be loaded, or the preset does not exist.
    """
    # Here and not at the top: commands without a config do not need the package.
    from ml_collections import config_flags

    if flag.value is None:
        raise UserError("--config is missing; try --config configs/synthetic.py")
    try:
        config = flag.value.copy_and_resolve_references()
    except OSError as error:
        raise UserError(f"--config: {_one_line(error)}") from error
    overrides = config_flags.get_override_values(flag)
    if "preset" in overrides:
        config = _get_config(config_flags.get_config_filename(flag), overrides["preset"])
        config.update_from_flattened_dict(overrides)
    return config.to_dict()


def read_config(
    path: str, preset: str, values: Mapping[str, Any], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """A config file as a nested dictionary, for commands that are not run by absl.

    Args:
      path: The file.
      preset: One of its presets.
      values: Values by dotted key.
      overrides: The user's values over those, `key=value` each, the value in YAML.

    Raises:
      UserError: the file, the preset or a key does not exist, or a value is of the wrong kind.
    """
    import yaml

    if not Path(path).exists():
        raise UserError(f"--config {path}: no such file")
    config = _get_config(path, preset)
    flat: dict[str, Any] = dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: give key=value, such as model.num_experts=8")
        flat[key] = yaml.safe_load(text)
    for key, value in flat.items():
        if key not in flatten(config.to_dict()):
            raise UserError(f"{path}: no config key {key!r}")
        value = tuple(value) if isinstance(value, list) else value
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"--set {key}: {_one_line(error)}") from error
    return config.to_dict()


def config_name(flag: Any) -> str:
    """The name of the config file without folder and ending."""
    from ml_collections import config_flags

    return Path(config_flags.get_config_filename(flag).split(":")[0]).stem


def _get_config(path: str, preset: str) -> Any:
    """Calls the `get_config` of a config file with a preset."""
    spec = importlib.util.spec_from_file_location("config", path.split(":")[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(preset)
    except KeyError as error:
        raise UserError(f"--config.preset={preset}: {path} has no such preset") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def run_absl(main: Callable[[], int | None]) -> NoReturn:
    """Parses absl flags, then runs `main`; bad flags and config keys are one line, exit code 2."""
    from absl import app, flags

    app.define_help_flags()

    def parse_and_run() -> int | None:
        try:
            rest = flags.FLAGS(sys.argv)[1:]
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            # ml_collections raises plain exceptions for unknown keys and unreadable files.
            raise UserError(f"command line: {_one_line(error)}") from error
        if rest:
            raise UserError(f"unexpected argument {rest[0]!r}; options begin with --, see --help")
        return main()

    exit_on_user_error(parse_and_run)
