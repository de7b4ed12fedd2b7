"""Latency of the server under load: `python -m benchmarks.serve_load --model DIR`.

Starts the server on this machine's loopback, sends requests of 1, 20 and 200 rows over 1, 16 and 64
connections, each of which waits for its answer before the next request, and compares every answer
with the model's own. Client and server share the cores. With `--against CHECKOUT`, the server of
another version of the code, such as `git worktree add old v0.1.0` gives, is measured in turn with
it, under the same requests. Prints a Markdown table, and writes it where --output says.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

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
) -> tuple[float, float, float, int]:
    """Requests a second, median and 99th percentile of the latency in ms, and wrong answers."""
    begin = time.perf_counter()
    results = await asyncio.gather(
        *[_client(port, requests, 7 * index, begin + seconds) for index in range(connections)]
    )
    took = time.perf_counter() - begin
    latencies = np.concatenate([result[0] for result in results])
    p50, p99 = 1000 * np.quantile(latencies, [0.5, 0.99])
    return len(latencies) / took, float(p50), float(p99), sum(result[1] for result in results)


@contextlib.contextmanager
def _server(model: Path, code: Path | None = None) -> Iterator[int]:
    """The port of a server that is ready, of the code in a folder or of this one."""
    port = free_port()
    environment = dict(os.environ) if code is None else os.environ | {"PYTHONPATH": str(code)}
    command = [sys.executable, "-m", "hyperrec_jax", "serve", "--model", str(model.resolve())]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, cwd=code, env=environment
    ) as process:
        try:
            _wait_until_healthy(process, port, timeout=600)
            yield port
        finally:
            process.terminate()


def compare(
    ports: Sequence[int],
    requests: Sequence[tuple[bytes, np.ndarray]],
    connections: int,
    seconds: float,
    rounds: int,
) -> tuple[list[np.ndarray], int]:
    """For each server the medians over rounds of what `measure` gives; and all wrong answers.

    The servers are measured in turn, in the opposite order in every second round.
    """
    found: dict[int, list[tuple[float, float, float, int]]] = {port: [] for port in ports}
    for number in range(rounds):
        for port in ports if number % 2 == 0 else ports[::-1]:
            found[port].append(asyncio.run(measure(port, requests, connections, seconds)))
    medians = [np.median([one[:3] for one in found[port]], axis=0) for port in ports]
    return medians, sum(one[3] for all_of in found.values() for one in all_of)


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
    parser.add_argument("--rows-a-request", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (at most 60)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--against", type=Path, help="checkout of the code to compare with")
    parser.add_argument("--output", type=Path, help="Markdown file to write as well")
    arguments = parser.parse_args(argv)
    described = machine(PACKAGES, threads=os.cpu_count() or 1)
    codes = [None] if arguments.against is None else [None, arguments.against.resolve()]
    header = ["rows a request", "connections", "requests/s", "p50 ms", "p99 ms"]
    if arguments.against:
        header += ["old requests/s", "old p50 ms", "old p99 ms", "requests/s ratio", "p99 ratio"]
    lines, all_wrong = [], 0
    with contextlib.ExitStack() as servers:
        ports = [servers.enter_context(_server(arguments.model, code)) for code in codes]
        for rows in arguments.rows_a_request:
            requests = make_requests(arguments.model, arguments.rows, rows)
            for connections in arguments.connections:
                medians, wrong = compare(
                    ports, requests, connections, min(arguments.seconds, 60), arguments.rounds
                )
                all_wrong += wrong
                numbers = [f"{value:,.1f}" for median in medians for value in median]
                if len(medians) > 1:
                    new, old = medians
                    numbers += [f"{new[0] / old[0]:.2f}", f"{new[2] / old[2]:.2f}"]
                lines.append([rows, connections, *numbers])
                print(*lines[-1], flush=True)
    text = table([*header], lines)
    print(text)
    if arguments.output:
        command = shlex.join(["python", "-m", "benchmarks.serve_load", *(argv or sys.argv[1:])])
        arguments.output.write_text(
            f"# The server under load\n\n`{command}`\n\n{_described(arguments.model)}. Every "
            "answer is compared with the model's own; each connection waits for its answer before "
            "it asks again; client and server share the cores; medians of "
            f"{arguments.rounds} rounds of {arguments.seconds:g} s, in which the servers are "
            f"measured in turn. {all_wrong} wrong answers.\n\n{text}\n\n{described}, "
            f"{os.getloadavg()[0]:.1f} after\n",
            "utf-8",
        )
    return int(all_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
