"""Programs compiled beside other work, and the modules that training leaves alone."""

import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from hyperrec_jax.training import ahead
from hyperrec_jax.training.ahead import CompileAhead, CompiledAhead
from hyperrec_jax.training.checkpoint import Progress
from hyperrec_jax.training.train import train
from tests.conftest import ROOT, tiny_config


def test_a_call_waits_for_the_program_and_uses_it():
    traced, go_on = [], threading.Event()

    def double(x):
        traced.append(threading.current_thread())
        return 2 * x

    def arguments():
        assert go_on.wait(30)
        return (jax.ShapeDtypeStruct((3,), jnp.float32),)

    function = CompiledAhead(jax.jit(double))
    hook = CompileAhead(function, arguments)
    hook.begin(Progress(), 0, 1)
    threading.Timer(0.1, go_on.set).start()
    assert function(jnp.arange(3.0)).tolist() == [0, 2, 4]
    assert traced
    assert traced[0] is not threading.main_thread()
    assert len(traced) == 1
    assert function(jnp.arange(2.0)).tolist() == [0, 2]  # of another shape: the function itself
    assert len(traced) == 2
    hook.close()


def test_a_program_that_can_not_be_compiled_is_told_by_the_call():
    def refuse(x):
        raise ValueError("not this one")

    function = CompiledAhead(jax.jit(refuse))
    function.start(lambda: (jnp.ones(2),))
    with pytest.raises(ValueError, match="not this one"):
        function(jnp.ones(2))


@pytest.mark.slow
def test_validation_is_compiled_once_and_ahead(small_store, tmp_path, monkeypatch):
    compiled = []
    call = CompiledAhead.__call__

    def recorded(self, *arguments):
        result = call(self, *arguments)
        compiled.append((self._compiled is not None, self._function._cache_size()))
        return result

    monkeypatch.setattr(ahead.CompiledAhead, "__call__", recorded)
    # A model that no other test has: equal ones share what they have compiled.
    config = tiny_config(small_store, train__epochs=1, model__embedding_dim=5)
    train(config, tmp_path / "run", small_store)
    assert compiled
    assert set(compiled) == {(True, 0)}


SLOW_TO_IMPORT = (
    "torch", "tensorflow", "tensorboard", "tensorflow_datasets", "pandas",
    "sklearn", "matplotlib", "scipy.optimize", "scipy.stats", "optuna", "IPython",
)  # fmt: skip
SCRIPT = f"""
import atexit, sys
from hyperrec_jax.commands.main import main

def check():
    found = [name for name in {SLOW_TO_IMPORT!r} if name in sys.modules]
    print("slow:", found, "jax:", "jax" in sys.modules)

atexit.register(check)
main(sys.argv[1:])
"""


def imported(arguments):
    command = [sys.executable, "-c", SCRIPT, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


@pytest.mark.slow
def test_help_loads_no_jax_and_training_nothing_that_it_does_not_need(small_store, tmp_path):
    assert imported(["train", "--help"]) == "slow: [] jax: False"
    settings = {
        "data.store": small_store.path, "train.epochs": 1, "model.embedding_dim": 2,
        "model.bottom_widths": "[4]", "model.tower_widths": "[2]", "model.num_experts": 2,
        "train.batch_size": 512,
    }  # fmt: skip
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert imported(["train", "--workdir", str(tmp_path / "run"), *options]) == "slow: [] jax: True"
