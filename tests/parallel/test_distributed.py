"""The real commands as two processes: one of them stopped, one killed, started again."""

import json
import os
import signal
import time

import numpy as np
import pytest

from benchmarks.measure import free_port
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel.distributed import Cluster
from hyperrec_jax.training import workdir
from hyperrec_jax.training.log import read_metrics
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from tests.support.together import Together, members, run_together

pytestmark = pytest.mark.slow

MODEL = [
    "--config.model.name=sharedbottom",
    "--config.model.embedding_dim=4",
    "--config.model.bottom_widths=(8,)",
    "--config.model.tower_widths=(4,)",
    "--config.train.batch_size=48",
    "--config.train.steps_per_dispatch=4",
    "--config.train.epochs=4",
    "--config.train.patience=0",
    "--config.train.checkpoint_every=24",
]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"process_id": 0}, "need --coordinator"),
        ({"coordinator": "10.0.0.1"}, "give host:port"),
        ({"coordinator": "10.0.0.1:80", "num_processes": 2}, "needs --num_processes and --proc"),
        ({"coordinator": "h:80", "num_processes": 2, "process_id": 2}, "ids go from 0 to 1"),
        ({"coordinator": "h:80", "num_processes": 0, "process_id": 0}, "at least 1"),
        ({"method": "auto", "process_id": -1}, "ids go from 0"),
    ],
)
def test_flags_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Cluster(**settings)


@pytest.fixture(scope="module")
def environment():
    """What the commands run in."""
    return dict(os.environ, JAX_PLATFORMS="cpu")


def _train(store, folder):
    config = ["--config", "configs/own_data.py", f"--config.data.store={store.path}"]
    return ["train.py", *config, *MODEL, "--workdir", folder]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--coordinator 127.0.0.1:{port} --num_processes 2 --process_id 1", "can't be reached"),
        ("--coordinator 127.0.0.1:{port} --num_processes 2 --process_id 0", "not all 2 processes"),
        ("--distributed=auto", "can't be joined"),
    ],
)
def test_processes_that_do_not_find_each_other_say_so(
    small_store, environment, tmp_path, flags, message
):
    flags = [*flags.format(port=free_port()).split(), "--connect_timeout", "1"]
    with Together([["evaluate.py", "--workdir", tmp_path, *flags]], environment) as together:
        assert together.wait(200) == [2]
        errors = [line for line in together.output(0).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.fixture(scope="module")
def disturbed(small_store, environment, tmp_path_factory):
    """A run of two processes that was stopped, killed, and started again until it was done."""
    folder = tmp_path_factory.mktemp("run") / "workdir"
    command = _train(small_store, folder)

    def last_step():
        return max((r["step"] for r in read_metrics(folder)), default=0)

    def start_and_signal(steps, number):
        """Signals once that many steps are done from where the run was."""
        target = last_step() + steps
        with Together(members(command, 2), environment) as together:
            deadline = time.monotonic() + 200
            while last_step() < target:
                assert {p.poll() for p in together.processes} == {None}, together.output(0)
                assert time.monotonic() < deadline
                time.sleep(0.02)
            together.processes[1].send_signal(number)
            codes = together.wait(200)
            return codes, together.output(0)

    stopped = start_and_signal(20, signal.SIGTERM)
    killed = start_and_signal(50, signal.SIGKILL)
    # As SLURM starts them; both on this host.
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    starts = [
        environment | slurm | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
        for index in range(2)
    ]
    outputs = run_together([[*command, "--distributed=auto"]] * 2, starts)
    return folder, stopped, killed, outputs


def test_sigterm_to_one_process_saves_and_stops_all(disturbed):
    _, (codes, output), _, _ = disturbed
    assert codes == [75, 75]
    assert "the state is saved; run the same command to go on" in output


def test_a_process_that_dies_ends_the_others_with_one_line(disturbed):
    _, _, (codes, output), _ = disturbed
    assert codes == [3, -signal.SIGKILL]
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert "process 0 of 2 lost another one" in error
    assert "Traceback" not in output


STUCK = """
import os, signal, sys, time
from hyperrec_jax.parallel.distributed import Cluster, joined
address, process = sys.argv[1], int(sys.argv[2])
with joined(Cluster(coordinator=address, num_processes=2, process_id=process)):
    time.sleep(1 if process == 1 else 300)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_waits_for_nothing_learns_that_another_died(environment):
    address = f"127.0.0.1:{free_port()}"
    commands = [["-c", STUCK, address, index] for index in range(2)]
    with Together(commands, environment) as together:
        codes = together.wait(90)  # less than until the heartbeats tell
        output = together.output(0)
    assert codes == [3, -signal.SIGKILL]
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert "process 0 of 2 lost another one" in error


def test_started_again_it_ends_as_one_process_does(small_store, disturbed, tmp_path):
    folder, _, _, outputs = disturbed
    assert "selected" in outputs[0]
    assert "selected" not in outputs[1]  # one process writes the table
    config = workdir.load_config(folder)
    config["mesh"] = {"data": 1, "expert": 1}
    train(config, tmp_path, small_store)
    one, two = read_metrics(tmp_path), read_metrics(folder)
    assert [(r["step"], r["kind"]) for r in two] == [(r["step"], r["kind"]) for r in one]
    losses = [[r["loss"] for r in records if r["kind"] == "train"] for records in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_two_processes_evaluate_what_one_does(small_store, environment, disturbed, tmp_path):
    folder = disturbed[0]
    command = ["evaluate.py", "--workdir", folder, "--output", tmp_path, "--grid", 3]
    run_together(members(command, 2), environment)
    two = json.loads((tmp_path / "front.json").read_text())
    front = load_trained(folder).evaluate(Store.open(small_store.path), "test", 3)
    assert two["rows"] == front.rows
    assert two["positives"] == list(front.positives)
    (row,) = two["preferences"]
    assert [row["auc/click"], row["auc/buy"]] == front.auc[0].tolist()
    assert (tmp_path / "report.html").exists()
