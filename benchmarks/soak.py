"""Kills a training run at random moments and starts it again, until it is done.

    python -m benchmarks.soak --kills 50 --processes 2

The run is `train.py` itself, always the same command. One process at a time is hit, process 0 (the
coordinator) as often as another, by SIGKILL at any moment, by SIGKILL while a checkpoint is half
written, by SIGTERM, and where there are several by SIGSTOP, which makes it hang without dying: the
others must notice and end by themselves, before it is killed and the run is started again. Some
are hit while they still start. All must end within bounds, with the exit codes that the
documentation promises.

At the end the parameters, the optimizer, the selected model and all else that is saved must be
those of a run of as many processes that nothing disturbed, bit for bit, and so must the log. A row
is added to the table.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.measure import free_port, machine
from benchmarks.parts import make_parts
from hyperrec_jax.commands.prepare import main as prepare
from hyperrec_jax.data.store import Store
from hyperrec_jax.training import workdir
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.log import read_metrics

ROOT = Path(__file__).resolve().parents[1]
BATCH_SIZE = 64
OPTIONS = (
    "--config.model.embedding_dim=4",
    "--config.model.bottom_widths=(16,)",
    "--config.model.tower_widths=(8,)",
    "--config.model.num_experts=2",
    f"--config.train.batch_size={BATCH_SIZE}",
    "--config.train.patience=0",
    "--config.train.steps_per_dispatch=2",
    "--config.train.checkpoint_every=8",
)
CONNECT_SECONDS, HEARTBEAT_SECONDS = 60, 20
JOIN = ("--connect_timeout", str(CONNECT_SECONDS), "--heartbeat_timeout", str(HEARTBEAT_SECONDS))
END_SECONDS = 180.0
"""Within which all processes must have ended after a signal; several times what is promised, since
the machine may be busy."""
PATIENCE = 1800.0
"""Seconds in which a run must do something."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to hit a process.

    Attributes:
      name: In the table.
      signal: What is sent.
      in_a_save: Whether a checkpoint must be half written at that moment.
      codes: How the process may end; -15: before it has begun to train. A stopped one is killed.
    """

    name: str
    signal: signal.Signals
    in_a_save: bool = False
    codes: tuple[int, ...] = (-signal.SIGKILL,)


KILL = Kind("SIGKILL", signal.SIGKILL)
KILL_IN_A_SAVE = Kind("SIGKILL in a save", signal.SIGKILL, in_a_save=True)
TERMINATE = Kind("SIGTERM", signal.SIGTERM, codes=(75, -signal.SIGTERM))
STOP = Kind("SIGSTOP", signal.SIGSTOP)

LOST, STOPPED, NOT_JOINED = 3, 75, 2
"""Exit codes of the other processes: they lost one; all were told to stop; one never came."""


@dataclasses.dataclass(frozen=True)
class Hit:
    """One disturbance.

    Attributes:
      kind: How.
      victim: Number of the process.
      starting: Whether it comes while the processes start, not while they train.
    """

    kind: Kind
    victim: int
    starting: bool


@dataclasses.dataclass
class Counts:
    """What was done to a run, and how it took it.

    Attributes:
      hits: By kind, whether process 0 was hit, and whether it was still starting.
      told: Other processes that ended with a line of ours.
      untold: Other processes that JAX ended.
      slowest_end: By kind, seconds from the signal until the other processes had ended.
    """

    hits: collections.Counter[tuple[str, bool, bool]] = dataclasses.field(
        default_factory=collections.Counter
    )
    told: int = 0
    untold: int = 0
    slowest_end: dict[str, float] = dataclasses.field(default_factory=dict)

    def of(self, kind: str) -> int:
        """Number of hits of a kind."""
        return sum(number for (name, _, _), number in self.hits.items() if name == kind)


class Run:
    """The processes of one start of the command."""

    def __init__(self, store: Path, folder: Path, epochs: int, processes: int) -> None:
        command = [
            *[sys.executable, "train.py", "--config", "configs/synthetic.py"],
            *[f"--config.data.store={store}", f"--config.train.epochs={epochs}", *OPTIONS],
            *["--workdir", str(folder)],
        ]
        address = f"127.0.0.1:{free_port()}"
        joined = [*JOIN, "--coordinator", address, "--num_processes", str(processes)]
        self._outputs = [folder.parent / f"output_{index}.txt" for index in range(processes)]
        self.processes = []
        for index, output in enumerate(self._outputs):
            own = [*joined, "--process_id", str(index)] if processes > 1 else []
            with output.open("w") as file:
                self.processes.append(
                    subprocess.Popen([*command, *own], cwd=ROOT, stdout=file, stderr=file)
                )

    @property
    def runs(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def output(self, index: int) -> str:
        """What a process has written, without the states of its progress bar."""
        text = self._outputs[index].read_text("utf-8", errors="replace")
        return "\n".join(line for line in text.splitlines() if "step/s" not in line)

    def outputs(self) -> str:
        """What all processes have written."""
        return "\n".join(
            f"process {index}: {self.output(index)}" for index in range(len(self.processes))
        )

    def wait(self, seconds: float, stopped: int | None = None) -> list[int]:
        """Exit codes; a process that does not end is killed.

        Args:
          seconds: Time for all of them.
          stopped: One that can't end, killed once all others have ended.

        Raises:
          RuntimeError: another one did not end.
        """
        deadline = time.monotonic() + seconds
        try:
            for index, process in enumerate(self.processes):
                if index != stopped:
                    process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"not at its end after {seconds} s\n{self.outputs()}") from error
        finally:
            for process in self.processes:
                process.kill()
        return [process.wait() for process in self.processes]


def plan(kills: int, processes: int, generator: random.Random) -> list[Hit]:
    """Hits in random order: each kind on process 0 as often as on another one, to within one."""
    kinds = [KILL, KILL_IN_A_SAVE, TERMINATE] + [STOP] * (processes > 1)
    targets = list(itertools.product((True, False) if processes > 1 else (True,), kinds))
    generator.shuffle(targets)
    hits = []
    for first, kind in itertools.islice(itertools.cycle(targets), kills):
        victim = 0 if first else generator.randrange(1, processes)
        starting = not kind.in_a_save and generator.random() < 0.15
        hits.append(Hit(kind, victim, starting))
    generator.shuffle(hits)
    return hits


def disturb(
    make_run: Callable[[], Run],
    folder: Path,
    steps: int,
    hits: Sequence[Hit],
    generator: random.Random,
    seconds: float = math.inf,
) -> Counts:
    """Hits a run and starts it again, until all hits are done, or so many seconds are over.

    The moments are spread over the steps that are left, so that all come before the run is done.

    Raises:
      RuntimeError: a start ended otherwise than promised, or the run was done too early.
    """
    counts = Counts()
    start_seconds, end = 0.0, time.monotonic() + seconds
    for number, hit in enumerate(hits):
        if time.monotonic() > end:
            print(f"{number} of {len(hits)} kills in {seconds:.0f} s: the run goes on to its end")
            break
        log_before, began = _log_file(folder), time.monotonic()
        share = (0.97 * steps - _last_step(folder)) / (len(hits) - number)
        target = _last_step(folder) + generator.uniform(0.1, 1.5) * share
        run = make_run()
        if hit.starting and start_seconds:
            _sleep(generator.uniform(0, start_seconds), run)
        else:
            _until(lambda: _log_file(folder) != log_before, run)  # noqa: B023
            start_seconds = time.monotonic() - began
            _until(lambda: _last_step(folder) >= target, run)  # noqa: B023
            if hit.kind.in_a_save:
                # On a busy machine a save may be over before it is seen; not for ever, though.
                late = target + share
                _until(lambda: _half_saved(folder) or _last_step(folder) > late, run)  # noqa: B023
            else:
                _sleep(generator.uniform(0, 0.02), run)
        in_a_save = _half_saved(folder)
        sent = time.monotonic()
        run.processes[hit.victim].send_signal(hit.kind.signal)
        codes = run.wait(END_SECONDS, hit.victim if hit.kind == STOP else None)
        ended = time.monotonic() - sent
        if not any(codes):
            raise RuntimeError(f"the run was done after {number} of {len(hits)} kills")
        started = _log_file(folder) != log_before
        told = _check_end(hit, codes, run, started)
        counts.told += told
        counts.untold += len(codes) - 1 - told
        kind = KILL if hit.kind.in_a_save and not in_a_save else hit.kind  # the save was too quick
        counts.hits[kind.name, hit.victim == 0, not started] += 1
        slowest = counts.slowest_end.get(kind.name, 0.0)
        counts.slowest_end[kind.name] = max(slowest, ended)
        print(
            f"{number + 1}/{len(hits)}: {kind.name} to process {hit.victim} at step "
            f"{_last_step(folder)}{'' if started else ' while starting'}, exit codes {codes}, "
            f"{ended:.1f} s",
            flush=True,
        )
    return counts


def _check_end(hit: Hit, codes: Sequence[int], run: Run, started: bool) -> int:
    """Compares the ends of all processes with what is promised.

    Returns:
      How many of the others have said in a line why they ended.

    Raises:
      RuntimeError: a process ended otherwise.
    """
    told = 0
    for index, code in enumerate(codes):
        if index == hit.victim:
            fine = code in hit.kind.codes
        elif code == -signal.SIGABRT:  # JAX's own end of a process that lost process 0
            fine = hit.victim == 0 and hit.kind != STOP
        else:
            expected = {STOPPED} if hit.kind == TERMINATE else {LOST}
            # A process that is not there yet can't tell the others that it is told to stop.
            fine = code in (expected if started else {*expected, LOST, NOT_JOINED})
            lines = run.output(index).splitlines()
            fine &= any(line.startswith(("error: ", "stopped")) for line in lines)
            told += 1
        if not fine:
            raise RuntimeError(
                f"{hit.kind.name} to process {hit.victim}: process {index} ended with {code}\n"
                f"{run.outputs()}"
            )
    return told


def _until(condition: Callable[[], bool], run: Run) -> None:
    """Waits for a condition, or the end of a process."""
    deadline = time.monotonic() + PATIENCE
    while run.runs and not condition():
        if time.monotonic() > deadline:
            run.wait(0)  # raises
        time.sleep(0.002)


def _sleep(seconds: float, run: Run) -> None:
    end = time.monotonic() + seconds
    _until(lambda: time.monotonic() >= end, run)


def _last_step(folder: Path) -> int:
    """The last step in the log, whose end alone is read."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2048))
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return 0
    steps = [0]
    for line in lines:
        try:
            steps.append(json.loads(line)["step"])
        except ValueError:  # half a line
            continue
    return steps[-1]


