"""Serves an exported model over HTTP: `hyperrec serve --model DIR`.

    POST /predict   {"rows": [{"item": "a", ...}, ...], "preference": [0.3, 0.7]}
                    -> {"tasks": ["click", "buy"], "scores": [[0.1, 0.02], ...]}
                    the preference may also name its tasks, {"click": 0.3, "buy": 0.7}, and be left
                    out for equal weights; it may differ from request to request
    GET /healthz    {"status": "ok", ...} once the model is compiled
    GET /metrics    for Prometheus

Requests that arrive while the model is busy are scored together in its next call, each row under
its own preference: nothing waits for a batch to fill. Bad input is answered with 4xx and one line.
Only this machine reaches it unless --host says otherwise; put a proxy with TLS before it then.
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no model, the port is taken, or the extra `serve` is not installed.
    """
    parser = cli.new_parser("serve", __doc__)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of an exported model, or of a run"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port; 0: a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--max-rows", type=int, default=1024, help="rows a request may hold (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    with cli.needs_extra("serve"):
        from hyperrec_jax.serving.http import create_app
        from hyperrec_jax.serving.listen import bind, listen
    from hyperrec_jax.api.load import load_predictor as load

    with bind(arguments.host, arguments.port) as listener:
        app = create_app(load(arguments.model), arguments.max_rows)
        listen(app, listener, f"{arguments.model} on")
    return 0


if __name__ == "__main__":
    cli.exit_on_user_error(main)
