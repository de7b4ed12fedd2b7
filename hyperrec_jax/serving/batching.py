"""Scores the rows of many requests in one call of the model."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from hyperrec_jax.serving.buckets import ROW_BUCKETS
from hyperrec_jax.serving.encoded import Encoded
from hyperrec_jax.serving.limits import MAX_QUEUED_ROWS
from hyperrec_jax.serving.predictor import Predictor, Scored
from hyperrec_jax.serving.refusal import Refused


@dataclasses.dataclass(frozen=True)
class _Job:
    rows: Encoded
    preference: np.ndarray
    scores: asyncio.Future[Scored]


class Batcher:
    """Scores the jobs of many requests in one call of the model, one call at a time.

    Attributes:
      queued: Rows that wait for the next call.
    """

    def __init__(self, predictor: Predictor, observe: Callable[[float], None]) -> None:
        """Made inside of the event loop that it works in.

        Args:
          predictor: The model.
          observe: Told the number of rows of each call.
        """
        self.queued = 0
        self._predictor = predictor
        self._observe = observe
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()

    async def score(self, rows: Encoded, preference: np.ndarray) -> Scored:
        """Predictions `[row, task]` and list scores `[row]` under one preference `[task]`.

        Raises:
          Refused: too many rows are waiting.
        """
        if self.queued + len(rows) > MAX_QUEUED_ROWS:
            raise Refused(503, "too many rows are waiting; try again in a second")
        future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self.queued += len(rows)
        self._jobs.put_nowait(_Job(rows, preference, future))
        return await future

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            jobs = [await self._jobs.get()]
            rows = len(jobs[0].rows)
            while not self._jobs.empty() and rows < ROW_BUCKETS[-1]:
                jobs.append(self._jobs.get_nowait())
                rows += len(jobs[-1].rows)
            self.queued -= rows
            self._observe(rows)
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
                if not job.scores.done():  # a request that was cancelled cancels its future
                    part = slice(start, stop)
                    lists = None if scores.score is None else scores.score[part]
                    job.scores.set_result(Scored(scores.probabilities[part], lists))
                start = stop

    def _score(self, jobs: Sequence[_Job]) -> Scored:
        preferences = np.stack([job.preference for job in jobs])
        return self._predictor.score_each(
            Encoded.joined([job.rows for job in jobs]),
            np.repeat(preferences, [len(job.rows) for job in jobs], axis=0),
        )
