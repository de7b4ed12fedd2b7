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
from hyperrec_jax.serving.predictor import Predictor, Scored
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
    service = _Service(predictor, limits or Limits(), policies, requests)
    return Starlette(
        routes=[
            Route("/predict", service.predict, methods=["POST"]),
            Route("/healthz", service.healthz),
            Route("/metrics", service.metrics),
        ],
        lifespan=service.lifespan,
    )


class _Service:
    """A model behind the routes of the application; for the arguments see `create_app`."""

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        policies: WatchedPolicy | None,
        requests: RequestLog | None,
    ):
        self._predictor, self._limits = predictor, limits
        self._policies, self._requests = policies, requests
        self._preprocess = predictor.preprocess
        self._columns = list(self._preprocess.column_types())
        self._several = self._preprocess.several()
        self._varied = bool(variety_goals(self._preprocess.schema))
        self._bodies = BodyReader(limits.body_mib << 20, limits.body_seconds)
        self._in_flight = 0  # requests without an answer yet
        self._received = 0  # those of them whose body is here
        self._measures = Measures(self._preprocess.schema)
        self._measures.body_bytes.set_function(lambda: self._bodies.held)
        self._measures.in_flight.set_function(lambda: self._in_flight)
        # A pool of its own, so that large bodies never keep the model waiting for a thread.
        self._decoders = ThreadPoolExecutor(DECODING_THREADS, "hyperrec-decode")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Warms the model up; runs what runs beside the requests."""
        await asyncio.to_thread(_warm_up, self._predictor)
        measures, policies, requests = self._measures, self._policies, self._requests
        batcher = app.state.batcher = Batcher(self._predictor, measures.batch_rows.observe)
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
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def predict(self, request: Request) -> Response:
        """The answer to a request, or its refusal; counts and times it."""
        # Where the server says when the head arrived, what the request waited for since counts.
        start = getattr(request.state, "arrived", None) or time.perf_counter()
        self._in_flight += 1
        try:
            response = await self._answer(request)
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
            self._in_flight -= 1
        self._measures.requests.labels(response.status_code).inc()
        self._measures.seconds.observe(time.perf_counter() - start)
        return response

    async def healthz(self, request: Request) -> Response:
        """What is served, and whether the server still takes requests."""
        stopping = getattr(request.app.state, "stopping", False)
        return JSONResponse(
            {
                "status": "stopping" if stopping else "ok",
                "tasks": self._predictor.tasks,
                "columns": self._columns,
                "takes_preference": self._predictor.conditioned,
                "version": self._predictor.versions["hyperrec_jax"],
                "model": self._predictor.identity,
                "policy": self._policies and self._policies.current.version,
            },
            503 if stopping else 200,
        )

    async def metrics(self, request: Request) -> Response:
        """The measures for Prometheus."""
        return Response(self._measures.text(), media_type=CONTENT_TYPE_LATEST)

    async def _answer(self, request: Request) -> Response:
        # Slow uploads count by their bytes and their time only: they keep nobody else out.
        body = await self._bodies.read(request)
        self._received += 1
        try:
            if self._received > self._limits.max_in_flight:
                raise Refused(503, "too many requests are being served; try again in a second")
            rows, wish = await self._decoded(body)
            preference, policy = _decided(wish, request, self._predictor, self._policies)
            scores = await request.app.state.batcher.score(rows, preference)
        finally:
            self._received -= 1
            self._bodies.release(body)
        require_finite(scores.probabilities, "rows")
        if scores.score is not None:
            require_finite(scores.score[:, None], "rows")
            if self._varied:  # the rows of a request are one list
                score = self._predictor.in_lists(scores.score, rows, preference)
                scores = scores._replace(score=score)
        self._measures.scored(rows)
        if self._requests and self._requests.taken():
            now, segment = datetime.now(UTC), request.query_params.get("segment")
            logged = Logged(now, segment, policy, preference, rows, scores)
            if not self._requests.add(logged):
                self._measures.requests_logged(False, 1)
        return _scored(self._predictor.tasks, scores, policy)

    async def _decoded(self, body: bytearray) -> tuple[Encoded, Any]:
        try:
            if len(body) <= SMALL_BODY_BYTES:
                return self._decode(body)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, self._decode, body)
        finally:
            self._bodies.release(body)

    def _decode(self, body: bytearray) -> tuple[Encoded, Any]:
        """The rows of a body and the preference that it asks for."""
        most = self._limits.max_rows
        quick = decode_quickly(body, most) if self._preprocess.has_quick else None
        if quick is not None:
            encoded = self._preprocess.look_up(quick[0])
            if encoded is not None:
                return encoded, quick[1]
        rows, preference = decode_request(body, self._columns, most, self._several)
        return self._preprocess.exact(rows), preference


def _scored(tasks: tuple[str, ...], scores: Scored, policy: dict[str, Any] | None) -> Response:
    """The answer of a request whose rows are scored; they are one list."""
    result: dict[str, Any] = {
        "tasks": tasks,
        "scores": np.ascontiguousarray(scores.probabilities),
    }
    if scores.score is not None:
        order = np.argsort(-scores.score, kind="stable")
        result |= {"score": np.ascontiguousarray(scores.score), "order": order}
    if policy is not None:
        result["policy"] = policy
    content = orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


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
