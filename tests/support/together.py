"""Several processes of one run, side by side."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

from benchmarks.measure import free_port
from tests.conftest import ROOT


def members(arguments: Sequence[Any], count: int) -> list[list[Any]]:
    """The arguments of a command for each process of a run."""
    address = f"127.0.0.1:{free_port()}"
    flags = ["--coordinator", address, "--num_processes", count, "--process_id"]
    return [[*arguments, *flags, index] for index in range(count)]


class Together:
    """Processes that run at the same time; those that are left end with the block."""

    def __init__(
        self,
        commands: Sequence[Sequence[Any]],
        environment: Mapping[str, str] | Sequence[Mapping[str, str]],
    ) -> None:
        """Starts them.

        Args:
          commands: Arguments of Python, for one process each.
          environment: Variables of the environment of all, or of each.
        """
        environments = (
            [environment] * len(commands) if isinstance(environment, Mapping) else environment
        )
        self._output: list[IO[str]] = []
        self.processes = []
        for command, values in zip(commands, environments, strict=True):
            # Files, not pipes: a process must not wait for us to read what it writes.
            self._output.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, command)],
                    cwd=ROOT,
                    env=dict(values),
                    stdout=self._output[-1],
                    stderr=subprocess.STDOUT,
                )
            )

    def __enter__(self) -> "Together":
        return self

    def __exit__(self, *_: object) -> None:
        for process, output in zip(self.processes, self._output, strict=True):
            process.kill()
            process.wait()
            output.close()

    def output(self, index: int) -> str:
        """What a process has written so far."""
        self._output[index].seek(0)
        return self._output[index].read()

    def wait(self, timeout: float = 300) -> list[int]:
        """Waits for all; returns their exit codes."""
        return [process.wait(timeout) for process in self.processes]


def run_together(
    commands: Sequence[Sequence[Any]],
    environment: Mapping[str, str] | Sequence[Mapping[str, str]],
) -> list[str]:
    """What each of some processes, all of which succeed, writes."""
    with Together(commands, environment) as together:
        codes = together.wait()
        outputs = [together.output(index) for index in range(len(commands))]
    assert not any(codes), "\n".join(outputs)
    return outputs
