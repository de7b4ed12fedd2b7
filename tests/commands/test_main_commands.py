"""The real command lines, in processes of their own, from files to a front."""

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.parts import make_parts
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.fusion import Fusion
from hyperrec_jax.exit import one_line_errors
from hyperrec_jax.training import workdir
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.log import read_metrics
from tests.conftest import ROOT, write_own_data

pytestmark = pytest.mark.slow

TINY = [
    "--config.model.embedding_dim=4",
    "--config.model.bottom_widths=(8,)",
    "--config.model.tower_widths=(4,)",
    "--config.model.num_experts=2",
    "--config.train.batch_size=64",
]


@pytest.fixture(scope="session")
def environment():
    """What the commands run in."""
    return os.environ | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="session")
def command(environment):
    """Runs a command from the project's root; returns what it wrote and its exit code."""

    def run(*arguments, code=0, environment=environment):
        result = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def here(monkeypatch, capfd):
    """Runs a command in this process, which has loaded JAX; returns what it wrote."""
    monkeypatch.chdir(ROOT)

    def run(name, *arguments, code=0):
        main = importlib.import_module(f"hyperrec_jax.commands.{name}").main
        capfd.readouterr()
        if code:
            with pytest.raises(SystemExit) as end, one_line_errors():
                main([*map(str, arguments)])
            assert end.value.code == code
        else:
            main([*map(str, arguments)])
        return capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def prepared(command, tmp_path_factory):
    """A store that the command made of a CSV log."""
    folder = tmp_path_factory.mktemp("own")
    description = write_own_data(folder)
    store = folder / "store"
    arguments = ["csv", "--input", description, "--output", store]
    output = command("-m", "hyperrec_jax", "prepare", *arguments).stdout
    train = Store.open(store).split("train")
    clicks, buys = train.positives
    header, first = (re.search(rf"^{name} .*$", output, re.M)[0] for name in ("split", "train"))
    assert header.split() == ["split", "rows", "click", "buy"]
    assert [first.split()[place] for place in (1, 2, 4)] == [
        f"{count:,}" for count in (len(train), clicks, buys)
    ]
    return store


@pytest.fixture(scope="session")
def trained(command, environment, prepared, tmp_path_factory):
    """A workdir that the command trained, with the compiler as users have it."""
    folder = tmp_path_factory.mktemp("run") / "workdir"
    optimised = {name: value for name, value in environment.items() if name != "XLA_FLAGS"}
    arguments = [*_train(prepared, folder), "--config.train.epochs=3"]
    result = command(*arguments, environment=optimised)
    assert "selected" in result.stdout
    return folder


def _train(store, folder, name="train.py"):
    arguments = ["--config", "configs/own_data.py", f"--config.data.store={store}"]
    return [name, *arguments, *TINY, "--workdir", folder]


def test_evaluate_writes_the_front(command, trained):
    output = command("evaluate.py", "--workdir", trained, "--grid", 7).stdout
    assert "hypervolume" in output
    folder = trained / "evaluation" / "test"
    front = json.loads((folder / "front.json").read_text())
    verdicts = {True: "losses: the preference trades", False: "losses: no trade-off beyond"}
    assert verdicts[front["trade_off"]["found"]] in output
    assert verdicts[not front["trade_off"]["found"]] not in output
    assert len(front["preferences"]) == 7
    assert front["tasks"] == ["click", "buy"]
    assert 0.6 < front["preferences"][0]["auc/click"] < 1  # the preference for clicks
    assert 0.3 < front["hypervolume"] < 1
    assert any(row["non_dominated"] for row in front["preferences"])
    rows = list(csv.DictReader((folder / "front.csv").read_text().splitlines()))
    assert float(rows[3]["auc/buy"]) == front["preferences"][3]["auc/buy"]
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert {each.name for each in (trained / "tensorboard").iterdir()} >= {"train", "validation"}
    shown = max((trained / "tensorboard" / "test").iterdir(), key=lambda each: each.stat().st_size)
    assert (folder / "front.png").read_bytes() in shown.read_bytes()
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    # The data has groups: lists come by themselves, and first.
    ranks = list(csv.DictReader((folder / "lists.csv").read_text().splitlines()))
    assert len(ranks) == 7
    assert {row["fusion"] for row in ranks} == {"expected_gain"}
    (fusion,) = front["lists"]["fusions"]
    assert [row["ndcg@10/buy"] for row in fusion["preferences"]] == [
        float(row["ndcg@10/buy"]) for row in ranks
    ]
    assert set(fusion["trade_off"]) == {"found", "gain", "deviation"}
    assert output.index("lists: ") < output.index("losses: ")
    assert "list score: expected gain at " in output
    page = (folder / "report.html").read_text()
    facts = json.loads(page.partition('id="facts">')[2].partition("</script>")[0])
    assert [view["name"] for view in facts["views"]] == ["lists", "predictions", "losses"]
    assert page.index("NDCG@10 of buy") < page.index("The predictions: ")  # in the verdict, too


