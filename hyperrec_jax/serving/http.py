"""The HTTP application of `hyperrec serve`: micro-batches, validation, metrics."""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.predictor import ROW_BUCKETS, Predictor
from hyperrec_jax.serving.preprocess import Encoded

MAX_BODY_BYTES = 8 << 20
MAX_QUEUED_ROWS = 1 << 16


class _Refused(Exception):  # noqa: N818 - an answer, no error
    """A request that is not served; `args` are the HTTP status and why."""


@dataclasses.dataclass(frozen=True)
class _Job:
    rows: Encoded
    preferences: np.ndarray
    scores: asyncio.Future[np.ndarray]


class Batcher:
    """Scores the jobs of many requests in one call of the model, one call at a time."""

    def __init__(self, predictor: Predictor, batch_rows: Histogram) -> None:
        self._predictor = predictor
        self._batch_rows = batch_rows
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._queued = 0

    async def score(self, rows: Encoded, preference: np.ndarray) -> np.ndarray:
        """Probabilities `[row, task]` under one preference `[task]`."""
        if self._queued + len(rows) > MAX_QUEUED_ROWS:
            raise _Refused(503, "too many rows are waiting; try again in a second")
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        preferences = np.repeat(preference[None], len(rows), axis=0)
        self._queued += len(rows)
        self._jobs.put_nowait(_Job(rows, preferences, future))
        return await future

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            jobs = [await self._jobs.get()]
            rows = len(jobs[0].rows)
            while not self._jobs.empty() and rows < ROW_BUCKETS[-1]:
                jobs.append(self._jobs.get_nowait())
                rows += len(jobs[-1].rows)
            self._queued -= rows
            self._batch_rows.observe(rows)
            try:
                # In a thread, so that requests are read and answered meanwhile.
                scores = await asyncio.to_thread(self._score, jobs)
            except Exception as error:  # told to those who wait; the next are served
                for job in jobs:
                    if not job.scores.done():
                        job.scores.set_exception(error)
                continue
            start = 0
            for job in jobs:
                stop = start + len(job.rows)
                if not job.scores.done():  # a client that left cancels its future
                    job.scores.set_result(scores[start:stop])
                start = stop

    def _score(self, jobs: Sequence[_Job]) -> np.ndarray:
        encoded = Encoded(
            np.concatenate([job.rows.categorical for job in jobs]),
            np.concatenate([job.rows.numerical for job in jobs]),
        )
        return self._predictor.predict_each(
            encoded, np.concatenate([job.preferences for job in jobs])
        )


def create_app(predictor: Predictor, max_rows: int = 1024) -> Starlette:
    """The application, for any ASGI server.

    Args:
      predictor: A model.
      max_rows: Rows that one request may hold.
    """
    registry = CollectorRegistry()
    requests = Counter("hyperrec_requests", "Requests to /predict", ["status"], registry=registry)
    scored = Counter("hyperrec_rows", "Rows scored", registry=registry)
    seconds = Histogram("hyperrec_request_seconds", "Time to answer", registry=registry)
    batch_rows = Histogram(
        "hyperrec_batch_rows", "Rows a call of the model", buckets=ROW_BUCKETS, registry=registry
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(_warm_up, predictor)
        app.state.batcher = Batcher(predictor, batch_rows)
        worker = asyncio.create_task(app.state.batcher.run())
        yield
        worker.cancel()

    async def predict(request: Request) -> Response:
        start = time.perf_counter()
        try:
            rows, preference = _parse(await _body(request), predictor, max_rows)
            scores = await request.app.state.batcher.score(rows, preference)
            scored.inc(len(scores))
            response = JSONResponse({"tasks": predictor.tasks, "scores": scores.tolist()})
        except _Refused as refusal:
            status, why = refusal.args
            response = JSONResponse({"error": why}, status)
        except UserError as error:
            response = JSONResponse({"error": str(error)}, 422)
        requests.labels(response.status_code).inc()
        seconds.observe(time.perf_counter() - start)
        return response

    async def healthz(request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "tasks": predictor.tasks,
                "columns": list(predictor.preprocess.column_types()),
                "takes_preference": predictor.conditioned,
                "version": predictor.versions["hyperrec_jax"],
            }
        )

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
    )


def _warm_up(predictor: Predictor) -> None:
    """Compiles the model for every number of rows that will occur."""
    schema = predictor.preprocess.schema
    for rows in ROW_BUCKETS:
        predictor.predict_each(
            Encoded(
                np.zeros((rows, len(schema.categorical)), np.int32),
                np.zeros((rows, schema.num_numerical), np.float32),
            ),
            np.repeat(predictor.rays(None)[None], rows, axis=0),
        )


async def _body(request: Request) -> bytes:
    body, size = bytearray(), 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            # Beyond the limit it is read all the same, but not kept: a client that is cut off
            # while it sends mostly never reads the answer.
            if size <= MAX_BODY_BYTES:
                body += chunk
    except ClientDisconnect:
        raise _Refused(400, "the client left before the end of the body") from None
    if size > MAX_BODY_BYTES:
        raise _Refused(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(body)


def _parse(body: bytes, predictor: Predictor, max_rows: int) -> tuple[Encoded, np.ndarray]:
    """The encoded rows and the preference `[task]` of a request."""
    try:
        values: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused(400, "the body is not JSON") from None
    if not isinstance(values, dict) or not isinstance(values.get("rows"), list):
        raise _Refused(422, 'the body must be {"rows": [{...}, ...], "preference": [...]}')
    unknown = sorted(values.keys() - {"rows", "preference"})
    if unknown:
        raise _Refused(422, f"unknown key {unknown[0]!r}; there are rows and preference")
    if not values["rows"]:
        raise _Refused(422, "rows: empty; give at least one")
    if len(values["rows"]) > max_rows:
        raise _Refused(413, f"rows: {len(values['rows'])}, and a request may have {max_rows}")
    return predictor.preprocess(values["rows"]), _preference(values.get("preference"), predictor)


def _preference(value: Any, predictor: Predictor) -> np.ndarray:
    if isinstance(value, dict):
        if set(value) != set(predictor.tasks):
            raise _Refused(422, f"preference: give a weight for each of {predictor.tasks}")
        value = [value[task] for task in predictor.tasks]
    if isinstance(value, list) and any(isinstance(weight, bool | list | str) for weight in value):
        raise _Refused(422, "preference: weights are numbers")
    return predictor.rays(value)
