"""How a command ends: one line on stderr and an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from hyperrec_jax.errors import Preempted, TrainingError, UserError

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
