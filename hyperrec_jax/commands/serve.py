"""Serves an exported model over HTTP: `hyperrec serve --model DIR`.

    POST /predict   {"rows": [{"item": "a", ...}, ...], "preference": [0.3, 0.7]}
                    -> {"tasks": ["click", "buy"], "scores": [[0.1, 0.02], ...]}
                    the preference may also name its goals, {"click": 0.3, "buy": 0.7}, and be left
                    out for equal weights; it may differ from request to request
                    with --policy also {"policy": {"version": ..., "preference": ...}}; then the
                    preference may be a name of the policy, and ?segment=app says whom it is for
    GET /healthz    {"status": "ok", ...} once the model is compiled
    GET /metrics    for Prometheus

Requests that arrive while the model is busy are scored together in its next call, each row under
its own preference: nothing waits for a batch to fill. Bad input is answered with 4xx and one line.
SIGTERM and Ctrl-C end it after a drain period and the requests that are under way; a second one
ends it at once.
Only this machine reaches it unless --host says otherwise; put a proxy with TLS before it then.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError, needs_extra
from hyperrec_jax.serving.limits import Limits


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no model, the port is taken, a limit is out of its range, or the extra
        `serve` is not installed.
    """
    default = Limits()
    parser = cli.new_parser("serve", __doc__, imports=True)

    def option(name: str, default: object, text: str) -> None:
        parser.add_argument(
            name, type=type(default), default=default, help=f"{text} (default: %(default)s)"
        )

    parser.add_argument(
        "--model", type=Path, required=True, help="folder of an exported model, or of a run"
    )
    parser.add_argument(
        "--policy",
        type=Path,
        help="policy.yaml that chooses preferences; read again whenever it changes",
    )
    parser.add_argument(
        "--request-log", type=Path, help="folder for a sample of requests and answers, in Parquet"
    )
    parser.add_argument(
        "--sample", type=float, help="share of requests that --request-log takes (default: 0.1)"
    )
    option("--host", "127.0.0.1", "address, of IPv4 or IPv6")
    option("--port", 8000, "port; 0: a free one")
    option("--max-rows", default.max_rows, "rows that a request may hold")
    option("--max-in-flight", default.max_in_flight, "requests that are served at a time")
    option("--body-seconds", default.body_seconds, "time in which a body must have arrived")
    option("--body-mib", default.body_mib, "MiB that all bodies may hold together")
    option(
        "--drain-seconds",
        default.drain_seconds,
        "after SIGTERM or Ctrl-C, time in which new requests are still answered",
    )
    option(
        "--graceful-seconds",
        default.graceful_seconds,
        "after that, time in which requests that are under way may finish",
    )
    arguments = parser.parse_args(argv)
    limits = Limits(
        **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Limits)}
    )
    if arguments.sample is not None and not arguments.request_log:
        raise UserError("--sample: goes with --request-log, which takes the sample")
    with needs_extra("serve"):
        from hyperrec_jax.serving.http import create_app
        from hyperrec_jax.serving.listen import bind, listen
    from hyperrec_jax.api.load import load_predictor
    from hyperrec_jax.serving.policy_watch import WatchedPolicy
    from hyperrec_jax.serving.request_log import RequestLog

    with bind(arguments.host, arguments.port) as listener:
        predictor, policies = load_predictor(arguments.model), None
        if arguments.policy:
            predictor.require_preference("--policy")
            policies = WatchedPolicy(arguments.policy, predictor.tasks)
        requests = None
        if arguments.request_log:
            share = 0.1 if arguments.sample is None else arguments.sample
            schema = predictor.preprocess.schema
            requests = RequestLog(arguments.request_log, share, schema, predictor.identity)
        app = create_app(predictor, limits, policies, requests)
        listen(app, listener, f"{arguments.model} on", limits)
    return 0