def _log_file(folder: Path) -> int | None:
    """Changes when a start has opened the log; half a checkpoint of an earlier one is gone then."""
    try:
        return (folder / "metrics.jsonl").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _half_saved(folder: Path) -> bool:
    return any(folder.glob("*/*.orbax-checkpoint-tmp"))


def final_state(folder: Path, store: Path) -> list[np.ndarray]:
    """All arrays of the newest checkpoint and of the selected model."""
    config = workdir.load_config(folder)
    template = make_parts(config, Store.open(store)).template
    checkpoints = Checkpoints(folder, read_only=True)
    latest, best = (
        checkpoints.restore_latest(template),
        checkpoints.restore_best(template.variables),
    )
    assert latest is not None
    assert best is not None
    assert latest[1].finished
    return [np.asarray(leaf) for leaf in jax.tree.leaves((latest[0], best[0]))]


def final_log(folder: Path) -> list[dict[str, Any]]:
    """The records, without what depends on the clock."""
    return [
        {name: value for name, value in record.items() if name != "rows_per_second"}
        for record in read_metrics(folder)
    ]


def soak(
    root: Path, kills: int, processes: int, steps: int, seed: int, seconds: float = math.inf
) -> dict[str, str]:
    """One row of the table.

    Args:
      root: An empty folder.
      kills: Number of hits.
      processes: Number of processes of the run.
      steps: Number of steps of the run for each hit.
      seed: Seed of the hits and their moments.
      seconds: After which no process is hit any more.

    Raises:
      RuntimeError: a run was lost.
    """
    store = root / "store"
    prepare(["synthetic", "--rows", "6000", "--test-rows", "500", "--output", str(store)])
    in_an_epoch = len(Store.open(store).split("train")) // BATCH_SIZE
    epochs = math.ceil(kills * steps / in_an_epoch)

    def start(name: str) -> Run:
        return Run(store, root / name, epochs, processes)

    def finish(name: str) -> None:
        run = start(name)
        if any(codes := run.wait(PATIENCE)):
            raise RuntimeError(f"the run {name} ended with {codes}\n{run.outputs()}")

    finish("undisturbed")
    total = epochs * in_an_epoch
    folder, generator = root / "disturbed", random.Random(seed)
    hits = plan(kills, processes, generator)
    counts = disturb(lambda: start("disturbed"), folder, total, hits, generator, seconds)
    finish("disturbed")
    states = [final_state(root / name, store) for name in ("undisturbed", "disturbed")]
    pairs = list(zip(*states, strict=True))
    different = sum(one.tobytes() != other.tobytes() for one, other in pairs)
    same_log = final_log(root / "undisturbed") == final_log(folder)
    others = f"{counts.told} of {counts.told + counts.untold}" if processes > 1 else ""
    first, starting = (
        sum(number for key, number in counts.hits.items() if key[place]) for place in (1, 2)
    )
    return {
        "processes": str(processes),
        "steps": f"{total:,}",
        "kills": str(counts.hits.total()),
        **{
            kind.name: str(counts.of(kind.name) or "")
            for kind in (KILL, KILL_IN_A_SAVE, TERMINATE, STOP)
        },
        "to process 0": str(first),
        "while starting": str(starting),
        "runs lost": "0",  # a lost run raises
        "arrays that differ": f"{different} of {len(pairs)}",
        "log": "the same" if same_log else "differs",
        "others that said why": others,
        "slowest end": ", ".join(
            f"{name} {seconds:.0f} s" for name, seconds in sorted(counts.slowest_end.items())
        ),
    }


