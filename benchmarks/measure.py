"""What the benchmarks share: processes to measure in, medians, memory, tables, versions."""

import math
import multiprocessing
import os
import platform
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

MIB = 1 << 20
_POLL_SECONDS = 0.02


class Runner(Protocol):
    """An object whose methods are called by name."""

    def __call__(self, method: str, *arguments: Any) -> Any: ...

    def close(self) -> int:
        """Ends it; returns the most anonymous memory that its process held, in bytes."""


class Remote:
    """A runner in a process of its own: its threads and its memory are its alone.

    Args:
      factory: What makes the object, there.
      arguments: Its arguments.
      threads: Cores that the process may use.
    """

    def __init__(self, factory: Callable[..., Any], *arguments: Any, threads: int):
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, threads, factory, arguments), daemon=True
        )
        self._process.start()
        other.close()
        self._answer()

    def __call__(self, method: str, *arguments: Any) -> Any:
        self._connection.send((method, arguments))
        return self._answer()

    def close(self) -> int:
        self._connection.send((None, ()))
        peak = self._answer()
        self._process.join()
        return peak

    def _answer(self) -> Any:
        value = self._connection.recv()
        if isinstance(value, BaseException):
            raise value
        return value


def _serve(
    connection: Any, threads: int, factory: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        runner = Local(factory, *arguments, threads=threads)
        connection.send(None)
        while True:
            method, arguments = connection.recv()
            if method is None:
                connection.send(runner.close())
                return
            connection.send(runner(method, *arguments))
    except BaseException as error:
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))
        raise


class Local:
    """A runner in this process; see `Remote`."""

    def __init__(self, factory: Callable[..., Any], *arguments: Any, threads: int):
        self._memory = _PeakMemory()
        self._object = factory(*arguments, threads=threads)

    def __call__(self, method: str, *arguments: Any) -> Any:
        return getattr(self._object, method)(*arguments)

    def close(self) -> int:
        return self._memory.stop()


class _PeakMemory:
    """Polls this process's anonymous memory: without mapped files, whose pages can be reclaimed."""

    def __init__(self) -> None:
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            self._peak = max(self._peak, anonymous_bytes())

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return max(self._peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """Resident memory of this process that no file backs (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon: this needs Linux 4.5 or later")


def free_port() -> int:
    """A port of this machine's loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of what each returns, over rounds in which every one runs once."""
    results: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            results[name].append(work())
    return {name: statistics.median(values) for name, values in results.items()}


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The b of the fit `cost ~ size^b`, by least squares of the logarithms."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def machine(packages: Sequence[str], threads: int) -> str:
    """Processor, threads used, how busy it was, Python and package versions, in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"{model}, {os.cpu_count()} cores, {threads} used, load {os.getloadavg()[0]:.1f} "
        f"before; Python {platform.python_version()}, "
        f"{versions}"
    )
