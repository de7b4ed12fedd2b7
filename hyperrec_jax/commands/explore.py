"""The page of `report.html`, live: `hyperrec explore --workdir DIR`.

Metrics and a list follow the preference at once, also between the preferences of the grid; points
can be pinned and compared, and the best choice under guards is picked from controls. Only this
machine reaches the page.
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError, needs_extra


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no model or data, neither the model nor its lists take a preference, the
        port is taken, the number of rows is not positive, or the extra `serve` is not installed.
    """
    parser = cli.new_parser("explore", __doc__, imports=True)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="folder that `hyperrec train` wrote"
    )
    parser.add_argument("--store", type=Path, help="data, if it has moved since training")
    parser.add_argument(
        "--split",
        default="validation",
        choices=("validation", "test"),
        help="rows to look at (default: %(default)s)",
    )
    parser.add_argument(
        "--rows", type=int, default=10_000, help="rows of the sample (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8001, help="port; 0: a free one (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    if arguments.rows < 1:
        raise UserError(f"--rows {arguments.rows}: give 1 or more")
    with needs_extra("serve"):
        from hyperrec_jax.serving.explorer.app import create_app
        from hyperrec_jax.serving.listen import bind, listen
    from hyperrec_jax.data.store import Store
    from hyperrec_jax.serving.explorer.answers import Explorer
    from hyperrec_jax.serving.limits import Limits
    from hyperrec_jax.training.trained import load_trained

    with bind("127.0.0.1", arguments.port) as listener:
        trained = load_trained(arguments.workdir)
        store = Store.open(arguments.store or Path(trained.config["data"]["store"]))
        explorer = Explorer(trained, store, arguments.split, arguments.rows)
        # A page for one: nobody balances load between several, so nothing is drained.
        limits = Limits(drain_seconds=0)
        listen(create_app(explorer), listener, f"{arguments.workdir} on", limits)
    return 0
