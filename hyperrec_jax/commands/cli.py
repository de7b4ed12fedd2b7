"""What all command lines share: help, one-line errors, exit codes, quiet libraries, overrides."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hyperrec_jax.config.files import load_parts
from hyperrec_jax.config.overrides import split_overrides
from hyperrec_jax.errors import Preempted, UserError
from hyperrec_jax.exit import EXIT_CODES, one_line_errors

_IMPORT = "Python file or module that registers a model, an objective or the like; may be repeated."


class _Import(argparse.Action):
    """Loads a file or module as soon as it is read."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        load_parts(values)


def new_parser(
    command: str, documentation: str | None, *, imports: bool = False
) -> argparse.ArgumentParser:
    """A parser whose `--help` is a module's docstring, without the command in its first line.

    Args:
      command: Its name after `hyperrec`.
      documentation: Its docstring.
      imports: Whether it takes `--import`.
    """
    summary, _, rest = (documentation or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=f"hyperrec {command}",
        description=f"{summary.partition(':')[0]}.\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if imports:
        add_import(parser)
    return parser


def add_import(parser: argparse.ArgumentParser) -> None:
    """Adds `--import`, which loads what it names as soon as it is read."""
    parser.add_argument("--import", action=_Import, metavar="FILE", help=_IMPORT)


def add_dialect(parser: argparse.ArgumentParser) -> None:
    """Adds `--separator` and `--encoding` of a CSV input; `make_dialect` reads them."""
    parser.add_argument(
        "--separator", default=",", help="of a CSV input, such as ';' or '\\t' (default: a comma)"
    )
    parser.add_argument(
        "--encoding",
        default="utf-8",
        help="of a CSV input, such as utf-16 or latin-1 (default: %(default)s)",
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
    reported, and C code that imports a module turns it into an ImportError. The signal is sent
    again then.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            later(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Preempted("stopped; run the same command again to go on")

    def later(number: int) -> None:
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()

    def again(unraisable: Any) -> None:
        number = {KeyboardInterrupt: signal.SIGINT, Preempted: signal.SIGTERM}.get(
            unraisable.exc_type
        )
        if number is None:
            former_hook(unraisable)
        else:  # a little later, since this, too, is where exceptions are ignored
            later(number)

    former_hook, sys.unraisablehook = sys.unraisablehook, again
    former = {signal.SIGTERM: signal.signal(signal.SIGTERM, on_signal)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        former[signal.SIGINT] = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        sys.unraisablehook = former_hook


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported at a point of the program."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


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


def parse_flags(
    values: Any, argv: Sequence[str] | None, documentation: str | None
) -> dict[str, str]:
    """Parses the absl flags of a command; `--help` prints them and ends the process.

    Args:
      values: The command's own `absl.flags.FlagValues`.
      argv: The command line without the command; by default that of the process.
      documentation: The command's docstring, for `--help`.

    Returns:
      The overrides of the config, `--config.KEY=VALUE` and `--set KEY=VALUE`, as text by key.

    Raises:
      UserError: a flag does not exist, or has a bad value.
    """
    from absl import flags

    flags.DEFINE_multi_string("import", [], _IMPORT, flag_values=values)
    given, overrides = split_overrides(sys.argv[1:] if argv is None else list(argv))
    if any(argument in ("-h", "--help", "-help", "--helpfull") for argument in given):
        print(f"{documentation}\nflags:\n{values.get_help(prefix='  ')}")
        sys.exit(0)
    try:
        rest = values([sys.argv[0], *given])[1:]
    except (flags.Error, ValueError, OSError) as error:
        raise UserError(f"command line: {' '.join(str(error).split())}") from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; options begin with --, see --help")
    return overrides


def import_parts(values: Any) -> None:
    """Loads what the flag `--import` names, in commands whose flags are absl's.

    Raises:
      UserError: a file or module can't be loaded.
    """
    for name in values["import"].value:
        load_parts(name)
