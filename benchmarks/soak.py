"""Kills a training run at random moments and starts it again, until it is done.

    python -m benchmarks.soak --kills 50 --processes 1

The run is `train.py` itself, always the same command. A third of the kills are SIGKILL at the very
moment when a checkpoint is half written, a third SIGKILL at any, a third SIGTERM. At the end the
parameters, the optimizer and all else that is saved must be those of a run that nothing disturbed,
bit for bit, and so must the log. A row is added to the table.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

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
OPTIONS = (
    "--config.model.embedding_dim=4",
    "--config.model.bottom_widths=(16,)",
    "--config.model.tower_widths=(8,)",
    "--config.model.num_experts=2",
    "--config.train.batch_size=64",
    "--config.train.patience=0",
    "--config.train.checkpoint_every=40",
)
GOES_ON = {75, -signal.SIGTERM, -signal.SIGKILL, 3, -signal.SIGABRT}
"""How a process may end: by SIGTERM (before it has begun to train, without a word), by SIGKILL, or
since another one was killed."""
PATIENCE = 1800.0
"""Seconds in which a run must do something."""


@dataclasses.dataclass
class Counts:
    """What was done to a run, and how it took it."""

    killed: int = 0
    in_a_save: int = 0
    stopped: int = 0
    slowest_end: float = 0.0

    @property
    def all(self) -> int:
        return self.killed + self.stopped


class Run:
    """The processes of one start of the command."""

    def __init__(self, store: Path, folder: Path, epochs: int, processes: int) -> None:
        self._log: IO[str] = (folder.parent / "output.log").open("w+")
        command = [
            *[sys.executable, "train.py", "--config", "configs/synthetic.py"],
            *[f"--config.data.store={store}", f"--config.train.epochs={epochs}", *OPTIONS],
            *["--workdir", str(folder)],
        ]
        address = f"127.0.0.1:{free_port()}"
        joined = ["--coordinator", address, "--num_processes", str(processes), "--process_id"]
        self.processes = [
            subprocess.Popen(
                [*command, *([*joined, str(index)] if processes > 1 else [])],
                cwd=ROOT,
                stdout=self._log,
                stderr=self._log,
            )
            for index in range(processes)
        ]

    @property
    def runs(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def wait(self) -> list[int]:
        """Exit codes; those that do not end in time are killed, and raise."""
        try:
            return [process.wait(PATIENCE) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
            self._log.close()


def disturb(
    make_run: Any, folder: Path, steps: int, kills: int, generator: random.Random
) -> Counts:
    """Kills and starts again until a run ends by itself.

    Raises:
      RuntimeError: a start ended in another way than by our signal.
    """
    counts = Counts()
    # The moments are spread over the whole run: it can't be done before all have come.
    moments = sorted(generator.uniform(0.01, 0.97) * steps for _ in range(kills))
    for moment in moments:
        before = _log_file(folder)
        run = make_run()
        number, in_a_save = generator.choice(
            [(signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGTERM, False)]
        )
        victim = generator.choice(run.processes)
        deadline = time.monotonic() + PATIENCE
        while run.runs and not (
            _last_step(folder) >= moment
            # One process may be killed while it starts, too; several find each other first.
            and (not (in_a_save or len(run.processes) > 1) or _log_file(folder) != before)
            and (not in_a_save or _half_saved(folder))
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no step in {PATIENCE} s, see {folder.parent}/output.log")
            time.sleep(0.002)
        time.sleep(0 if in_a_save else generator.uniform(0, 0.2))
        began = time.monotonic()
        victim.send_signal(number)
        codes = run.wait()
        if not any(codes):  # it was done before the signal came
            break
        counts.slowest_end = max(counts.slowest_end, time.monotonic() - began)
        if not all(code in GOES_ON for code in codes):
            raise RuntimeError(f"exit codes {codes}, see {folder.parent}/output.log")
        counts.in_a_save += in_a_save and _half_saved(folder)
        counts.killed += number == signal.SIGKILL
        counts.stopped += number == signal.SIGTERM
        print(f"{counts.all}/{kills}: step {_last_step(folder)}, exit codes {codes}", flush=True)
    return counts


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
        return (folder / "metrics.jsonl").stat().st_ino
    except FileNotFoundError:
        return None


def _half_saved(folder: Path) -> bool:
    return any(folder.glob("*/*.orbax-checkpoint-tmp"))


def final_state(folder: Path, store: Path) -> list[np.ndarray]:
    """All arrays of the newest checkpoint."""
    config = workdir.load_config(folder)
    training = make_parts(config, Store.open(store))
    restored = Checkpoints(folder, read_only=True).restore_latest(training.template)
    assert restored is not None
    assert restored[1].finished
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored[0])]


def final_log(folder: Path) -> list[dict[str, Any]]:
    """The records, without what depends on the clock."""
    return [
        {name: value for name, value in record.items() if name != "rows_per_second"}
        for record in read_metrics(folder)
    ]


def soak(root: Path, kills: int, processes: int, epochs: int, seed: int) -> dict[str, str]:
    """One row of the table."""
    store = root / "store"
    prepare(["synthetic", "--rows", "6000", "--test-rows", "500", "--output", str(store)])

    def start(name: str) -> Run:
        return Run(store, root / name, epochs, processes)

    if any(start("undisturbed").wait()):
        raise RuntimeError(f"the undisturbed run failed, see {root}/output.log")
    steps = final_log(root / "undisturbed")[-1]["step"]
    folder = root / "disturbed"
    counts = disturb(lambda: start("disturbed"), folder, steps, kills, random.Random(seed))
    if any(start("disturbed").wait()):
        raise RuntimeError(f"the last start failed, see {root}/output.log")
    states = [final_state(root / name, store) for name in ("undisturbed", "disturbed")]
    pairs = list(zip(*states, strict=True))
    different = sum(one.tobytes() != other.tobytes() for one, other in pairs)
    same_log = final_log(root / "undisturbed") == final_log(folder)
    return {
        "processes": str(processes),
        "steps": f"{steps:,}",
        "SIGKILL": f"{counts.killed} ({counts.in_a_save} in a save)",
        "SIGTERM": str(counts.stopped),
        "runs lost": "0",  # a lost run raises
        "arrays that differ": f"{different} of {len(pairs)}",
        "log": "the same" if same_log else "differs",
        "slowest end": f"{counts.slowest_end:.1f} s",
    }


def write_row(path: Path, command: str, row: dict[str, str]) -> None:
    """Adds a row to the table; the row of an earlier soak of as many processes is replaced."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [
        line
        for line in lines
        if line.startswith("| ")
        and line.split("|")[1].strip() not in ("processes", row["processes"])
    ]
    cells = {
        **row,
        "machine": machine(("jax", "orbax-checkpoint"), os.cpu_count() or 1),
        "command": f"`{command}`",
    }
    table = [
        "| " + " | ".join(cells) + " |",
        "|" + "---|" * len(cells),
        *sorted([*kept, "| " + " | ".join(cells.values()) + " |"]),
    ]
    introduction = (
        "Training runs killed at random moments and started again by the same command, against a "
        "run that\nnothing disturbed: all arrays of the last checkpoint, bit for bit, and the log. "
        "*Slowest end*: from the\nsignal to the end of the last process.\n"
    )
    path.write_text("\n".join(["# Soak", "", introduction, *table, ""]), "utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="83 steps each (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/soak.md")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        row = soak(
            Path(folder), arguments.kills, arguments.processes, arguments.epochs, arguments.seed
        )
    command = (
        f"python -m benchmarks.soak --kills {arguments.kills} --processes {arguments.processes} "
        f"--epochs {arguments.epochs}"
    )
    write_row(arguments.output, command, row)
    print(row)


if __name__ == "__main__":
    main()
