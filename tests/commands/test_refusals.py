"""A command that refuses leaves the run's folder, and what it was to write, as they were."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hyperrec_jax.commands.main import COMMANDS
from hyperrec_jax.data import files
from hyperrec_jax.errors import UserError, needs_extra
from tests.conftest import ROOT
from tests.training.test_workdir import tree

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(trained_run, exported_model, small_store, tmp_path_factory):
    """A finished run, its export and data, raw rows, and what is not to be changed."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(trained_run, folder / "run")
    moved = shutil.copytree(trained_run, folder / "moved") / "config.json"
    config = json.loads(moved.read_text())
    config["data"]["store"] = str(folder / "gone")
    moved.write_text(json.dumps(config))
    shutil.copytree(exported_model, folder / "model")
    shutil.copytree(small_store.path, folder / "store")
    rows = (small_store.path.parent / "log.csv").read_text()
    (folder / "rows.csv").write_text(rows)
    (folder / "bad.csv").write_text(rows + "c0,1,cheap,0.1,0,0,9\n")
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    (folder / "bad.pt").write_bytes(b"no state dict")
    (folder / "old.csv").write_text("old")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    os.symlink(folder / "rows.csv", folder / "link.csv")
    return folder


def _contents(folder):
    """Files with their digests, and the names of all folders and links."""
    return tree(folder), sorted(map(str, folder.rglob("*")))


