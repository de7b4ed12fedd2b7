"""The soak's reading of a run, and its table; the soak itself takes minutes."""

import collections
import dataclasses
import itertools
import random
import shutil
import signal
import subprocess
import sys

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


def test_a_table_of_other_columns_is_not_mixed_in(tmp_path):
    path = tmp_path / "soak.md"
    soak.write_row(path, "command", {"processes": "1", "steps": "7"})
    soak.write_row(path, "command", {"processes": "2", "kills": "7"})
    rows = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows] == [["| processes", "kills"], ["| 2", "7"]]


@pytest.mark.parametrize(("processes", "kinds"), [(1, 3), (2, 4), (5, 4)])
def test_each_kind_of_signal_hits_process_0_as_often_as_another(processes, kinds):
    hits = soak.plan(50, processes, random.Random(0))
    assert len(hits) == 50
    pairs = collections.Counter((hit.kind.name, hit.victim == 0) for hit in hits)
    assert len(pairs) == kinds * min(processes, 2)
    assert max(pairs.values()) - min(pairs.values()) <= 1
    assert {hit.victim for hit in hits} == set(range(processes))
    assert any(hit.starting for hit in hits)
    assert not any(hit.starting and hit.kind.in_a_save for hit in hits)
    assert hits != soak.plan(50, processes, random.Random(1))


class _Process:
    """Ends once it gets a signal; a stopped one is killed later."""

    def __init__(self):
        self.signals = []

    def poll(self):
        return None

    def send_signal(self, number):
        self.signals.append(number)


class _Run:
    """A start that gets some steps further; its processes end as the documentation promises."""

    def __init__(self, folder, steps, ends):
        self._folder, self._steps, self._ends = folder, steps, ends
        steps.append(steps[-1])
        self._log()
        self.processes = [_Process(), _Process()]
        self.stopped = None

    def _log(self):
        (self._folder / "new").write_text(f'\n{{"step": {self._steps[-1]}}}\n')
        (self._folder / "new").replace(self._folder / "metrics.jsonl")

    @property
    def runs(self):
        """Asked for again and again while the soak waits: one step further each time."""
        self._steps[-1] += 1
        self._log()
        half = self._folder / "checkpoints" / f"{self._steps[-1]}.orbax-checkpoint-tmp"
        if self._steps[-1] % 3:
            half.mkdir(parents=True)
        else:
            shutil.rmtree(half.parent, ignore_errors=True)
        return True

    def wait(self, seconds, stopped=None):
        self.stopped = stopped
        (victim,) = (index for index in range(2) if self.processes[index].signals)
        (number,) = self.processes[victim].signals
        own, self.other = self._ends[number]
        return [own if index == victim else self.other for index in range(2)]

    def output(self, index):
        return {2: "error: not all", 3: "error: lost", 75: "stopped at step 3"}.get(self.other, "")

    def outputs(self):
        return ""


ENDS = {signal.SIGKILL: (-9, 3), signal.SIGTERM: (75, 75), signal.SIGSTOP: (-9, 3)}


def _disturb(folder, ends, steps, length=2000, **options):
    runs = []

    def start():
        runs.append(_Run(folder, steps, ends))
        return runs[-1]

    hits = soak.plan(16, 2, random.Random(0))
    hits = [dataclasses.replace(hit, starting=False) for hit in hits]
    return soak.disturb(start, folder, length, hits, random.Random(0), **options), hits, runs


def test_all_kills_come_and_are_spread_over_the_run(tmp_path):
    steps = [0]
    counts, hits, runs = _disturb(tmp_path, ENDS, steps)
    assert counts.hits.total() == 16
    assert (counts.told, counts.untold) == (16, 0)
    assert {name: counts.of(name) for name in counts.slowest_end} == {
        "SIGKILL": 4,
        "SIGKILL in a save": 4,
        "SIGTERM": 4,
        "SIGSTOP": 4,
    }
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert steps[-1] < 2000
    assert min(gaps) > 0
    assert max(gaps) < 2000 / 4
    for hit, run in zip(hits, runs, strict=True):
        assert run.processes[hit.victim].signals == [hit.kind.signal]
        assert run.stopped == (hit.victim if hit.kind == soak.STOP else None)


@pytest.mark.parametrize(
    "ends",
    [
        {signal.SIGKILL: (-9, 1)},  # a traceback
        {signal.SIGKILL: (-9, 0)},
        {signal.SIGSTOP: (-9, -6)},  # JAX's end, not ours
        {signal.SIGTERM: (75, 3)},
        {signal.SIGTERM: (1, 75)},
        {signal.SIGTERM: (0, 0)},  # done before
    ],
)
def test_an_end_that_was_not_promised_is_a_loss(tmp_path, ends):
    with pytest.raises(RuntimeError, match=r"ended with|was done after"):
        _disturb(tmp_path, ENDS | ends, [0])


def test_no_kill_after_the_time(tmp_path, capsys):
    counts, _, _ = _disturb(tmp_path, ENDS, [0], seconds=0.0)
    assert counts.hits.total() == 0
    assert "0 of 16 kills" in capsys.readouterr().out


def test_a_process_that_does_not_end_is_a_loss(tmp_path):
    run = soak.Run.__new__(soak.Run)
    run._outputs = [tmp_path / "output"]
    run._outputs[0].write_text("epoch 1/3: 5.02step/s\nwaits\n")
    run.processes = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])]
    with pytest.raises(RuntimeError, match=r"not at its end after 0.1 s\nprocess 0: waits"):
        run.wait(0.1)
    assert run.processes[0].wait() == -9
