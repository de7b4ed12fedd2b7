"""A command that refuses leaves the run's folder, and what it was to write, as they were."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hyperrec_jax.commands import export as export_command
from hyperrec_jax.commands import predict as predict_command
from hyperrec_jax.commands import suggest as suggest_command
from hyperrec_jax.data import files
from hyperrec_jax.errors import UserError, needs_extra
from tests.conftest import ROOT
from tests.training.test_workdir import tree

pytestmark = pytest.mark.slow

COMMANDS = {
    "predict": predict_command.main,
    "export": export_command.main,
    "suggest": suggest_command.main,
}


@pytest.fixture(scope="module")
def place(trained_run, small_store, tmp_path_factory):
    """A finished run, raw rows, a file and a folder that are not to be changed."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(trained_run, folder / "run")
    shutil.copyfile(small_store.path.parent / "log.csv", folder / "rows.csv")
    (folder / "old.csv").write_text("old")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    os.symlink(folder / "rows.csv", folder / "link.csv")
    return folder


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict --workdir run --input rows.csv --output rows.csv", "is the input"),
        ("predict --workdir run --input rows.csv --output link.csv", "is the input"),
        ("predict --workdir run --input rows.csv --output no/x.csv", "there is no folder .*no; ma"),
        ("predict --workdir run --input rows.csv --output old.txt", "must end in"),
        ("predict --workdir run --input no.csv --output old.csv", "no such file"),
        ("predict --workdir run --input rows.csv --output old.csv --keep no", "no column|lacks co"),
        ("predict --workdir run --input rows.csv --output old.csv --preference 1,2,3", "2"),
        ("predict --workdir no --input rows.csv --output old.csv", "no exported model here"),
        ("export --workdir run --out mine", "is no exported model"),
        ("export --workdir run --out old.csv", "is no exported model"),
        ("export --workdir mine --out new", "no run is there"),
        ("suggest --workdir run --goal knee", r"front\.json: missing"),
        ("suggest --workdir mine --goal knee", r"front\.json: missing"),
    ],
)
def test_a_refusal_changes_nothing(place, monkeypatch, command, message):
    before = tree(place)
    monkeypatch.chdir(place)
    name, *arguments = command.split()
    with pytest.raises(UserError, match=message):
        COMMANDS[name](arguments)
    assert tree(place) == before
    assert not list(place.rglob("*.writing"))


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
