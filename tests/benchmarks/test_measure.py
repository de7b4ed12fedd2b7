"""What the benchmarks measure with."""

import pathlib

import numpy as np
import pytest

from benchmarks import measure


def test_a_runner_in_its_own_process_keeps_its_object():
    runner = measure.Remote(_Counter, 3, threads=1)
    assert runner("add", 4) == 7
    assert runner("add", 4) == 11
    assert runner.close() > 1 << 20
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        measure.Remote(_Counter, 0, threads=1)("divide")


class _Counter:
    def __init__(self, start, *, threads):
        self.total = start

    def add(self, value):
        self.total += value
        return self.total

    def divide(self):
        return 1 / self.total


def test_memory_is_the_peak_without_mapped_files(tmp_path):
    path = pathlib.Path(tmp_path, "mapped")
    np.zeros(8 << 20).tofile(path)
    # In a process of its own: in this one, other tests' memory comes and goes.
    runner = measure.Remote(_Allocation, path, threads=1)
    before = runner("anonymous_bytes")
    runner("read_mapped")
    assert runner("anonymous_bytes") - before < 16 << 20
    runner("allocate")
    assert runner.close() - before > 60 << 20


class _Allocation:
    def __init__(self, path, *, threads):
        self._path = path

    def anonymous_bytes(self):
        return measure.anonymous_bytes()

    def read_mapped(self):
        return float(np.memmap(self._path).sum())

    def allocate(self):
        for _ in range(20):  # until the poll has seen it
            assert np.ones(8 << 20).sum() > 0


def test_alternate_takes_medians_of_rounds():
    order = []
    values = {"a": iter([3.0, 1.0, 2.0]), "b": iter([5.0, 9.0, 7.0])}

    def work(name):
        order.append(name)
        return next(values[name])

    medians = measure.alternate({n: lambda n=n: work(n) for n in values}, 3)
    assert medians == {"a": 2.0, "b": 7.0}
    assert order == ["a", "b"] * 3


def test_growth_exponent_is_that_of_a_power():
    sizes = np.array([10, 100, 1000])
    assert measure.growth_exponent(sizes, 5 * sizes**1.7) == pytest.approx(1.7)
    assert np.isnan(measure.growth_exponent([1], [1]))
