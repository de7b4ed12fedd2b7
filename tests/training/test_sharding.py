"""Meshes of simulated devices give the same losses and the same AUC."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hyperrec_jax.errors import UserError
from hyperrec_jax.training import sharding
from tests.conftest import ROOT


def _run(store, devices, data, expert):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.run_mesh", store.path, "50", str(data), str(expert)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_device(small_store):
    return _run(small_store, 1, 1, 1)


@pytest.mark.parametrize(("data", "expert"), [(2, 1), (2, 2), (8, 1)])
def test_results_do_not_depend_on_the_mesh(small_store, one_device, data, expert):
    result = _run(small_store, data * expert, data, expert)
    np.testing.assert_allclose(result["losses"], one_device["losses"], rtol=1e-5)
    np.testing.assert_allclose(result["auc"], one_device["auc"], rtol=1e-4)
    assert result["experts_a_device"] == 4 // expert


def test_the_rules():
    mesh = SimpleNamespace(shape={"data": 2, "expert": 2})
    spec = sharding.partition_spec
    assert spec("params/experts/layer_0/kernel", (4, 8, 8), mesh) == PartitionSpec("expert")
    assert spec("opt_state/1/mu/experts/layer_0/bias", (4, 8), mesh) == PartitionSpec("expert")
    assert spec("params/experts/layer_0/kernel", (3, 8, 8), mesh) == PartitionSpec()
    large = (sharding.LARGE_TABLE_ROWS, 8)
    rows = PartitionSpec(("data", "expert"))
    assert spec("params/embedding/embedding", large, mesh) == rows
    assert spec("params/embedding/embedding", (100, 8), mesh) == PartitionSpec()
    assert spec("params/towers/layer_0/kernel", (2, 8, 8), mesh) == PartitionSpec()
    assert spec("step", (), mesh) == PartitionSpec()


@pytest.mark.parametrize(("data", "expert"), [(3, 1), (-1, 2), (0, 1), (1, 0), (-1, 0)])
def test_a_mesh_that_is_not_the_devices_is_refused(data, expert):
    with pytest.raises(UserError, match="does not make the 1 devices"):
        sharding.make_mesh(data, expert)
