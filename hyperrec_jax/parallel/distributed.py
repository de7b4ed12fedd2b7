"""Runs of several processes: how they join and part.

All processes run the same command on one mesh of all their devices; `jax.distributed` connects
them. They join by the flags that `define_flags` adds to a command:

    --distributed=auto                             SLURM, Open MPI, Cloud TPU, GKE: found by JAX
    --coordinator HOST:PORT --num_processes N --process_id I       any other machines

A run of one process needs none of this.
"""

import contextlib
import dataclasses
import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from hyperrec_jax.errors import Preempted, TrainingError, UserError
from hyperrec_jax.exit import EXIT_CODES, one_line_errors

_LOST = re.compile(
    r"gloo|nccl|unavailable|deadline.exceeded|coordination|barrier|connection|heartbeat", re.I
)
"""In what the libraries raise where another process is gone."""

_STUCK_SECONDS = 5.0
"""After which a process that has lost another one no longer waits for it."""

_JAX_LATER_SECONDS = 40
"""By which JAX's own heartbeats, which end a process by a stack trace, are more patient than ours;
they alone remain where `liveness` can't connect."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """How the processes of a run find each other.

    Attributes:
      method: `auto`, the name of one of JAX's ways to detect a cluster, or None: by address.
      coordinator: `host:port` at which process 0 can be reached by all.
      num_processes: Number of processes; None leaves it to the detection.
      process_id: Which one this is, from 0; None leaves it to the detection.
      connect_timeout: Seconds within which all must have joined.
      heartbeat_timeout: Seconds without a sign of life after which a process counts as hanging, and
        the others end.

    Raises:
      UserError: they contradict each other, or something is missing.
    """

    method: str | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    connect_timeout: int = 300
    heartbeat_timeout: int = 60

    def __post_init__(self) -> None:
        count, index = self.num_processes, self.process_id
        if self.coordinator is not None and not re.fullmatch(r".+:\d{1,5}", self.coordinator):
            raise UserError(
                f"--coordinator {self.coordinator}: give host:port, as in 10.0.0.1:8476"
            )
        if self.method is None and self.coordinator is None:
            raise UserError(
                "--num_processes and --process_id need --coordinator host:port, or --distributed"
            )
        if self.method is None and (count is None or index is None):
            raise UserError("--coordinator needs --num_processes and --process_id, too")
        if count is not None and count < 1:
            raise UserError(f"--num_processes {count}: give at least 1")
        if index is not None and (index < 0 or (count is not None and index >= count)):
            last = "" if count is None else f" to {count - 1}"
            raise UserError(f"--process_id {index}: ids go from 0{last}")


def define_flags(values: Any) -> None:
    """Adds the flags of `Cluster` to a command's `absl.flags.FlagValues`."""
    from absl import flags

    flags.DEFINE_string(
        "distributed",
        None,
        "Join the processes of a cluster: 'auto' detects SLURM, Open MPI, Cloud TPU and GKE; "
        "'mpi4py' and the like name one of JAX's ways.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "host:port of process 0, where nothing is detected; default $JAX_COORDINATOR_ADDRESS.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Processes; default $JAX_NUM_PROCESSES.", flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "This one, from 0; default $JAX_PROCESS_ID.", flag_values=values
    )
    flags.DEFINE_integer(
        "connect_timeout",
        300,
        "Seconds within which all processes must join.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "heartbeat_timeout",
        60,
        "Seconds without a sign of life after which a process counts as hanging: the others end.",
        lower_bound=1,
        flag_values=values,
    )


def cluster_from_flags(values: Any) -> Cluster | None:
    """What the flags and, where they are silent, JAX's environment variables ask for.

    Args:
      values: The parsed flags, to which `define_flags` added its own.

    Returns:
      None for a run of one process.

    Raises:
      UserError: see `Cluster`.
    """
    settings = {
        "method": values.distributed,
        "coordinator": values.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": _number(values.num_processes, "JAX_NUM_PROCESSES"),
        "process_id": _number(values.process_id, "JAX_PROCESS_ID"),
    }
    if all(value is None for value in settings.values()):
        return None
    return Cluster(
        **settings,
        connect_timeout=values.connect_timeout,
        heartbeat_timeout=values.heartbeat_timeout,
    )


