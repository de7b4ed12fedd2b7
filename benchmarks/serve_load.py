"""Latency of the server at rising load: `python -m benchmarks.serve_load --model DIR`.

Starts the server on this machine's loopback, sends requests over 1, 2, 4, ... connections, each of
which waits for its answer before the next request, and compares every answer with the model's own.
Client and server share the cores. Prints a Markdown table, and writes it where --output says.
"""

import argparse
import asyncio
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import free_port, machine
from hyperrec_jax import load
from hyperrec_jax.reports.tables import table

TOLERANCE = 1e-5
PACKAGES = ("jax", "numpy", "pyarrow", "starlette", "uvicorn")


def make_requests(
    model: Path, rows: Path, rows_a_request: int, number: int = 64
) -> list[tuple[bytes, np.ndarray]]:
    """Requests of different rows and preferences, and their right answers."""
    predictor = load(model)
    columns = list(predictor.preprocess.column_types())
    frame = pl.read_csv(rows, columns=columns, n_rows=rows_a_request * number)
    rng = np.random.default_rng(0)
    requests = []
    for start in range(0, len(frame), rows_a_request):
        part = frame[start : start + rows_a_request]
        preference = rng.dirichlet(np.ones(len(predictor.tasks)))
        body = json.dumps({"rows": part.to_dicts(), "preference": preference.tolist()}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append((head.encode() + body, predictor.predict(part, preference)))
    return requests


async def _client(
    port: int, requests: Sequence[tuple[bytes, np.ndarray]], first: int, until: float
) -> tuple[list[float], int]:
    """Latencies in seconds, and the number of wrong answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies, wrong = [], 0
    while time.perf_counter() < until:
        request, expected = requests[(first + len(latencies)) % len(requests)]
        start = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = await reader.readexactly(length)
        latencies.append(time.perf_counter() - start)
        right = " 200 " in head and np.allclose(
            json.loads(body)["scores"], expected, rtol=0, atol=TOLERANCE
        )
        wrong += not right
    writer.close()
    return latencies, wrong


async def measure(
    port: int, requests: Sequence[tuple[bytes, np.ndarray]], connections: int, seconds: float
) -> dict[str, Any]:
    """One row of the table."""
    until = time.perf_counter() + seconds
    results = await asyncio.gather(
        *[_client(port, requests, 7 * index, until) for index in range(connections)]
    )
    latencies = np.concatenate([result[0] for result in results])
    p50, p99 = 1000 * np.quantile(latencies, [0.5, 0.99])
    return {
        "connections": connections,
        "requests/s": len(latencies) / seconds,
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "requests": len(latencies),
        "wrong": sum(result[1] for result in results),
    }


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit("the server ended; see its message above")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"the server did not answer within {timeout} s")


def _described(model: Path) -> str:
    """What was served, in a few words."""
    predictor = load(model)
    with np.load(model / "weights.npz") as weights:
        parameters = sum(weights[name].size for name in weights.files)
    return (
        f"{predictor.config['model']['name']} of {parameters:,} parameters, "
        f"{len(predictor.preprocess.column_types())} columns, {len(predictor.tasks)} goals"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; exit code 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of an exported model")
    parser.add_argument("--rows", type=Path, required=True, help="CSV file of raw rows")
    parser.add_argument("--rows-a-request", type=int, default=20)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (at most 60)")
    parser.add_argument("--output", type=Path, help="Markdown file to write as well")
    arguments = parser.parse_args(argv)
    described = machine(PACKAGES, threads=os.cpu_count() or 1)
    requests = make_requests(arguments.model, arguments.rows, arguments.rows_a_request)
    port = free_port()
    server = [sys.executable, "-m", "hyperrec_jax", "serve", "--model", str(arguments.model)]
    with subprocess.Popen([*server, "--port", str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_healthy(process, port, timeout=180)
            results = [
                asyncio.run(measure(port, requests, connections, min(arguments.seconds, 60)))
                for connections in arguments.connections
            ]
        finally:
            process.terminate()
    rows = [
        [f"{value:,.1f}" if isinstance(value, float) else value for value in result.values()]
        for result in results
    ]
    lines = table(list(results[0]), rows)
    print(f"{arguments.rows_a_request} rows a request\n{lines}")
    if arguments.output:
        command = shlex.join(["python", "-m", "benchmarks.serve_load", *(argv or sys.argv[1:])])
        arguments.output.write_text(
            f"# The server at rising load\n\n`{command}`\n\n{_described(arguments.model)}; "
            f"{arguments.rows_a_request} rows a request. Every answer is compared with the model's "
            "own; each connection waits for its answer before it asks again; client and server "
            f"share the cores.\n\n{lines}\n\n{described}\n",
            "utf-8",
        )
    return int(any(result["wrong"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
