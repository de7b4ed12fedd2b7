"""Schedules, selection, early stopping, resuming."""

import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parts import make_parts
from hyperrec_jax.errors import TrainingError, UserError
from hyperrec_jax.training import loop
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.hooks import Checkpointing, Validation
from hyperrec_jax.training.log import MetricsLog, read_metrics
from hyperrec_jax.training.loop import dispatch_schedule
from hyperrec_jax.training.state import state_template
from hyperrec_jax.training.step import StepMetrics
from hyperrec_jax.training.train import train
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


@settings(deadline=None, max_examples=50)
@given(
    per_epoch=st.integers(1, 40),
    epochs=st.integers(1, 4),
    calls=st.integers(1, 12),
    data=st.data(),
)
def test_a_resumed_schedule_is_the_rest_of_the_whole_one(per_epoch, epochs, calls, data):
    whole = list(dispatch_schedule(0, per_epoch, epochs, calls))
    assert sum(count for _, count in whole) == per_epoch * epochs
    assert all(first // per_epoch == (first + count - 1) // per_epoch for first, count in whole)
    position = data.draw(st.integers(0, len(whole) - 1))
    rest = dispatch_schedule(whole[position][0], per_epoch, epochs, calls)
    assert list(rest) == whole[position:]


@pytest.fixture(scope="module")
def whole_run(trained_run, tmp_path_factory):
    """Two epochs without disturbance."""
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("whole") / "run")


def _latest(config, store, workdir):
    training = make_parts(config, store)
    state, progress = Checkpoints(workdir, read_only=True).restore_latest(training.template)
    return state, progress


def _assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_writes_what_it_says(small_store, whole_run):
    config = json.loads((whole_run / "config.json").read_text())
    assert config["train"]["batch_size"] == 256
    assert json.loads((whole_run / "versions.json").read_text())["jax"] == jax.__version__
    records = read_metrics(whole_run)
    assert [r["epoch"] for r in records if r["kind"] == "validation"] == [1, 2]
    training = [r for r in records if r["kind"] == "train"]
    steps = len(small_store.split("train")) // 256 * 2
    assert training[-1]["step"] == steps
    assert all(r["rows_per_second"] > 0 for r in training)
    assert list((whole_run / "tensorboard").iterdir())


def test_a_run_stopped_in_mid_epoch_ends_in_the_same_parameters(
    small_store, whole_run, tmp_path, monkeypatch
):
    config = tiny_config(small_store, train__checkpoint_every=4)
    calls = []

    class KilledError(Exception):
        pass

    def killed(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KilledError
        return log_write(self, *arguments)

    log_write = MetricsLog.write
    monkeypatch.setattr(MetricsLog, "write", killed)
    with pytest.raises(KilledError):
        train(config, tmp_path, small_store)
    monkeypatch.undo()
    progress = train(config, tmp_path, small_store)
    assert progress.finished
    state, _ = _latest(config, small_store, tmp_path)
    expected, _ = _latest(tiny_config(small_store), small_store, whole_run)
    _assert_same(state, expected)
    seen = [(r["step"], r["kind"]) for r in read_metrics(tmp_path)]
    assert len(seen) == len(set(seen))


def test_a_finished_run_returns_at_once_and_a_longer_one_goes_on(small_store, tmp_path):
    config = tiny_config(small_store, train__epochs=1)
    train(config, tmp_path, small_store)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert train(config, tmp_path, small_store).epoch == 1
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert train(tiny_config(small_store), tmp_path, small_store).epoch == 2


def test_another_config_or_store_is_refused(small_store, whole_run, tmp_path):
    other = tiny_config(small_store, optimizer__learning_rate=0.5)
    with pytest.raises(UserError, match=r"learning_rate: 0.001 -> 0.5"):
        train(other, whole_run, small_store)


def test_a_damaged_latest_checkpoint_falls_back_to_the_one_before(
    small_store, whole_run, tmp_path, caplog
):
    config = tiny_config(small_store, train__checkpoint_every=4)
    train(config, tmp_path, small_store)
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x40
    largest.write_bytes(content)
    progress = train(config, tmp_path, small_store)
    assert progress.finished
    assert "is damaged" in caplog.text
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == [
        f"checkpoints_{newest.name}_0"
    ]
    state, _ = _latest(config, small_store, tmp_path)
    expected, _ = _latest(tiny_config(small_store), small_store, whole_run)
    _assert_same(state, expected)


def test_a_loss_that_is_not_finite_stops_with_its_place():
    metrics = StepMetrics(
        loss=np.array([0.1, math.nan, 0.2]),
        goal_losses=np.ones((3, 2)),
        preferences=np.full((3, 1, 2), 0.5),
        skipped=np.zeros(3, np.int32),
    )
    with pytest.raises(TrainingError, match=r"nan at step 11 \(batch 4 of epoch 2, preference 0.5"):
        loop.check_finite(10, metrics, 7)
    loop.check_finite(10, metrics._replace(skipped=np.array([0, 1, 1])), 7)


class _Recorder:
    def __init__(self):
        self.best, self.latest, self.records = [], [], []

    def save_best(self, variables, step, progress):
        self.best.append(step)

    def save_latest(self, state, progress):
        self.latest.append(int(state.step))

    def write(self, step, kind, values):
        self.records.append(values)


class _State:
    variables = None

    def __init__(self, step):
        self.step = step


@pytest.mark.parametrize(
    ("values", "patience", "best", "epochs"),
    [
        ([0.5, 0.6, 0.55, 0.58, 0.7], 2, [1, 2], 4),
        ([0.5, 0.6, 0.55, 0.7], 0, [1, 2, 4], 4),
        ([math.nan, math.nan, math.nan], 1, [1, 2, 3], 3),
    ],
)
def test_selection_and_early_stopping(small_store, values, patience, best, epochs):
    recorder, progress = _Recorder(), Progress()
    config = tiny_config(small_store, train__epochs=len(values), train__patience=patience)
    run = make_parts(config, small_store).run
    hooks = [
        Validation(lambda state: {"value": values[state.step - 1]}, recorder, recorder, run),
        Checkpointing(recorder, 1000),
    ]
    for step in range(1, len(values) + 1):
        for hook in hooks:
            hook.epoch_ended(_State(step), progress)
        if progress.finished:
            break
    assert recorder.latest == list(range(1, step + 1))
    assert recorder.best == best
    assert progress.epoch == epochs
    assert progress.finished


def test_two_runs_on_one_workdir_are_refused(small_store, whole_run):
    from hyperrec_jax.training import workdir

    parts = make_parts(tiny_config(small_store), small_store)
    config, template = parts.run.config, state_template(parts.run)
    with (
        workdir.open_workdir(whole_run, config, small_store, template),
        pytest.raises(UserError, match="another process"),
        workdir.open_workdir(whole_run, config, small_store, template),
    ):
        pass


def test_the_log_drops_what_came_after_the_checkpoint_and_half_a_line(tmp_path: Path):
    log = MetricsLog(tmp_path, 0)
    log.write(4, "train", {"loss": 1.0})
    log.write(8, "train", {"loss": math.nan})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "ki')
    MetricsLog(tmp_path, 4).close()
    assert read_metrics(tmp_path) == [{"step": 4, "kind": "train", "loss": 1.0}]
