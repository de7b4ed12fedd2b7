"""The HTTP application of `hyperrec serve`: requests, refusals, answers."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.varied import variety_goals
from hyperrec_jax.serving.batching import Batcher
from hyperrec_jax.serving.bodies import BodyReader
from hyperrec_jax.serving.buckets import ROW_BUCKETS
from hyperrec_jax.serving.decoding import decode_quickly, decode_request
from hyperrec_jax.serving.encoded import Encoded
from hyperrec_jax.serving.finite import require_finite
from hyperrec_jax.serving.limits import Limits
from hyperrec_jax.serving.measures import Measures
from hyperrec_jax.serving.policy_watch import WatchedPolicy
from hyperrec_jax.serving.predictor import Predictor
from hyperrec_jax.serving.refusal import Refused
from hyperrec_jax.serving.request_log import Logged, RequestLog

SMALL_BODY_BYTES = 1 << 16
"""A body up to this size is decoded where it was read; a larger one in a thread of its own."""
DECODING_THREADS = 2
LOOP_TICK_SECONDS = 0.1

_LOGGER = logging.getLogger(__name__)


def create_app(
    predictor: Predictor,
    limits: Limits | None = None,
    policies: WatchedPolicy | None = None,
    requests: RequestLog | None = None,
) -> Starlette:
    """The application, for any ASGI server.

    Args:
      predictor: A model.
      limits: What the server takes; None for the defaults.
      policies: What chooses the preference of a request; None leaves it to the request alone.
      requests: What keeps a sample of the requests and their answers, if any.
    """
    limits = limits or Limits()
    measures = Measures(predictor.preprocess.schema)
    bodies = BodyReader(limits.body_mib << 20, limits.body_seconds)
    measures.body_bytes.set_function(lambda: bodies.held)
    preprocess = predictor.preprocess
    varied = bool(variety_goals(preprocess.schema))
    columns, several = list(preprocess.column_types()), preprocess.several()
    in_flight = 0  # requests without an answer yet
    received = 0  # those of them whose body is here
    measures.in_flight.set_function(lambda: in_flight)
    # A pool of its own, so that large bodies never keep the model waiting for a thread.
    decoders = ThreadPoolExecutor(DECODING_THREADS, "hyperrec-decode")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(_warm_up, predictor)
        batcher = app.state.batcher = Batcher(predictor, measures.batch_rows.observe)
        measures.rows_waiting.set_function(lambda: batcher.queued)
        works = [batcher.run(), _watch_loop(measures)]
        works += [policies.watch(measures.policy_read)] if policies else []
        works += [requests.run(measures.requests_logged)] if requests else []
        tasks = [asyncio.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()
        if requests:
            await requests.flush(measures.requests_logged)
        decoders.shutdown(wait=False, cancel_futures=True)

    def decode(body: bytearray) -> tuple[Encoded, Any]:
        quick = decode_quickly(body, limits.max_rows) if preprocess.has_quick else None
        if quick is not None:
            encoded = preprocess.look_up(quick[0])
            if encoded is not None:
                return encoded, quick[1]
        rows, preference = decode_request(body, columns, limits.max_rows, several)
        return preprocess.exact(rows), preference

    async def decoded(body: bytearray) -> tuple[Encoded, Any]:
        try:
            if len(body) <= SMALL_BODY_BYTES:
                return decode(body)
            return await asyncio.get_running_loop().run_in_executor(decoders, decode, body)
        finally:
            bodies.release(body)

    async def answer(request: Request) -> Response:
        nonlocal received
        # Slow uploads count by their bytes and their time only: they keep nobody else out.
        body = await bodies.read(request)
        received += 1
        try:
            if received > limits.max_in_flight:
                raise Refused(503, "too many requests are being served; try again in a second")
            rows, wish = await decoded(body)
            preference, policy = _decided(wish, request, predictor, policies)
            scores = await request.app.state.batcher.score(rows, preference)
        finally:
            received -= 1
            bodies.release(body)
        require_finite(scores.probabilities, "rows")
        if scores.score is not None:
            require_finite(scores.score[:, None], "rows")
            if varied:  # the rows of a request are one list
                score = predictor.in_lists(scores.score, rows, preference)
                scores = scores._replace(score=score)
        measures.scored(rows)
        if requests and requests.taken():
            now, segment = datetime.now(UTC), request.query_params.get("segment")
            if not requests.add(Logged(now, segment, policy, preference, rows, scores)):
                measures.requests_logged(False, 1)
        result = {"tasks": predictor.tasks, "scores": np.ascontiguousarray(scores.probabilities)}
        if scores.score is not None:
            order = np.argsort(-scores.score, kind="stable")
            result |= {"score": np.ascontiguousarray(scores.score), "order": order}
        if policy is not None:
            result["policy"] = policy
        content = orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(content, media_type="application/json")

    async def predict(request: Request) -> Response:
        nonlocal in_flight
        # Where the server says when the head arrived, what the request waited for since counts.
        start = getattr(request.state, "arrived", None) or time.perf_counter()
        in_flight += 1
        try:
            response = await answer(request)
        except Refused as refusal:
            response = _refusal(refusal.status, str(refusal), refusal.close)
        except UserError as error:
            response = _refusal(400, str(error))
        except asyncio.CancelledError:  # the limit of a graceful end
            response = _refusal(503, "the server is stopping; send the request again", True)
        except Exception:
            _LOGGER.exception("POST /predict failed")
            response = _refusal(500, "the server failed to answer; its log says why")
        finally:
            in_flight -= 1
        measures.requests.labels(response.status_code).inc()
        measures.seconds.observe(time.perf_counter() - start)
        return response

    async def healthz(request: Request) -> Response:
        stopping = getattr(request.app.state, "stopping", False)
        return JSONResponse(
            {
                "status": "stopping" if stopping else "ok",
                "tasks": predictor.tasks,
                "columns": columns,
                "takes_preference": predictor.conditioned,
                "version": predictor.versions["hyperrec_jax"],
                "model": predictor.identity,
                "policy": policies and policies.current.version,
            },
            503 if stopping else 200,
        )

    async def metrics(request: Request) -> Response:
        return Response(measures.text(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
    )


def _refusal(status: int, why: str, close: bool = False) -> Response:
    headers = {"Connection": "close"} if close else {}
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse({"error": why}, status, headers)


async def _watch_loop(measures: Measures) -> None:
    """Measures how late the event loop is, as long as it runs."""
    while True:
        due = time.perf_counter() + LOOP_TICK_SECONDS
        await asyncio.sleep(LOOP_TICK_SECONDS)
        measures.loop_seconds.observe(max(0.0, time.perf_counter() - due))


def _warm_up(predictor: Predictor) -> None:
    """Builds the tables of values, and compiles the model for every number of rows that will
    occur."""
    if predictor.preprocess.has_quick:
        _ = predictor.preprocess.quick
    for rows in ROW_BUCKETS:
        predictor.score_each(
            Encoded.zeros(predictor.preprocess.schema, rows),
            np.repeat(predictor.weights(None)[None], rows, axis=0),
        )


def _decided(
    wish: Any, request: Request, predictor: Predictor, policies: WatchedPolicy | None
) -> tuple[np.ndarray, dict[str, Any] | None]:
    """The weights for a request, and what its answer says of the policy that chose them."""
    segment, unit = (request.query_params.get(name) for name in ("segment", "unit"))
    if policies is None:
        for name, value in (("segment", segment), ("unit", unit)):
            if value is not None:
                raise Refused(400, f"{name}: the server has no policy that tells {name}s apart")
        return _preference(wish, predictor), None
    policy = policies.current  # once: it may be replaced meanwhile
    asked = wish if wish is None or isinstance(wish, str) else _preference(wish, predictor)
    decision = policy.decide(asked, segment, unit=unit)
    return decision.weights, policy.told(decision, predictor.identity)


def _preference(value: Any, predictor: Predictor) -> np.ndarray:
    """The preference `[goal]` of a request."""
    if isinstance(value, dict):
        if set(value) != set(predictor.tasks):
            raise Refused(400, f"preference: give a weight for each of {predictor.tasks}")
        value = [value[task] for task in predictor.tasks]
    if isinstance(value, list) and any(
        not isinstance(weight, int | float) or isinstance(weight, bool) for weight in value
    ):
        raise Refused(400, "preference: weights are numbers")
    return predictor.weights(value)
