"""What an installed package can do without the checkout."""

import configparser
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

TINY = (
    "model.embedding_dim=4",
    "model.bottom_widths=[8]",
    "model.tower_widths=[4]",
    "model.num_experts=2",
    "train.epochs=1",
)

CONFIG = """\
from hyperrec_jax.config import defaults


def get_config(preset="default"):
    config = defaults.get_config(preset)
    config.train.batch_size = 256
    return config
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The unpacked wheel."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, so that no wheel can be built")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "hyperrec_jax", source / "hyperrec_jax", ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    result = subprocess.run(
        [*build, "--wheel-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_module_and_the_console_script_are_in_the_wheel(site):
    there = {str(path.relative_to(site)) for path in (site / "hyperrec_jax").rglob("*.py")}
    modules = (ROOT / "hyperrec_jax").rglob("*.py")
    assert there == {str(path.relative_to(ROOT)) for path in modules}
    (path,) = site.glob("*.dist-info/entry_points.txt")
    scripts = configparser.ConfigParser()
    scripts.read(path)
    assert scripts["console_scripts"]["hyperrec"] == "hyperrec_jax.commands.main:main"


def test_what_the_page_is_made_of_is_in_the_wheel(site):
    folder = site / "hyperrec_jax" / "reports" / "assets"
    kept = ROOT / "hyperrec_jax" / "reports" / "assets"
    assert {path.name for path in folder.iterdir()} == {path.name for path in kept.iterdir()}
    assert (folder / "uPlot.LICENSE").read_text().startswith("The MIT License")


def test_prepare_train_and_evaluate_without_the_checkout(site, tmp_path):
    (tmp_path / "own.py").write_text(CONFIG)

    def hyperrec(*arguments):
        code = (
            "import sys, hyperrec_jax; from hyperrec_jax.commands.main import main; "
            f"assert hyperrec_jax.__file__.startswith({str(site)!r}); sys.exit(main())"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    hyperrec("prepare", "synthetic", "--rows", 3000, "--test-rows", 1000)
    tiny = [f"--set={value}" for value in TINY]
    assert "selected" in hyperrec("train", "--config", "own.py", *tiny)
    hyperrec("evaluate", "--workdir", "runs/own", "--grid", 3, "--resamples", 0)
    front = json.loads((tmp_path / "runs/own/evaluation/test/front.json").read_text())
    assert len(front["preferences"]) == 3
    config = json.loads((tmp_path / "runs/own/config.json").read_text())
    assert (config["train"]["batch_size"], config["model"]["num_experts"]) == (256, 2)
    hyperrec("train", *tiny, "--set=train.batch_size=1024")
    assert (tmp_path / "runs/default/best").is_dir()