def write_row(path: Path, command: str, row: dict[str, str]) -> None:
    """Adds a row to the table; the row of an earlier soak of as many processes is replaced."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    cells = {
        **row,
        "machine": machine(("jax", "orbax-checkpoint"), os.cpu_count() or 1),
        "command": f"`{command}`",
    }
    header = "| " + " | ".join(cells) + " |"
    kept = [
        line
        for line in lines
        if header in lines  # not the columns of another version
        and line.startswith("| ")
        and line.split("|")[1].strip() not in ("processes", row["processes"])
    ]
    table = [
        header,
        "|" + "---|" * len(cells),
        *sorted([*kept, "| " + " | ".join(cells.values()) + " |"]),
    ]
    introduction = (
        "Training runs of which one process at a time was hit at random moments, and that were "
        "started again\nby the same command, against a run of as many processes that nothing "
        "disturbed: all arrays of the last\ncheckpoint and of the selected model, bit for bit, "
        "and the log.\n\n"
        "*SIGSTOP* makes a process hang without dying. *Others that said why*: processes that "
        "ended since another\none was hit, with a line and an exit code of this package; JAX ended "
        "the rest, at the loss of process 0.\n*Slowest end*: from the signal to the end of the "
        f"last process; `--heartbeat_timeout` was {HEARTBEAT_SECONDS} s.\n"
    )
    path.write_text("\n".join(["# Soak", "", introduction, *table, ""]), "utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=24, help="of the run, for each kill (24)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of kills; default: no end")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/soak.md")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        # Each start finds all programs compiled, however small they are.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        row = soak(
            Path(folder),
            arguments.kills,
            arguments.processes,
            arguments.steps,
            arguments.seed,
            60 * arguments.minutes,
        )
    command = (
        f"python -m benchmarks.soak --kills {arguments.kills} --processes {arguments.processes}"
    )
    for option in ("steps", "seed", "minutes"):
        if getattr(arguments, option) != parser.get_default(option):
            command += f" --{option} {getattr(arguments, option):g}"
    write_row(arguments.output, command, row)
    print(row)


if __name__ == "__main__":
    main()
