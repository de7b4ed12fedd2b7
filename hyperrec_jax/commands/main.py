"""The console script `hyperrec`: finds the command and runs it.

Only the chosen command's module is loaded, so that `hyperrec --help` answers at once.
"""

import importlib
import sys
from collections.abc import Sequence

from hyperrec_jax import __version__
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.exit import one_line_errors

COMMANDS = {
    "prepare": ("prepare", "turn logs into a store that training reads"),
    "train": ("train", "train one model for all preferences"),
    "evaluate": ("evaluate", "score a grid of preferences and write the front and a report"),
    "predict": ("predict", "score a file of raw rows under one or more preferences"),
    "rank": ("rank", "order the rows of a file within their lists under a preference"),
    "retrieve": ("retrieve", "find the best items of a catalogue for each user"),
    "suggest": ("suggest", "pick the preference of a front that serves a wish best"),
    "monitor": ("monitor", "tell drift from noise on a fresh log"),
    "policy": ("policy", "check a policy, or say what a new one changes"),
    "explore": ("explore", "open a page with a slider for each goal"),
    "export": ("export", "write a model that serves without the training code"),
    "serve": ("serve", "answer HTTP requests with an exported model"),
    "tune": ("tune", "search options with Optuna"),
    "options": ("options", "list the options of a config with defaults and meanings"),
    "import": ("import_torch", "make a run from a checkpoint of the PyTorch original"),
}
"""The module below `hyperrec_jax.commands` and one line of help, by command."""


def usage() -> str:
    """What `hyperrec --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hyperrec COMMAND [options]",
            "",
            "Preference-conditioned multi-task recommendation: one model for every trade-off.",
            "",
            "commands:",
            *lines,
            "",
            "`hyperrec COMMAND --help` lists the options of a command.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hyperrec`.

    Args:
      argv: The command and its options; by default those of the process.

    Returns:
      0, where only help was asked for; a command ends the process with its exit code, which
      `hyperrec_jax.exit.EXIT_CODES` explains.
    """
    command, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if command in ("-h", "--help", "help", "--version"):
        with one_line_errors():
            print(f"hyperrec {__version__}" if command == "--version" else usage(), flush=True)
        return 0
    # Here and not at the top: the list of commands needs none of it.
    from hyperrec_jax.commands import cli

    def run() -> int:
        if command not in COMMANDS:
            raise UserError(f"no command {command!r}; {suggestion(command, COMMANDS)}")
        module = importlib.import_module(f"hyperrec_jax.commands.{COMMANDS[command][0]}")
        return module.main(arguments)

    return cli.exit_on_user_error(run)
