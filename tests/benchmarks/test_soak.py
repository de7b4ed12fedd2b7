"""The soak's reading of a run, and its table; the soak itself takes minutes."""

import random

import pytest

from benchmarks import soak

pytestmark = pytest.mark.slow


def test_the_last_step_of_a_log_that_is_being_written(tmp_path):
    assert soak._last_step(tmp_path) == 0
    lines = [f'{{"step": {step}, "kind": "train"}}\n' for step in range(0, 4000, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 5000, "ki')
    assert soak._last_step(tmp_path) == 3992


def test_a_row_replaces_that_of_as_many_processes(tmp_path):
    path = tmp_path / "soak.md"
    for processes, steps in (("2", "7"), ("1", "8"), ("2", "9")):
        soak.write_row(path, "command", {"processes": processes, "steps": steps})
    rows = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| processes", "steps"],
        ["| 1", "8"],
        ["| 2", "9"],
    ]


class _Process:
    def __init__(self, code):
        self.code = code
        self.signals = []

    def poll(self):
        return None

    def send_signal(self, number):
        self.signals.append(number)


class _Run:
    """A start that gets one step further and ends with a code."""

    def __init__(self, folder, steps, code):
        steps.append(steps[-1] + 100)
        (folder / "new").write_text(f'\n{{"step": {steps[-1]}}}\n')
        (folder / "new").replace(folder / "metrics.jsonl")
        (folder / "checkpoints" / f"{steps[-1]}.orbax-checkpoint-tmp").mkdir(parents=True)
        self.processes = [_Process(code)]
        self.runs = True

    def wait(self):
        return [process.code for process in self.processes]


@pytest.mark.parametrize("code", [75, 1])
def test_every_kill_is_counted_and_another_end_is_a_loss(tmp_path, code):
    steps = [0]

    def start():
        return _Run(tmp_path, steps, code)

    if code == 1:
        with pytest.raises(RuntimeError, match=r"exit codes \[1\]"):
            soak.disturb(start, tmp_path, 100, 6, random.Random(0))
        return
    counts = soak.disturb(start, tmp_path, 100, 6, random.Random(0))
    assert counts.all == 6 == len(steps) - 1
    assert 0 < counts.in_a_save <= counts.killed
    assert counts.stopped > 0