def test_evaluate_learns_a_list_and_compares_runs(here, trained, tmp_path):
    options = [
        "--grid",
        3,
        "--ranking=learned,product",
        f"--against={trained}",
        "--output",
        tmp_path,
    ]
    output = here("evaluate", "--workdir", trained, *options).out
    assert "that of the best other model: click " in output
    front = json.loads((tmp_path / "front.json").read_text())
    assert [row["model"] for row in front["against"]["models"]] == ["this model", str(trained)]
    fused = Fusion.load(tmp_path / "fusion.npz")
    assert fused.score(np.zeros((2, 4)), [0.5, 0.5]).shape == (4,)
    assert len((tmp_path / "lists.csv").read_text().splitlines()) == 7
    assert [one["fusion"] for one in front["lists"]["fusions"]] == ["learned", "product"]
    refused = here("evaluate", "--workdir", trained, "--ranking=weights", code=2)
    assert "learned, all and none; what it named is log_odds now" in refused.err
    refused = here("evaluate", "--workdir", trained, "--resamples=1", code=2)
    assert "at least 2" in refused.err


def test_evaluate_takes_preferences_from_the_command_line_and_a_file(here, trained, tmp_path):
    path = tmp_path / "preferences.csv"
    path.write_text("3,1\n0,1\n")
    for index, value in enumerate(["3,1;0,1", path]):
        output = tmp_path / str(index)
        arguments = ["--preferences", value, "--split", "validation", "--output", output]
        here("evaluate", "--workdir", trained, *arguments)
    one, other = (json.loads((tmp_path / i / "front.json").read_text()) for i in "01")
    assert one == other
    assert one["preferences"][0]["preference/click"] == 0.75


def test_scores_of_a_file_and_nothing_else_is_said(command, trained, prepared, tmp_path):
    log = prepared.parent / "log.csv"
    target = tmp_path / "scores.csv"
    arguments = ["--workdir", trained, "--input", log, "--output", target, "--preference", "3,7"]
    result = command("-m", "hyperrec_jax", "predict", *arguments)
    assert result.stdout == f"{target}: 4,000 rows under 1 preference\n"
    assert result.stderr == ""
    assert target.read_text().startswith('"session","click","buy","score"\n')


def test_training_again_does_nothing_more(here, trained, prepared):
    before = (trained / "metrics.jsonl").read_text()
    here(*_train(prepared, trained, "train"), "--config.train.epochs=3")
    assert (trained / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py", "--config"], "--config"),
        (["train.py", "--config", "configs/nothing.py"], "configs/nothing.py"),
        (["train.py", "--config", "configs/base.py", "--config.modle.name=x"], "modle"),
        (["train.py", "--config", "configs/base.py", "--config.preset=x"], "no preset 'x'"),
        (["train.py", "--config", "configs/base.py", "--config.data.store=/nowhere"], "prepare"),
        (["train.py", "--config", "configs/base.py", "--epochs=3"], "epochs"),
        (["evaluate.py"], "--workdir is missing"),
        (["evaluate.py", "--workdir", "/nowhere"], "no run is there"),
        (["evaluate.py", "--workdir", "{trained}", "--preferences", "-1,2"], "negative"),
        (["evaluate.py", "--workdir", "{trained}", "--preferences", "0,0"], "zero"),
        (["evaluate.py", "--workdir", "{trained}", "--preferences", "1,2,3"], "2"),
        (["evaluate.py", "--workdir", "{trained}", "--split", "dev"], "split"),
        (["evaluate.py", "--workdir", "{trained}", "--store", "/nowhere"], "/nowhere"),
        (["evaluate.py", "--workdir", "{trained}", "--output", "/proc/x"], "written"),
        (["{train}", "--config.seed=5"], "seed: 0 -> 5"),
        (
            ["-m", "hyperrec_jax", "prepare", "csv", "--input", "/nowhere.yaml"],
            "/nowhere.yaml",
        ),
        (["-m", "hyperrec_jax", "prepare", "synthetic", "--output", "/proc/x"], "/proc/x"),
    ],
)
def test_a_mistake_is_told_in_one_line(here, trained, prepared, arguments, message):
    """As `exit_on_user_error` of a process tells it, which the next test starts."""
    filled = []
    for argument in arguments:
        filled += (
            [*_train(prepared, trained), "--config.train.epochs=3"]
            if argument == "{train}"
            else [argument.format(trained=trained)]
        )
    name, *options = map(str, filled)
    if name == "-m":
        _, name, *options = options
    told = here(name.removesuffix(".py"), *options, code=2).err.splitlines()
    (line,) = (line for line in told if line.startswith("error: "))
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py", "--config", "configs/base.py", "--config.modle.name=x"], "modle"),
        (["evaluate.py", "--workdir", "{trained}", "--preferences", "1,2,3"], "2"),
        (["-m", "hyperrec_jax", "prepare", "synthetic", "--output", "/proc/x"], "/proc/x"),
        (["-m", "hyperrec_jax", "tune", "--config=configs/base.py"], "--study is missing"),
    ],
)
def test_a_process_tells_a_mistake_in_one_line(command, trained, arguments, message):
    result = command(*[argument.format(trained=trained) for argument in arguments], code=2)
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert message in line


