"""Meshes of simulated devices give the same losses and the same AUC."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from jax.sharding import PartitionSpec

from benchmarks.measure import free_port
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import mesh as sharding
from hyperrec_jax.parallel.tables import LARGE_TABLE_ROWS
from tests.conftest import ROOT
from tests.support.together import run_together

pytestmark = pytest.mark.slow

ENVIRONMENT = dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))


def _run(folder, store, data, expert, processes=1, **arguments):
    """What `run_mesh.py` prints, of one process; all must print the same."""
    devices = data * expert // processes
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    arguments |= {"store": str(store.path), "workdir": str(folder), "data": data, "expert": expert}
    address = f"127.0.0.1:{free_port()}"
    commands = [
        [
            *["-m", "tests.parallel.run_mesh"],
            json.dumps(arguments | ({"cluster": [address, processes, i]} if processes > 1 else {})),
        ]
        for i in range(processes)
    ]
    environment = ENVIRONMENT | {"XLA_FLAGS": flags}
    outputs = run_together(commands, environment)
    printed = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert all(result == printed[0] for result in printed)
    return printed[0]


MESHES = {
    "one": (1, 1, 1),
    "four": (2, 2, 1),
    "two": (2, 1, 1),
    "eight": (8, 1, 1),
    "two processes": (2, 1, 2),
}
"""Devices along `data` and `expert`, processes."""


ORIGINS = {
    "four": "one",
    "two": "four",
    "eight": "two",
    "two processes": "four",
}
"""Whose latest state a mesh restores and goes on from."""


@pytest.fixture(scope="module")
def on_meshes(small_store, tmp_path_factory):
    """50 steps on each mesh, and 10 more from another one's checkpoint."""
    folder = tmp_path_factory.mktemp("meshes")
    return {
        name: _run(
            folder / name,
            small_store,
            *mesh,
            calls=5,
            restored=ORIGINS.get(name) and str(folder / ORIGINS[name]),
            scored=str(folder / "one"),
        )
        for name, mesh in MESHES.items()
    }


@pytest.mark.parametrize("mesh", ORIGINS)
def test_losses_do_not_depend_on_the_mesh_or_the_processes(on_meshes, mesh):
    result, one = on_meshes[mesh], on_meshes["one"]
    assert len(result["losses"]) == 50
    np.testing.assert_allclose(result["losses"], one["losses"], rtol=1e-5)
    assert result["experts_a_device"] == 4 // MESHES[mesh][1]


@pytest.mark.parametrize("mesh", ORIGINS)
def test_the_auc_of_a_model_is_the_same_on_all_meshes_and_processes(on_meshes, mesh):
    """Exactly. Of the same parameters: 50 steps that sum in other orders give others, whose last
    bits may swap two rows that score nearly the same."""
    assert on_meshes[mesh]["auc"] == on_meshes["one"]["auc"]
    assert on_meshes[mesh]["logits"] == on_meshes["one"]["logits"]


def test_two_processes_are_two_devices_bit_for_bit(on_meshes):
    two, processes = on_meshes["two"], on_meshes["two processes"]
    assert processes["losses"] == two["losses"]
    assert processes["saved"] == two["saved"]


@pytest.mark.parametrize("mesh", ORIGINS)
def test_a_batch_is_the_same_where_all_processes_share_its_rows(on_meshes, mesh):
    assert on_meshes[mesh]["shared_batch"] == on_meshes["one"]["shared_batch"]


@pytest.mark.parametrize(("mesh", "origin"), ORIGINS.items())
def test_a_checkpoint_of_one_mesh_goes_on_on_another(on_meshes, mesh, origin):
    result = on_meshes[mesh]
    assert result["restored"] == on_meshes[origin]["saved"]
    # Means over ten steps: the loss of one goes by the preferences that were drawn for it.
    assert np.mean(result["losses_after_restoring"]) < np.mean(on_meshes["one"]["losses"][:10])


def test_the_rules():
    mesh = SimpleNamespace(shape={"data": 2, "expert": 2})
    spec = sharding.partition_spec
    assert spec("params/experts/layer_0/kernel", (4, 8, 8), mesh) == PartitionSpec("expert")
    assert spec("opt_state/1/mu/experts/layer_0/bias", (4, 8), mesh) == PartitionSpec("expert")
    assert spec("params/experts/layer_0/kernel", (3, 8, 8), mesh) == PartitionSpec()
    large = (LARGE_TABLE_ROWS, 8)
    rows = PartitionSpec(("data", "expert"))
    assert spec("params/embedding/embedding", large, mesh) == rows
    assert spec("params/embedding/embedding", (100, 8), mesh) == PartitionSpec()
    assert spec("params/embeddings_1/embedding", large, mesh) == rows
    assert spec("opt_state/1/mu/queries/embedding", large, mesh) == rows
    assert spec("params/task_embedding", large, mesh) == PartitionSpec()
    assert spec("params/towers/layer_0/kernel", (2, 8, 8), mesh) == PartitionSpec()
    assert spec("step", (), mesh) == PartitionSpec()


@pytest.mark.parametrize(("data", "expert"), [(3, 1), (-1, 2), (0, 1), (1, 0), (-1, 0)])
def test_a_mesh_that_is_not_the_devices_is_refused(data, expert):
    with pytest.raises(UserError, match="does not make the 1 devices"):
        sharding.make_mesh(data, expert)