TRAIN = "train --config.data.store=store --workdir new"
EVALUATE = "evaluate --workdir run --store store --grid 2 --resamples 0"
PREDICT = "predict --workdir run --input rows.csv --output"
RANK = "rank --workdir run --input rows.csv --output"
IMPORT = "import --model sharedbottom --workdir new --store"
TUNE = "tune --config.data.store=store --study new"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{TRAIN} --config no.py", r"no\.py"),
        (f"{TRAIN} --config.modle.name=x", "modle"),
        (f"{TRAIN} --config.model.name=mmo", "mmoe"),
        (f"{TRAIN} --config.model.num_expert=3", "num_experts"),
        (f"{TRAIN} --config.model.dropout=2", "dropout"),
        (f"{TRAIN} --config.objective.name=nope", "nope"),
        (f"{TRAIN} --config.normaliser.name=nope", "nope"),
        (f"{TRAIN} --config.sampler.name=nope", "nope"),
        (f"{TRAIN} --config.optimizer.learning_rate=-1", "learning_rate"),
        (f"{TRAIN} --config.train.epochs=0", r"train\.epochs"),
        (f"{TRAIN} --config.train.batch_size=0", r"train\.batch_size"),
        (f"{TRAIN} --config.mesh.data=3", "mesh"),
        (f"{TRAIN} --config.preset=nope", "preset"),
        (f"{TRAIN} --process_id 0", "need --coordinator"),
        (f"{TRAIN} --coordinator here", "give host:port"),
        ("train --config.data.store=mine --workdir new", "no prepared data here"),
        ("train --config.data.store=store --workdir run", "holds a run of another config"),
        ("train --config.data.store=store --workdir old.csv", "can't be written"),
        ("evaluate --workdir mine", "no run is there"),
        (f"{EVALUATE} --preferences 1,2,3", "2"),
        (f"{EVALUATE} --preferences=-1,2", "negative"),
        (f"{EVALUATE} --resamples=1", "at least 2"),
        (f"{EVALUATE} --config.train.epochs=3", "a trained model keeps its config"),
        (f"{EVALUATE} --store mine", "no prepared data here"),
        (f"{EVALUATE} --against mine", "no run is there"),
        (f"{EVALUATE} --ranking weights", "what it named is log_odds now"),
        (
            "evaluate --workdir moved",
            "gone: .* if it has moved, name its folder by",
        ),
        (f"{EVALUATE} --output old.csv", "can't be written"),
        (f"{PREDICT} rows.csv", "is the input"),
        ("predict --workdir run --input rows.csv --output link.csv", "is the input"),
        (f"{PREDICT} no/x.csv", "there is no folder .*no; ma"),
        (f"{PREDICT} old.txt", "must end in"),
        (f"{PREDICT} old.csv --keep no", "no column|lacks co"),
        (f"{PREDICT} old.csv --keep click", "would be written twice"),
        (f"{PREDICT} old.csv --preference 1,2,3", "2"),
        ("predict --workdir run --input no.csv --output old.csv", "no such file"),
        ("predict --workdir run --input bad.csv --output old.csv", "row 4001.*'price'.*cheap"),
        ("predict --workdir run --input broken.parquet --output old.csv", "no readable Parquet"),
        ("predict --workdir no --input rows.csv --output old.csv", "no exported model here"),
        (f"{RANK} rows.csv", "is the input"),
        (f"{RANK} no/x.csv", "there is no folder"),
        (f"{RANK} old.txt", "must end in"),
        (f"{RANK} old.csv --fusion nope", "nope"),
        (f"{RANK} old.csv --group no", "no"),
        (f"{RANK} old.csv --preference 1,2;2,1", "a list has one order"),
        ("rank --workdir mine --input rows.csv --output old.csv", "no exported model here"),
        ("export --workdir run --out mine", "is no exported model"),
        ("export --workdir run --out run", "is no exported model"),
        ("export --workdir run --out old.csv", "is no exported model"),
        ("export --workdir mine --out new", "no run is there"),
        ("export --workdir mine --out model", "no run is there"),
        ("suggest --workdir run --goal knee", r"front\.json: missing"),
        ("suggest --workdir mine --goal knee", r"front\.json: missing"),
        (f"{IMPORT} store --checkpoint no.pt", "no such file"),
        (f"{IMPORT} store --checkpoint bad.pt", "not a PyTorch state dict"),
        (f"{IMPORT} store --checkpoint bad.pt --workdir run", "holds a run already"),
        (f"{IMPORT} store --checkpoint bad.pt --field-sizes 3,a", "whole numbers"),
        (f"{IMPORT} mine --checkpoint bad.pt", "no prepared data here"),
        (f"{TUNE} --range a", "write NAME=LOW:HIGH"),
        (f"{TUNE} --range model.num_expert=1:2", "--range: .*num_experts"),
        (f"{TUNE} --metrics auc/sale", "no measure 'auc/sale'"),
        (f"{TUNE} --study old.csv", "can't be written"),
        ("tune --config.data.store=mine --study new", "no prepared data here"),
        ("tune --config.data.store=store", "--study is missing"),
        ("prepare csv --input no.yaml --output store", r"no\.yaml"),
        ("prepare synthetic --rows 100 --output mine", "is not a prepared data set"),
        ("prepare synthetic --rows 100 --output run", "is not a prepared data set"),
        ("prepare synthetic --rows 100 --output old.csv", "cannot be written|not a prepared"),
        ("serve --model mine", "no exported model here"),
        ("serve --model model --max-rows 0", "max-rows"),
        ("serve --model model --port 99999", "port"),
        ("explore --workdir mine", "no .* here|no run is there"),
        ("explore --workdir run --rows 0", "give 1 or more"),
        ("options nope", "nope"),
    ],
)
def test_a_refusal_changes_nothing(place, monkeypatch, command, message):
    before = _contents(place)
    monkeypatch.chdir(place)
    name, *arguments = command.split()
    module = importlib.import_module(f"hyperrec_jax.commands.{COMMANDS[name][0]}")
    with pytest.raises(UserError, match=message) as caught:
        module.main(arguments)
    assert "\n" not in str(caught.value)
    assert _contents(place) == before