def test_stopped_and_killed_and_started_again_ends_bit_for_bit_the_same(
    here, command, environment, prepared, tmp_path
):
    """Ctrl-C, SIGTERM, then SIGKILL during a save, against a run that nothing disturbed."""
    options = [
        "--config.model.name=mmoe",  # the soak does it with the default model
        "--config.train.epochs=4",
        "--config.train.patience=0",
        "--config.train.batch_size=32",
        "--config.train.checkpoint_every=24",
    ]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    here(*_train(prepared, whole, "train"), *options)

    def start_and_signal(step, number):
        arguments = [sys.executable, *map(str, _train(prepared, stopped)), *options]
        with (tmp_path / "stderr").open("w") as stderr:
            process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=stderr)
        deadline = time.monotonic() + 200
        while max((r["step"] for r in read_metrics(stopped)), default=0) < step:
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        while number == signal.SIGKILL and not half_a_checkpoint():
            process.send_signal(signal.SIGCONT)
            assert process.poll() is None
            time.sleep(0.002)
            if half_a_checkpoint():
                process.send_signal(signal.SIGSTOP)  # and see whether it is still half of one
                time.sleep(0.02)
        process.send_signal(number)
        return process.wait(100)

    def half_a_checkpoint():
        return list(stopped.glob("*/*.orbax-checkpoint-tmp"))

    for step, number, code in ((20, signal.SIGINT, 130), (60, signal.SIGTERM, 75)):
        assert start_and_signal(step, number) == code
        *progress, last = (tmp_path / "stderr").read_text().splitlines()
        assert re.fullmatch(r"stopped at step \d+, the state is saved; run .* to go on", last)
        assert all(re.match(r"epoch \d+/4: |$", line) for line in progress), progress
    assert start_and_signal(120, signal.SIGKILL) == -signal.SIGKILL
    assert half_a_checkpoint()
    command(*_train(prepared, stopped), *options)
    one, other = (_final_state(folder, prepared) for folder in (whole, stopped))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    steps = [(r["step"], r["kind"]) for r in read_metrics(stopped)]
    assert steps == [(r["step"], r["kind"]) for r in read_metrics(whole)]


def _final_state(folder, store):
    training = make_parts(workdir.load_config(folder), Store.open(store))
    restored = Checkpoints(folder, read_only=True).restore_latest(training.template)
    assert restored is not None
    return restored[0]


def test_the_aliexpress_sample_goes_all_the_way(here, caplog, real_data_dir, tmp_path):
    """The README's words; one class only in the validation labels, so that AUC is undefined."""
    store, run = tmp_path / "store", tmp_path / "run"
    source = ["aliexpress", "--country", "us", "--input", real_data_dir / "aliexpress_sample"]
    here("prepare", *source, "--output", store)
    config = ["--config", "configs/aliexpress_us.py", f"--config.data.store={store}"]
    small = [*TINY, "--config.train.epochs=2"]
    here("train", *config, *small, "--workdir", run)
    assert "one class only" in caplog.text
    output = here("evaluate", "--workdir", run, "--grid", 3).out
    assert "20 rows" in output
    front = json.loads(Path(run / "evaluation" / "test" / "front.json").read_text())
    assert front["positives"] == [10, 2]
