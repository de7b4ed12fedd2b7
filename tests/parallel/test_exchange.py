"""Rows that are exchanged between devices are those of the simple lookup."""

import json
import os

import pytest

from tests.conftest import ROOT
from tests.parallel.run_exchange import KINDS, MESHES, ids_of
from tests.support.together import run_together

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def differences():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    variables = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    environment = dict(os.environ, **variables)
    (output,) = run_together([["-m", "tests.parallel.run_exchange"]], environment)
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("devices", MESHES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_results_are_those_of_the_whole_table(differences, devices, kind):
    found = differences[f"{devices}, {kind}"]
    # What is moved keeps its bits; gradients are sums in another order.
    assert found["rows"] == found["written"] == 0
    assert found["gradient"] < 1e-5
    assert found["second gradient"] < 1e-5


def test_more_ids_than_a_message_has_room_for_were_tried(differences):
    of_a_device = ids_of("one owner")[:64]
    assert len(set(of_a_device.ravel().tolist())) > differences["room"]


def test_a_model_reads_all_its_fields_by_exchange(differences):
    assert len(differences["embedding"]) > 3
    assert max(differences["embedding"]) < 1e-5
