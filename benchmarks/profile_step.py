"""Where the time of the training step goes on a CPU: every operation of the compiled program.

XLA's own trace of the program that training runs, its operations sorted by what they compute. A
part's time is that of all threads together over their number, so that the parts and the waiting
add up to the time of the step.
"""

import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = (\S+|\([^=]*?\)) ([\w\-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.\-]+) .*{$")
_CONTAINERS = ("while", "call", "conditional")
"""Operations whose time is that of the operations within."""

ROW_PRODUCTS = "matrix products over rows"
TABLE_PRODUCTS = "matrix products over tables: folding, the preference network"
RANDOM_BITS = "random bits"
ARRANGING = "one-hot blocks, copies, concatenations"
OPTIMIZER = "optimizer"
ELEMENTWISE = "batch norm, ReLU, dropout, mixing, losses"
WAITING = "threads waiting"


class Piece(NamedTuple):
    """A part of the step.

    Attributes:
      name: What it computes.
      seconds: A step.
      share: Part of the step's time, in [0, 1].
    """

    name: str
    seconds: float
    share: float


def profile(
    compiled: Any, run: Callable[[], None], runs: int, batch_size: int, steps: int
) -> tuple[list[Piece], float]:
    """Traces a compiled program.

    Args:
      compiled: The program, from `jax.jit(...).lower(...).compile()`.
      run: Executes it once and waits for it.
      runs: Executions to trace.
      batch_size: Tells products over the rows of a batch from products over tables.
      steps: Training steps in one execution.

    Returns:
      The pieces, the largest first, and the seconds of a step under the trace.
    """
    kinds = _kinds(compiled.as_text(), batch_size)
    threads = len(os.sched_getaffinity(0))
    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            for _ in range(runs):
                run()
            seconds = time.perf_counter() - start
        spent = _spent(next(Path(folder).rglob("*.xplane.pb")), kinds)
    scale = 1 / (threads * runs * steps)
    wall = seconds / (runs * steps)
    pieces = {kind: nanoseconds * 1e-9 * scale for kind, nanoseconds in spent.items()}
    pieces[WAITING] = wall - sum(pieces.values())
    ordered = sorted(pieces.items(), key=lambda piece: -piece[1])
    return [Piece(name, value, value / wall) for name, value in ordered], wall


def _spent(path: Path, kinds: dict[str, str]) -> dict[str, float]:
    """Nanoseconds of each kind, over all threads."""
    spent: dict[str, float] = defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            end = 0.0
            for event in sorted(line.events, key=lambda event: event.start_ns):
                # What runs within an operation that is counted is part of it.
                if event.name in kinds and event.start_ns >= end:
                    spent[kinds[event.name]] += event.duration_ns
                    end = event.end_ns
    return spent


def _kinds(program: str, batch_size: int) -> dict[str, str]:
    """The kind of each instruction of a program, by name."""
    bodies = dict(_computations(program))
    lines = program.splitlines()
    instructions = [(line, match) for line in lines if (match := _INSTRUCTION.match(line))]
    shapes = {match[1]: match[2] for _, match in instructions}
    kinds = {}
    for line, match in instructions:
        if match[3] not in _CONTAINERS:
            names = re.findall(r"%([\w.\-]+)", line)
            operands = " ".join(shapes.get(name, "") for name in names)
            called = "".join(bodies.get(name, "") for name in names)
            body = f"{line} {operands} {called}"
            kinds[match[1]] = _kind(match[1], match[2], match[3], line, body, batch_size)
    return kinds


def _kind(name: str, shape: str, opcode: str, line: str, body: str, batch_size: int) -> str:
    if " dot(" in body:
        rows = re.search(rf"\[(?:\d+,)*{batch_size}(?:,\d+)*\]", body)
        return ROW_PRODUCTS if rows else TABLE_PRODUCTS
    if shape.startswith(("u32", "(u32")):
        return RANDOM_BITS
    if opcode in ("copy", "transpose") or "concatenate" in name or "_one_hot" in line:
        return ARRANGING
    if "op_name" in line and "jvp" not in line:
        return OPTIMIZER
    return ELEMENTWISE


def _computations(program: str) -> Iterator[tuple[str, str]]:
    """Name and text of each computation."""
    name, lines = "", []
    for line in program.splitlines():
        match = _COMPUTATION.match(line)
        if match:
            name, lines = match[1], [line]
        elif line.startswith("}"):
            yield name, "\n".join(lines)
        else:
            lines.append(line)
