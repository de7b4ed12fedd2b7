"""A sample of the requests and their answers, in Parquet files that are only ever added.

Each request is taken or not by chance alone, so that a mean over the log, weighted by
`1 / sample`, estimates that over all requests.
"""

import asyncio
import dataclasses
import datetime
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyperrec_jax.data.files import written_whole
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.predictor import Scored
from hyperrec_jax.serving.preprocess import Encoded

SECONDS = 10.0
"""How often what was taken is written."""
MOST_ROWS = 1 << 18
"""Rows that may wait to be written; a request beyond them is not taken, and counted as lost."""

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Logged:
    """A request and its answer.

    Attributes:
      time: When it was answered.
      segment: Whom it was for, if it said so.
      policy: What its answer says of the policy; None without one.
      weights: The preference that it was answered under, `[goal]`.
      rows: Its rows, as the model reads them.
      scores: Its answer.
    """

    time: datetime.datetime
    segment: str | None
    policy: dict[str, Any] | None
    weights: np.ndarray
    rows: Encoded
    scores: Scored


class RequestLog:
    """Takes a sample of the requests, and writes them a file at a time.

    Attributes:
      folder: Where to.
      sample: The share of requests that is taken.
    """

    def __init__(self, folder: Path, sample: float, schema: Schema, model: str) -> None:
        """Makes the folder.

        Args:
          folder: Where to; files that are there stay as they are.
          sample: The share of requests to take, above 0 and at most 1.
          schema: What the model reads.
          model: What names the model.

        Raises:
          UserError: the share is out of its range, or the folder can't be written.
        """
        if not 0 < sample <= 1:
            raise UserError(f"--sample {sample:g}: give a share above 0 and at most 1")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--request-log {folder}: can't be written ({error.strerror})"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"--request-log {folder}: can't be written; choose another folder")
        self.folder, self.sample = folder, sample
        self._model = model
        self._fields = [field.name for field in schema.categorical]
        self._numbers = [field.name for field in schema.numerical]
        self._goals = schema.tasks
        self._waiting: list[Logged] = []
        self._rows = 0
        self._files = 0
        self._random = random.Random()

    def taken(self) -> bool:
        """Whether the next request belongs to the sample."""
        return self._random.random() < self.sample

    def add(self, request: Logged) -> bool:
        """Keeps a request until the next file; False where too many wait already."""
        if self._rows + len(request.rows) > MOST_ROWS:
            return False
        self._waiting.append(request)
        self._rows += len(request.rows)
        return True

    async def run(self, written: Callable[[bool, int], None]) -> None:
        """Writes every few seconds until it is cancelled.

        Args:
          written: Told whether a file was written, and of how many requests.
        """
        while True:
            await asyncio.sleep(SECONDS)
            await self.flush(written)

    async def flush(self, written: Callable[[bool, int], None]) -> None:
        """Writes what waits; on an error it is lost, with a line in the log."""
        requests, self._waiting, self._rows = self._waiting, [], 0
        if not requests:
            return
        try:
            await asyncio.to_thread(self._write, requests)
        except (OSError, pa.ArrowException) as error:
            _LOGGER.error(
                "%s: %d requests of the log are lost (%s)", self.folder, len(requests), error
            )
            written(False, len(requests))
        else:
            written(True, len(requests))

    def _write(self, requests: list[Logged]) -> None:
        self._files += 1
        name = f"{requests[0].time:%Y%m%dT%H%M%S%f}-{os.getpid()}-{self._files}.parquet"
        with written_whole(self.folder / name) as file:
            pq.write_table(self._table(requests), file)

    def _table(self, requests: list[Logged]) -> pa.Table:
        """One row for each request; its rows are lists."""
        policies = [request.policy or {} for request in requests]
        goals = range(len(self._goals))
        columns: dict[str, Any] = {
            "time": pa.array([r.time for r in requests], pa.timestamp("us", "UTC")),
            "model": pa.array([self._model] * len(requests), pa.string()),
            "sample": pa.array([self.sample] * len(requests), pa.float64()),
            "segment": pa.array([r.segment for r in requests], pa.string()),
        }
        for key in ("version", "preference", "reason"):
            name = key if key == "reason" else f"policy_{key}"
            columns[name] = pa.array([policy.get(key) for policy in policies], pa.string())
        chances = [policy.get("propensity") for policy in policies]
        columns["propensity"] = pa.array(chances, pa.float64())
        for goal in goals:
            weights = [float(r.weights[goal]) for r in requests]
            columns[f"weight/{self._goals[goal]}"] = pa.array(weights, pa.float32())
        for place, field in enumerate(self._fields):
            ids = [r.rows.categorical[:, place] for r in requests]
            columns[f"id/{field}"] = pa.array(ids, pa.list_(pa.int32()))
        for place, field in enumerate(self._numbers):
            numbers = [r.rows.numerical[:, place] for r in requests]
            columns[f"number/{field}"] = pa.array(numbers, pa.list_(pa.float32()))
        for goal in goals:
            found = [r.scores.probabilities[:, goal] for r in requests]
            columns[f"prediction/{self._goals[goal]}"] = pa.array(found, pa.list_(pa.float32()))
        columns["score"] = pa.array([r.scores.score for r in requests], pa.list_(pa.float32()))
        return pa.table(columns)
