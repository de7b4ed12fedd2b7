"""An objective in one file, through the commands: no edit of package, defaults or docs."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hyperrec_jax.config.files import load_parts
from hyperrec_jax.errors import UserError
from hyperrec_jax.preference.objectives import create_objective
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

EXAMPLE = str(ROOT / "examples" / "custom_objective.py")
TINY = (
    "model.embedding_dim=4",
    "model.bottom_widths=[8]",
    "model.tower_widths=(4,)",
    "model.num_experts=2",
    "train.batch_size=256",
    "train.epochs=1",
    "objective.name=power_mean",
    "objective.exponent=3",
)


def _hyperrec(*arguments, folder):
    command = [sys.executable, "-m", "hyperrec_jax", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_commands_train_with_it_and_list_it(small_store, tmp_path):
    values = [f"--set={value}" for value in (*TINY, f"data.store={small_store.path}")]
    trained = _hyperrec("train", "--import", EXAMPLE, *values, "--workdir", "run", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["objective"] == {"name": "power_mean", "exponent": 3}
    listed = _hyperrec("options", "objective", "power_mean", "--import", EXAMPLE, folder=tmp_path)
    assert "objective.exponent" in listed.stdout
    assert "The power p" in listed.stdout


def test_without_the_import_the_command_says_what_is_missing(small_store, tmp_path):
    values = [f"--set={value}" for value in (*TINY, f"data.store={small_store.path}")]
    refused = _hyperrec("train", *values, "--workdir", "run", folder=tmp_path)
    assert refused.returncode == 2
    assert "no objective 'power_mean'" in refused.stderr
    assert "--import FILE" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_an_installed_package_registers_it_by_an_entry_point(tmp_path):
    shutil.copy(EXAMPLE, tmp_path / "power_mean_plugin.py")
    metadata = tmp_path / "power_mean_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: power-mean-plugin\nVersion: 1\n")
    group = "[hyperrec_jax.plugins]\npower_mean = power_mean_plugin\n"
    (metadata / "entry_points.txt").write_text(group)
    found = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    listed = subprocess.run(
        [sys.executable, "-m", "hyperrec_jax", "options", "objective"],
        cwd=tmp_path,
        env=os.environ | found,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "power_mean" in listed.stdout, listed.stderr


def test_its_value_and_its_range():
    load_parts(EXAMPLE)
    losses, preference = np.array([0.4, 0.9]), np.array([0.7, 0.3])
    for exponent in (1, 2, 5):
        value = create_objective("power_mean", exponent=exponent).loss(losses, preference, None, ())
        expected = np.linalg.norm(losses * preference, exponent)
        assert float(value) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match=r"'exponent' of objective 'power_mean' is 0\.5: give"):
        create_objective("power_mean", exponent=0.5)