def _number(flag: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if flag is not None or not text:
        return flag
    if not text.isdecimal():
        raise UserError(f"{variable}={text}: give a number")
    return int(text)


@contextlib.contextmanager
def joined(cluster: Cluster | None) -> Iterator[None]:
    """Around the work of a command: joins the processes, and parts from them however it ends.

    A process that fails leaves at once, with its one line and exit code, and the others end with
    one that says so: within seconds; where one hangs, after `heartbeat_timeout`; where the network
    does not let `liveness` through, 40 seconds later.

    Args:
      cluster: From `cluster_from_flags`; None does nothing.

    Raises:
      UserError: the others can't be reached.
    """
    if cluster is None:
        yield
        return
    _initialize(cluster)
    # Here and not at the top: it loads JAX, and a bad flag answers before.
    from hyperrec_jax.parallel import liveness

    host = cluster.coordinator and _split(cluster.coordinator)[0]
    try:
        with (
            one_line_errors(),
            _lost_processes_explained(),
            liveness.watched(host, _leave_if_stuck, cluster.heartbeat_timeout),
        ):
            yield
    except SystemExit as end:
        if end.code == EXIT_CODES[Preempted]:  # all of them do, and wait for each other
            raise
        _leave(end.code)
    except BaseException:
        traceback.print_exc()
        _leave(1)


def _leave(code: Any) -> None:
    """Ends this process without JAX's barrier at exit: the others may never come to it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _leave_if_stuck(reason: str) -> None:
    """Ends this process, whose others are gone, unless it comes to an error of its own before."""
    time.sleep(_STUCK_SECONDS)
    # Below a progress bar, which nobody closes.
    print(f"\nerror: {_lost_message(reason)}", file=sys.stderr)
    _leave(EXIT_CODES[TrainingError])


def _initialize(cluster: Cluster) -> None:
    if cluster.process_id and cluster.coordinator:
        _await_coordinator(cluster.coordinator, cluster.connect_timeout)
    import jax

    with _bounded(cluster):
        try:
            jax.distributed.initialize(
                cluster.coordinator,
                cluster.num_processes,
                cluster.process_id,
                cluster_detection_method=_detection(cluster.method),
                # JAX ends the process by a stack trace; `_bounded` is there before.
                initialization_timeout=cluster.connect_timeout + 60,
                heartbeat_timeout_seconds=cluster.heartbeat_timeout + _JAX_LATER_SECONDS,
                shutdown_timeout_seconds=3600,  # process 0 may be long at a report
            )
        except (ValueError, RuntimeError) as error:
            how = f"--distributed={cluster.method}" if cluster.method else cluster.coordinator
            line = " ".join(str(error).split())[:200]
            raise UserError(
                f"{how}: the processes can't be joined ({line}); give --coordinator host:port "
                "--num_processes N --process_id I"
            ) from error
    if jax.process_index() != 0:
        logging.getLogger("hyperrec_jax").setLevel(logging.ERROR)  # one process says it


def _split(address: str) -> tuple[str, str]:
    """Host and port of an address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def _detection(method: str | None) -> str | None:
    if method is None:
        return "deactivate"
    return None if method == "auto" else method


def _await_coordinator(address: str, seconds: float) -> None:
    """Waits until process 0 listens.

    Raises:
      UserError: it does not, after so many seconds.
    """
    host, port = _split(address)
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator {address}: can't be reached within {seconds} s ({error}); is "
                    "process 0 running there, and the port open?"
                ) from error
        time.sleep(0.5)


@contextlib.contextmanager
def _bounded(cluster: Cluster) -> Iterator[None]:
    """Ends the process by one line where the others don't join in time."""

    def give_up() -> None:
        print(
            f"error: not all {cluster.num_processes or ''} processes joined within "
            f"{cluster.connect_timeout} s; start the same command in all of them, each with its "
            "own --process_id",
            file=sys.stderr,
        )
        _leave(EXIT_CODES[UserError])

    timer = threading.Timer(cluster.connect_timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _lost_processes_explained() -> Iterator[None]:
    try:
        yield
    except tuple(EXIT_CODES):
        raise
    except Exception as error:
        import jax

        if jax.process_count() == 1 or not _LOST.search(str(error)):
            raise
        line = " ".join(str(error).split())[:200]
        raise TrainingError(_lost_message(line)) from error


def _lost_message(reason: str) -> str:
    import jax

    return (
        f"process {jax.process_index()} of {jax.process_count()} lost another one ({reason}); its "
        "own output may say why; end it where it still hangs, and run the same command in all of "
        "them to go on from the last checkpoint"
    )
