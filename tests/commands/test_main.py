"""The console script: it lists its commands at once and finds the one that is asked for."""

import importlib
import subprocess
import sys
import tomllib

import pytest

from hyperrec_jax.commands import main as console
from tests.conftest import ROOT

LISTED = "import sys; from hyperrec_jax.commands.main import main; main(['--help']); "
LISTED += "print(sorted({name.partition('.')[0] for name in sys.modules} & {'jax', 'absl', "
LISTED += "'numpy', 'pyarrow', 'ml_collections', 'matplotlib', 'argparse'}))"


def _run(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_loads_none():
    result = _run("-c", LISTED)
    *lines, loaded = result.stdout.splitlines()
    for name in console.COMMANDS:
        assert any(line.split()[:1] == [name] for line in lines), name
    assert loaded == "[]"


@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_command_has_a_main_and_help(name, capsys):
    module = importlib.import_module(f"hyperrec_jax.commands.{console.COMMANDS[name][0]}")
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "--" in printed
    assert "python -m" not in printed


def test_the_script_is_the_modules_main():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["hyperrec"].partition(":")
    assert getattr(importlib.import_module(module), function) is console.main


def test_a_mistyped_command_is_told_with_the_nearest():
    result = _run("-m", "hyperrec_jax", "predcit", "--workdir", "x")
    assert result.returncode == 2
    assert result.stderr == "error: no command 'predcit'; did you mean predict?\n"


def test_exit_codes_and_help_of_the_process():
    assert _run("-m", "hyperrec_jax").stdout == console.usage() + "\n"
    result = _run("-m", "hyperrec_jax", "train", "--workdir", "x", "stray")
    assert result.returncode == 2
    assert result.stderr == (
        "error: unexpected argument 'stray'; options begin with --, see --help\n"
    )
    assert _run("-m", "hyperrec_jax", "--version").stdout.startswith("hyperrec ")
