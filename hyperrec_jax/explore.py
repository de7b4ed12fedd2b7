"""A page with a slider a task: `python -m hyperrec_jax.explore --workdir DIR`.

Metrics and the list of a chosen search follow the sliders; a goal moves them to the preference
that `hyperrec_jax.suggest` picks. Only this machine reaches the page.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax import cli
from hyperrec_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no model or data, the model takes no preference, the port is taken, or
        the extra `serve` is not installed.
    """
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m hyperrec_jax.explore",
        description=f"{summary.partition(':')[0]}. {rest}",
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--store", type=Path, help="data, if it has moved since training")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument(
        "--rows", type=int, default=10_000, help="rows of the sample (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8001, help="0: a free one (default: 8001)")
    arguments = parser.parse_args(argv)
    try:
        from hyperrec_jax.serving.explore_page import create_app
        from hyperrec_jax.serving.listen import bind, listen
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: python -m pip install 'hyperrec-jax[serve]'"
        ) from error
    from hyperrec_jax import experiment, workdir
    from hyperrec_jax.data.store import Store
    from hyperrec_jax.explorer import Explorer
    from hyperrec_jax.serving.preprocess import Preprocessor

    with bind("127.0.0.1", arguments.port) as listener:
        cli.use_compilation_cache()
        trained = experiment.load(arguments.workdir)
        store = Store.open(arguments.store or Path(trained.config["data"]["store"]))
        preprocess = Preprocessor.open(trained.schema, arguments.workdir / workdir.VOCABULARY)
        explorer = Explorer(trained, preprocess, store, arguments.split, arguments.rows)
        listen(create_app(explorer), listener, f"{arguments.workdir} on")
    return 0


if __name__ == "__main__":
    cli.exit_on_user_error(main)
