"""The defaults, the presets and the files in configs/."""

import importlib

import pytest

from hyperrec_jax import models
from hyperrec_jax.config import defaults, presets
from hyperrec_jax.config.resolve import options, resolve
from hyperrec_jax.config.sections import COMPONENTS, SECTIONS
from tests.conftest import ROOT

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


def test_a_component_has_its_name_and_nothing_else_in_the_defaults():
    config = defaults.get_config().to_dict()
    for section in COMPONENTS:
        assert set(config[section]) == {"name"}
    assert set(config) == {"preset", "seed", *SECTIONS, *COMPONENTS}
    assert sum(len(config[section]) for section in (*SECTIONS, *COMPONENTS)) + 2 < 45


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_config_files_take_every_preset(name, preset):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    assert config.preset == preset
    assert f"configs/{name}.py" in (importlib.import_module(f"configs.{name}").__doc__ or "") or (
        name in ("base", "aliexpress")
    )


def test_the_original_preset_is_the_original():
    config = defaults.get_config("original").to_dict()
    assert config["model"]["name"] == "pomoe"
    assert config["model"]["num_experts"] == 6
    assert config["objective"]["name"] == "cosine_original"
    assert config["objective"]["weight"] == 0.05
    assert config["sampler"]["concentration"] == (1.0, 1.2)
    assert config["optimizer"] == {
        "learning_rate": 3e-4,
        "l2": 1e-6,
        "schedule": "constant",
        "warmup_steps": 0,
        "lazy_rows": 0,
    }
    train = config["train"]
    assert (train["batch_size"], train["grid"], train["patience"]) == (2048, 5, 2)
    assert train["preferences"] == 1
    assert not train["preference_per_row"]
    assert not train["prior_bias"]
    options = config["model"]
    assert options["code_widths"] == (64, 256, 64)
    assert (options["gate"], options["gate_scope"]) == ("features", "shared")
    assert (options["gate_activation"], options["gate_depth"]) == ("relu", 2)
    assert (options["gate_dropout"], options["norm"]) == (0.05, "batch")
    conditioning = {key for key in models.model_options("pomoe") if key.startswith("gate")}
    used_elsewhere = {"gate_top_k"}  # by the activation `top_k`
    assert conditioning - used_elsewhere <= presets.model_options("original").keys()


def settle(config, store):
    return resolve(config, store.schema, store.split("train")).config


def test_a_settled_config_stands_without_the_defaults(small_store):
    config = defaults.get_config().to_dict()
    settled = settle(config, small_store)
    assert settled["model"]["num_experts"] == 6
    assert settled["model"]["bottom_widths"] == models.model_options("pomoe")["bottom_widths"]
    assert settled["objective"]["name"] == "linear"
    assert settled["normaliser"]["name"] == "entropy"
    assert settled["sampler"]["concentration"] == 0.1
    assert settled["train"]["preferences"] == 2
    assert "num_critics" not in settled["model"]  # of another model
    assert config == defaults.get_config().to_dict()
    assert settle(settled, small_store) == settled
    plain = defaults.get_config()
    plain.update({"model": {"name": "mmoe"}, "train": {"preference_per_row": False}})
    settled = settle(plain.to_dict(), small_store)
    assert (settled["objective"]["name"], settled["train"]["preferences"]) == ("uniform", 1)
    assert "gate" not in options(settled["model"])
