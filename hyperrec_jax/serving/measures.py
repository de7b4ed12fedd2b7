"""What the server counts, for Prometheus, and its warning about values that training never saw."""

import logging
from collections import deque

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from hyperrec_jax.data.checks import HIGH_UNSEEN_SHARE, unseen_warnings
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.serving.buckets import ROW_BUCKETS
from hyperrec_jax.serving.encoded import Encoded

UNSEEN_ROWS = 1000
"""The share of unseen values is that of the last so many rows, at least."""

_LOGGER = logging.getLogger(__name__)


class UnseenShares:
    """For each field of ids, the share of recent rows with values that training never saw."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._recent: deque[tuple[int, np.ndarray]] = deque()
        self._rows = 0
        self._counts = np.zeros(len(schema.id_fields), np.int64)
        self._high = np.zeros(len(schema.id_fields), bool)

    def add(self, rows: int, unseen: np.ndarray) -> np.ndarray:
        """Takes note of rows, and warns of a field whose share has become high.

        Args:
          rows: Number of rows, one or more.
          unseen: How many of them have a value that training never saw, `[field]`.

        Returns:
          The shares `[field]` in the last rows, these included.
        """
        self._recent.append((rows, unseen))
        self._rows += rows
        self._counts += unseen
        while self._rows - self._recent[0][0] >= UNSEEN_ROWS:
            gone, counts = self._recent.popleft()
            self._rows -= gone
            self._counts -= counts
        shares = self._counts / self._rows
        if self._rows >= UNSEEN_ROWS:
            high = shares >= HIGH_UNSEEN_SHARE
            # Once, until the share has been low again.
            new = np.where(high & ~self._high, self._counts, 0)
            for line in unseen_warnings(self._schema, new.tolist(), self._rows, "POST /predict"):
                _LOGGER.warning("%s", line)
            self._high = high
        return shares


class Measures:
    """The server's counters, histograms and gauges."""

    def __init__(self, schema: Schema) -> None:
        """All at zero, for rows of a schema."""
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "hyperrec_requests", "Requests to /predict", ["status"], registry=registry
        )
        self.rows = Counter("hyperrec_rows", "Rows scored", registry=registry)
        self.seconds = Histogram(
            "hyperrec_request_seconds",
            "From the arrival of a request's head at the server to its answer, waiting included",
            registry=registry,
        )
        self.loop_seconds = Histogram(
            "hyperrec_loop_wait_seconds",
            "How late the event loop got to a task that was due: what a new request waits",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=registry,
        )
        self.batch_rows = Histogram(
            "hyperrec_batch_rows", "Rows in a call of the model", buckets=ROW_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "hyperrec_requests_in_flight", "Requests to /predict without an answer yet",
            registry=registry,
        )  # fmt: skip
        self.rows_waiting = Gauge(
            "hyperrec_rows_waiting", "Rows that wait for the model", registry=registry
        )
        self.body_bytes = Gauge(
            "hyperrec_body_bytes", "Bytes of bodies that are held", registry=registry
        )
        self._policies = Counter(
            "hyperrec_policy_reads", "Changes of the policy's file", ["taken"], registry=registry
        )
        self._logged = Counter(
            "hyperrec_logged_requests",
            "Requests of the sample for the log",
            ["written"],
            registry=registry,
        )
        self._unseen = Counter(
            "hyperrec_unseen_values",
            "Values of scored rows that training never saw",
            ["field"],
            registry=registry,
        )
        self._share = Gauge(
            "hyperrec_unseen_share",
            f"Share of values that training never saw, of the last {UNSEEN_ROWS} rows",
            ["field"],
            registry=registry,
        )
        self._fields = [field.name for field in schema.id_fields]
        self._shares = UnseenShares(schema)
        # There from the beginning, at zero.
        self._unseen_of = [self._unseen.labels(field) for field in self._fields]
        self._share_of = [self._share.labels(field) for field in self._fields]
        self._last_shares = np.zeros(len(self._fields))

    def policy_read(self, taken: bool) -> None:
        """Counts a change of the policy's file, by whether the new policy was taken."""
        self._policies.labels("yes" if taken else "no").inc()

    def requests_logged(self, written: bool, count: int) -> None:
        """Counts requests of the sample, by whether the log has them."""
        self._logged.labels("yes" if written else "no").inc(count)

    def scored(self, rows: Encoded) -> None:
        """Counts scored rows, one or more, and what of them training never saw."""
        self.rows.inc(len(rows))
        unseen = rows.unseen
        self._last_shares = self._shares.add(len(rows), unseen)
        for field in np.flatnonzero(unseen):
            self._unseen_of[field].inc(int(unseen[field]))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        for gauge, share in zip(self._share_of, self._last_shares, strict=True):
            gauge.set(float(share))
        return generate_latest(self.registry)
