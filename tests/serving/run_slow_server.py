"""Serves a model that takes its time, until a signal ends it.

python run_slow_server.py SECONDS_OF_A_CALL DRAIN_SECONDS GRACEFUL_SECONDS
"""

import itertools
import sys
import time

from benchmarks.server_bodies import linear_predictor
from hyperrec_jax.serving.buckets import ROW_BUCKETS
from hyperrec_jax.serving.http import create_app
from hyperrec_jax.serving.limits import Limits
from hyperrec_jax.serving.listen import bind, listen

if __name__ == "__main__":
    seconds, drain, graceful = sys.argv[1:]
    calls = itertools.count()

    def take_time() -> None:
        if next(calls) >= len(ROW_BUCKETS):  # those of the warm-up are quick
            time.sleep(float(seconds))

    limits = Limits(drain_seconds=float(drain), graceful_seconds=int(graceful))
    with bind("127.0.0.1", 0) as listener:
        listen(create_app(linear_predictor(take_time), limits), listener, "on", limits)
