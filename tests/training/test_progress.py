"""The bar of a training: what it says while compiling, its rate, and logs that are no terminal."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hyperrec_jax.training.hooks import ProgressBar

RUN = SimpleNamespace(first_epoch=0, first_step=0, config={"train": {"epochs": 2}})
METRICS = SimpleNamespace(goal_losses=np.array([[0.5, 0.25], [0.7, 0.35]]))


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal


def trained(monkeypatch, terminal):
    """What two epochs of two calls of ten steps show, by call."""
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    bar, progress, shown = ProgressBar(("click", "buy"), RUN), SimpleNamespace(epoch=0), []

    def look():
        shown.append(stream.getvalue())
        stream.truncate(0)
        stream.seek(0)

    bar.begin(progress, 0, 40)
    look()
    for call in range(4):
        bar.trained(10 * (call + 1), METRICS, 106.0 if call == 0 else 41000.0)
        look()
        if call % 2:
            bar.epoch_ended(None, progress)
            look()
            progress.epoch += 1
    bar.close()
    return shown


def test_a_terminal_sees_compiling_and_no_rate_of_the_first_call(monkeypatch):
    begun, first, second, ended, third, *_ = trained(monkeypatch, True)
    assert "epoch 1/2: compiling" in begun
    assert "compiling" not in first
    assert "click 0.6000 buy 0.3000" in first
    assert "rows/s" not in first
    assert "10/40" in first
    assert "41,000 rows/s" in second
    assert "epoch 1/2: validating" in ended
    assert "epoch 2/2:  75%" in third


def test_a_log_gets_a_line_for_each_epoch(monkeypatch):
    shown = trained(monkeypatch, False)
    line = "click 0.6000 buy 0.3000, 41,000 rows/s"
    assert [text for text in shown if text] == [f"epoch 1/2: {line}\n", f"epoch 2/2: {line}\n"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_that_is_done_says_nothing_of_compiling(monkeypatch, terminal):
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    bar = ProgressBar(("click", "buy"), RUN)
    bar.begin(SimpleNamespace(epoch=2), 40, 40)
    bar.close()
    assert "compiling" not in stream.getvalue()
