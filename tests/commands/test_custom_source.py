"""A data source in one file, through the command: no edit of the package."""

import subprocess
import sys

import pytest

from hyperrec_jax.commands import prepare
from hyperrec_jax.data.store import Store
from tests.conftest import write_own_data

pytestmark = pytest.mark.slow

SOURCE = """
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.sources.registry import SOURCES, SourceCommand, add_input


@SOURCES.register("shop")
def shop_command() -> SourceCommand:
    return SourceCommand(
        summary="the logs of our shop",
        description="Reads what the export job writes.",
        add_arguments=add_input("the folder of the export"),
        make=lambda chosen: csv_source(chosen.input / "own.yaml"),
    )
"""


def _prepare(*arguments):
    command = [sys.executable, "-m", "hyperrec_jax", "prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prepares_it_and_lists_it(tmp_path, capsys):
    write_own_data(tmp_path, rows=300)
    (tmp_path / "shop.py").write_text(SOURCE)
    loaded = ["--import", tmp_path / "shop.py"]
    listed = _prepare(*loaded, "--help")
    assert "the logs of our shop" in listed.stdout
    done = _prepare(*loaded, "shop", "--input", tmp_path, "--output", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert sum(len(Store.open(tmp_path / "store").split(name)) for name in ("train", "test")) > 200
    with pytest.raises(SystemExit) as refused:  # here, where nothing has registered it
        prepare.main(["shop", "--input", str(tmp_path)])
    assert refused.value.code == 2
    assert "shop" in capsys.readouterr().err
