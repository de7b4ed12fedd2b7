"""Trackers: TensorBoard, one of one's own, MLflow and Weights & Biases where they are installed."""

import math
from pathlib import Path

import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.training.log import MetricsLog
from hyperrec_jax.training.trackers.base import (
    TRACKERS,
    open_trackers,
    opened,
    require_trackers,
)
from hyperrec_jax.training.workdir import flatten
from tests.conftest import ROOT

CONFIG = {"seed": 3, "train": {"epochs": 2, "trackers": ("tensorboard",)}}


class Recorder:
    """Keeps what it is shown; breaks where it is told to."""

    def __init__(self, workdir: Path, config: dict, step: int) -> None:
        self.seen: list = [("begin", workdir.name, config["seed"], step)]
        RECORDERS.append(self)

    def scalars(self, step, kind, values):
        if "broken" in values:
            raise ConnectionError("the server\nis gone")
        self.seen.append((step, kind, values))

    def file(self, step, kind, path):
        self.seen.append((step, kind, path.name))

    def close(self):
        self.seen.append("closed")


RECORDERS: list[Recorder] = []


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setitem(TRACKERS._parts, "recorder", Recorder)
    RECORDERS.clear()
    return RECORDERS


def test_a_log_shows_finite_values_and_closes_its_trackers(tmp_path: Path, recorder):
    log = MetricsLog(tmp_path, 5, open_trackers(["recorder"], tmp_path, CONFIG, 5))
    log.write(8, "validation", {"auc/click": 0.5, "loss": math.nan})
    log.close()
    assert recorder[0].seen == [
        ("begin", tmp_path.name, 3, 5),
        (8, "validation", {"auc/click": 0.5}),
        "closed",
    ]


def test_a_tracker_that_fails_is_told_once_and_ends_no_run(tmp_path: Path, recorder, caplog):
    with opened(["recorder"], tmp_path, CONFIG, 0) as (tracker,):
        for step in range(3):
            tracker.scalars(step, "train", {"broken": 1.0})
    assert recorder[0].seen == [("begin", tmp_path.name, 3, 0)]
    assert [record.getMessage() for record in caplog.records] == [
        "recorder: the server; the run goes on without it"
    ]


def test_names_and_packages_that_are_not_there_are_refused(monkeypatch):
    with pytest.raises(UserError, match="no tracker 'tensorbord'; did you mean tensorboard"):
        require_trackers(["tensorbord"])
    monkeypatch.setitem(TRACKERS._parts, "recorder", Recorder)
    require_trackers(["tensorboard", "recorder"])  # one's own needs no package of its name
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(UserError, match=r"mlflow is not installed: pip install 'hyperrec-jax\[ml"):
        require_trackers(["tensorboard", "mlflow"])


def test_tensorboard_has_curves_and_the_picture(tmp_path: Path):
    from tensorboardX.proto.event_pb2 import Event

    picture = ROOT / "docs" / "images" / "fronts.png"
    with opened(["tensorboard"], tmp_path, CONFIG, 4) as (tracker,):
        tracker.scalars(8, "train", {"loss/click": 0.5})
        tracker.file(8, "test", picture)
        tracker.file(8, "test", ROOT / "README.md")  # no picture: beside it anyway

    def events(kind):
        (file,) = (tmp_path / "tensorboard" / kind).iterdir()
        data, result = file.read_bytes(), []
        while data:  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[:8], "little")
            result.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
        return result

    train, test = events("train"), events("test")
    assert [event.session_log.status for event in train[:2]][-1] == 1  # START, hides later steps
    assert train[1].step == 5
    (value,) = train[-1].summary.value
    assert (train[-1].step, value.tag, value.simple_value) == (8, "loss/click", 0.5)
    (value,) = test[-1].summary.value
    assert value.image.encoded_image_string == picture.read_bytes()
    assert value.image.width > 100 < value.image.height


def test_a_config_is_shown_flat():
    assert flatten(CONFIG) == {"seed": 3, "train.epochs": 2, "train.trackers": ("tensorboard",)}


def test_mlflow_goes_on_with_its_run(tmp_path: Path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    address = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "front.json").write_text("{}")
    for step in (0, 8):
        with opened(["mlflow"], tmp_path, CONFIG, step) as (tracker,):
            tracker.scalars(step + 8, "train", {"ndcg@10/buy": 0.25 + step})
            tracker.file(step + 8, "test", tmp_path / "front.json")
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("hyperrec_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", tmp_path.name)
    assert run.data.params["train.epochs"] == "2"
    history = client.get_metric_history(run.info.run_id, "train/ndcg_at_10/buy")
    assert [(one.step, one.value) for one in history] == [(8, 0.25), (16, 8.25)]
    assert [one.path for one in client.list_artifacts(run.info.run_id, "test")] == [
        "test/front.json"
    ]


def test_wandb_goes_on_with_its_run(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (0, 8):
        with opened(["wandb"], tmp_path, CONFIG, step) as (tracker,):
            tracker.scalars(step + 8, "train", {"loss/click": 0.5})
            tracker.file(step + 8, "test", ROOT / "docs" / "images" / "fronts.png")
    name = (tmp_path / "trackers" / "wandb").read_text()
    runs = [one.name for one in (tmp_path / "wandb").iterdir() if one.name.startswith("offline")]
    assert len(runs) == 2
    assert all(one.endswith(name) for one in runs)