def test_two_that_write_one_file_end_with_one_of_them_whole(tmp_path):
    target = tmp_path / "scores.csv"
    with files.written_whole(target) as one:
        one.write(b"one " * 1000)
        code = (
            "import sys, pathlib\nfrom hyperrec_jax.data import files\n"
            "with files.written_whole(pathlib.Path(sys.argv[1])) as file: file.write(b'other')"
        )
        subprocess.run([sys.executable, "-c", code, str(target)], cwd=ROOT, check=True)
        assert target.read_bytes() == b"other"
    assert target.read_bytes() == b"one " * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_files_of_two_evaluations_never_stand_side_by_side(tmp_path):
    for name in ("front.json", "report.html", "notes.txt"):
        (tmp_path / name).write_text("old")
    before = tree(tmp_path)
    stopped = contextlib.ExitStack()
    temporary = stopped.enter_context(
        files.written_together(tmp_path, ("front.json", "report.html"))
    )
    (temporary / "front.json").write_text("new")
    assert stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert tree(tmp_path) == before
    with files.written_together(tmp_path, ("front.json", "report.html")) as temporary:
        (temporary / "front.json").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "front.json": "new",
        "notes.txt": "old",
    }


def test_an_extra_is_named_by_packages_that_an_index_has():
    with (
        pytest.raises(UserError, match=r"pip install .*'starlette.* 'uvicorn"),
        needs_extra("serve"),
    ):
        raise ModuleNotFoundError("no", name="uvicorn")


def _command(code, *, environment=None, ready=True):
    """A command in a process of its own; returns it once it runs."""
    text = f"""
import gc, os, time
from hyperrec_jax.commands import cli
def main():
    {code}
cli.exit_on_user_error(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if ready:
        assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_before_the_loop_ends_the_command_as_promised(number, code):
    process = _command('print("ready", flush=True); time.sleep(60)')
    time.sleep(0.1)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == code
    assert "run the same command again to go on" in stderr
    assert len(stderr.splitlines()) == 1


def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost():
    code = """
    def callback(phase, info):
        if phase == "start":
            print("ready", flush=True)
            time.sleep(1.0)
    gc.callbacks.append(callback)
    gc.collect()
    gc.callbacks.clear()
    time.sleep(60)
"""
    process = _command(code.strip())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 130
    assert stderr.splitlines() == ["interrupted; run the same command again to go on"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_during_an_import_is_no_import_error(number, code, tmp_path):
    """NumPy's own C code, and whatever imports it, turns an exception into an ImportError."""
    lines = ["import time", "print('ready', flush=True)", "try:", "    time.sleep(1)"]
    lines += ["except BaseException as error:", "    raise ImportError from error"]
    (tmp_path / "slow_module.py").write_text("\n".join(lines))
    folder = str(tmp_path)
    process = _command(
        f"import sys; sys.path.append({folder!r}); import slow_module; time.sleep(60)"
    )
    process.send_signal(number)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == code
    assert len(stderr.splitlines()) == 1
    assert "run the same command again to go on" in stderr


def test_a_device_that_is_not_there_is_told_in_one_line():
    process = _command(
        "import jax; jax.devices()", environment={"JAX_PLATFORMS": "cuda"}, ready=False
    )
    _, stderr = process.communicate(timeout=200)
    if process.returncode == 0:
        pytest.skip("there is a GPU")
    assert process.returncode == 2
    assert "error: JAX_PLATFORMS=cuda: JAX finds no such device here" in stderr
    assert "Traceback" not in stderr


def test_a_system_without_file_locks_is_told(tmp_path, monkeypatch):
    from hyperrec_jax.data.locks import locked

    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with (
        pytest.raises(UserError, match="on Windows run it in WSL 2"),
        locked(tmp_path / "lock", ""),
    ):
        pass


def test_a_metric_that_is_not_a_number_makes_no_noise(tmp_path, caplog, capfd):
    from hyperrec_jax.training.log import MetricsLog

    log = MetricsLog(tmp_path, 0)
    log.write(1, "validation", {"auc": float("nan"), "loss": 1.0})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["auc"] is None
    assert "NaN or Inf" not in caplog.text + "".join(capfd.readouterr())
